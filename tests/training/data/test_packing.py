"""Samples are packed or padded together: each exactly once, within the budget, wasting little."""

import math
import random

import pytest
import torch
from opensora_comfy.model.frames import CHUNKS, EACH_FRAME, OVERLAPPING
from opensora_comfy.model.sizes import ASPECT_RATIOS, frame_size
from opensora_comfy.model.transformers.stdit3 import STDiT3
from opensora_comfy.training.data.packing import (
    grid_of,
    near_shapes,
    packs,
    padded_tokens,
    tokens_of,
    unused,
    wasted,
)


def shuffled(count, seed=0):
    return random.Random(seed).sample(range(count), count)


def mixed_grids(count, seed=0):
    """Images and clips of 144p and 240p, of all ratios."""
    draw = random.Random(seed)
    return [
        grid_of(draw.choice([1, 17, 34, 51, 102]), *frame_size(draw.choice(["144p", "240p"]), ratio), CHUNKS)
        for ratio in draw.choices(ASPECT_RATIOS, k=count)
    ]


def test_tokens_are_those_that_the_network_makes():
    with torch.device("meta"):
        network = STDiT3()
    for frames in (1, 3, 17, 20, 51, 102):
        for height, width in [frame_size("144p", ratio) for ratio in ASPECT_RATIOS] + [(8, 8), (15, 24), (360, 641)]:
            latents = torch.empty(1, 4, CHUNKS.latent_frames(frames), height // 8, width // 8, device="meta")
            grid = network.grid(network.pad_to_patches(latents))
            assert grid_of(frames, height, width, CHUNKS) == grid
            assert tokens_of(frames, height, width, CHUNKS) == math.prod(grid)
    assert tokens_of(51, 256, 256, CHUNKS) == 15 * 16 * 16
    assert tokens_of(16, 256, 256, EACH_FRAME) == 16 * 16 * 16
    assert grid_of(17, 122, 250, OVERLAPPING, (1, 1, 1)) == (5, 16, 32)  # by eights it would be 15 and 31
    assert grid_of(17, 256, 256, CHUNKS, (2, 4, 4)) == (3, 8, 8)


def test_a_clip_without_latents_is_refused():
    with pytest.raises(ValueError, match=r"17 frames of 7 x 64 pixels makes \(5, 0, 8\) latents.*nearest is"):
        tokens_of(17, 7, 64, CHUNKS)


def test_the_largest_go_first_and_each_into_the_first_pack_with_room():
    tokens = [3, 5, 4, 6, 2, 12, 10]
    assert packs(tokens, 10, [4, 0, 1, 2, 3, 5, 6]) == [[4, 0, 1], [2, 3], [5], [6]]
    assert packs(tokens, 10, [6, 5, 4, 3, 2, 1, 0]) == [[6], [5], [4, 1, 0], [3, 2]]
    assert packs([], 10, []) == []


@pytest.mark.parametrize("seed", range(5))
def test_packs_hold_every_sample_once_within_the_budget(seed):
    tokens = [math.prod(grid) for grid in mixed_grids(700, seed)]
    order, budget = shuffled(700, seed), 6000
    found = packs(tokens, budget, order)
    assert sorted(one for pack in found for one in pack) == list(range(700))
    loads = [sum(tokens[one] for one in pack) for pack in found]
    assert all(load <= budget or len(pack) == 1 for load, pack in zip(loads, found))
    assert any(load > budget for load in loads)
    fitting = [load for load in loads if load <= budget]
    assert unused(tokens, found, budget) == sum(budget - load for load in fitting)
    assert sum(fitting) > 0.9 * len(fitting) * budget
    assert found == packs(tokens, budget, list(order)) != packs(tokens, budget, shuffled(700, seed + 99))


def test_samples_wait_no_longer_than_a_window():
    tokens, order = [math.prod(grid) for grid in mixed_grids(300)], shuffled(300)
    for found in (packs(tokens, 6000, order, window=50), near_shapes(mixed_grids(300), 4, order, window=50)):
        flat = [one for batch in found for one in batch]
        for start in range(0, 300, 50):
            assert set(flat[start : start + 50]) == set(order[start : start + 50])
        firsts = [order.index(batch[0]) for batch in found]
        assert firsts == sorted(firsts)
        assert all(batch == sorted(batch, key=order.index) for batch in found)


def test_part_of_the_samples_may_be_packed():
    assert packs([4, 4, 4, 4], 8, [3, 1]) == [[3, 1]]


@pytest.mark.parametrize("seed", range(3))
def test_batches_of_near_shape_hold_every_sample_once_and_waste_little(seed):
    grids, order = mixed_grids(400, seed), shuffled(400, seed)
    found = near_shapes(grids, 8, order, waste=0.2, budget=20000)
    assert sorted(one for batch in found for one in batch) == list(range(400))
    assert max(map(len, found)) == 8
    for batch in found:
        whole = padded_tokens(grids[one] for one in batch)
        assert len(batch) == 1 or whole <= 20000
        assert wasted(grids, [batch]) <= 0.2 * whole
    assert found == near_shapes(grids, 8, list(order), waste=0.2, budget=20000)
    by_chance = [order[start : start + 8] for start in range(0, 400, 8)]
    assert wasted(grids, found) < 0.1 * wasted(grids, by_chance)


def test_padding_is_counted_by_the_largest_side_of_each():
    grids = [(1, 4, 2), (2, 2, 4), (5, 1, 1)]
    assert padded_tokens(grids) == 3 * 5 * 4 * 4
    assert padded_tokens([]) == 0
    assert wasted(grids, [[0, 1], [2]]) == 2 * 2 * 4 * 4 - 8 - 16


def test_only_like_shapes_meet_where_nothing_may_be_wasted():
    grids = [(1, 2, 3), (1, 3, 2), (1, 2, 3), (5, 2, 3), (1, 3, 2), (1, 2, 3)]
    assert near_shapes(grids, 2, range(6), waste=0) == [[0, 2], [1, 4], [3], [5]]
    assert near_shapes(grids, 6, range(6), waste=1) == [[0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: packs([1, 2], 0, [0, 1]), "budget is 0; .* the nearest is 1"),
        (lambda: packs([1, 2], 5, [0, 2]), "order names sample 2, but the samples are 0 … 1"),
        (lambda: packs([1, 2], 5, [0, -1]), "order names sample -1"),
        (lambda: packs([1, 2], 5, [0, 0]), "order names sample 0 twice"),
        (lambda: packs([1, 0], 5, [0, 1]), "sample 1 has 0 tokens"),
        (lambda: packs([1, 2], 5, [0, 1], window=0), "window is 0"),
        (lambda: near_shapes([(1, 1, 1)], 0, [0]), "batch_size is 0"),
        (lambda: near_shapes([(1, 1, 1)], 1, [0], budget=0), "budget is 0"),
        (lambda: near_shapes([(1, 1, 1)], 1, [0], waste=1.5), "waste is 1.5; .* the nearest is 1"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
