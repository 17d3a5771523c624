"""The frame-mask strategies of training."""

import json
import random

import pytest
import torch
from golden import FOLDER
from opensora_comfy.training.masks import check_conditions, condition_frames, draw, frame_mask
from opensora_comfy.training.tiny.recipe import LONG_RATIOS, RATIOS


@pytest.mark.parametrize(
    ("name", "kept"), [("identity", []), ("image_head", [0]), ("image_tail", [9]), ("image_head_tail", [0, 9])]
)
def test_single_frames(name, kept):
    mask = frame_mask(name, 10, random.Random(0))
    assert mask.dtype == torch.bool
    assert (~mask).nonzero().flatten().tolist() == kept


def test_quarters_keep_a_run_of_at_most_a_quarter():
    for seed in range(50):
        rng = random.Random(seed)
        kept = (~frame_mask("quarter_random", 20, rng)).nonzero().flatten()
        assert 1 <= len(kept) <= 5
        assert (kept.diff() == 1).all()
        assert not frame_mask("quarter_head", 20, rng)[0]
        assert not frame_mask("quarter_tail", 20, rng)[-1]


def test_interpolation_keeps_every_second_frame():
    mask = frame_mask("intepolate", 9, random.Random(0))
    assert (mask[1:] != mask[:-1]).all()


def test_chunks_are_kept_whole():
    def kept(name, frames, seed=0):
        return (~frame_mask(name, frames, random.Random(seed))).nonzero().flatten().tolist()

    assert kept("chunk_head", 10) == [0, 1, 2, 3, 4]
    assert kept("chunk_tail", 10) == [5, 6, 7, 8, 9]
    assert kept("chunk_head_tail", 15) == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]
    assert {len(kept("chunk_head", 15, seed)) for seed in range(20)} == {5, 10}
    assert kept("chunk_head_tail", 10) == kept("chunk_head", 10)  # no room for a chunk at both ends
    assert kept("chunk_head", 5) == kept("chunk_tail", 5) == []


@pytest.mark.parametrize("name", [*RATIOS, *LONG_RATIOS, "identity"])
def test_something_is_always_generated(name):
    for seed in range(100):
        for frames in (1, 2, 5, 10, 15):
            assert frame_mask(name, frames, random.Random(seed)).any()


def test_ratios_are_kept():
    masks = draw({"image_head": 0.25}, 10, 2000, version=None, rng=random.Random(0))
    assert masks[:, 0].float().mean() == pytest.approx(0.75, abs=0.04)
    assert masks[:, 1:].all()


def recorded(version):
    return json.loads((FOLDER / "training" / f"masks_v{version.replace('.', '_')}.json").read_text())


def seeded(seed):
    return {"rng": random.Random(seed), "generator": torch.Generator().manual_seed(seed)}


@pytest.mark.parametrize("version", ["1.1", "1.2", "1.3"])
def test_every_mask_of_the_original(version):
    table = recorded(version)
    for row in table["table"]:
        draws = seeded(row["seed"])
        draws["rng"].random()  # the draw that picks the strategy comes first
        arguments = row["strategy"], row["frames"], draws["rng"], draws["generator"], version
        if isinstance(row["mask"], str):
            with pytest.raises(ValueError, match=f"a quarter of {row['frames']} latent frames is none"):
                frame_mask(*arguments)
        else:
            assert frame_mask(*arguments).int().tolist() == row["mask"], row
    for case in table["batches"]:
        masks = draw(case["mask_ratios"], case["frames"], case["batch"], version=version, **seeded(case["seed"]))
        assert ["".join(map(str, mask)) for mask in masks.int().tolist()] == case["masks"]


@pytest.mark.parametrize("version", ["1.1", "1.2", "1.3"])
def test_what_the_original_refuses_is_refused(version):
    words = {"nonsense": "the nearest is", "-0.1": "must be within 0 … 1", "0.25": "they must add up to 1"}
    cases = recorded(version)["constructor"]
    for ratios, outcome, *_ in cases:
        if outcome != "refused":
            assert draw(ratios, 4, 1, version=version, **seeded(0)).shape == (1, 4)
            continue
        with pytest.raises(ValueError, match=next((w for key, w in words.items() if key in str(ratios)), "add up to")):
            draw(ratios, 4, 1, version=version, **seeded(0))
    assert cases


def test_every_condition_of_1_3():
    tables = recorded("1.3")
    for case in tables["mask_index"]:
        weights = tables["mask_types"][case["config"]]
        kinds, rng = random.Random(case["rank_seed"]), random.Random(case["global_seed"])
        for kind, frames, known in case["draws"]:
            assert kinds.choices(list(weights), list(weights.values()))[0] == kind
            assert condition_frames(kind, frames, rng) == known
    with pytest.raises(ValueError, match="the kind of condition is 'i2v'"):
        condition_frames("i2v", 4, rng)
    with pytest.raises(ValueError, match="'i2v_head_noisy', .* encoded once, without noise; the nearest is i2v_head"):
        check_conditions({"i2v_loop": 0.1, "i2v_head_noisy": 0.1})
    check_conditions({"i2v_loop": 0.1, "other": 0.1})
    with pytest.raises(ValueError, match="other keeps some of 2 latent frames and leaves some; it needs 3 at least"):
        condition_frames("other", 2, rng)
