"""Clips as training reads them: cut, cached, split."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from opensora_comfy.model.frames import CHUNKS
from opensora_comfy.training.data.batches import Shapes
from opensora_comfy.training.data.cache import Cache
from opensora_comfy.training.data.dataset import Clip
from opensora_comfy.training.data.examples import Examples, split_by_source
from opensora_comfy.training.trainer.steps import Place
from small_runs import MIXED, MixingVAE, WordEncoder, clip, mixed_clips, prepared, trainer


def test_one_clip_is_a_data_set(tmp_path):
    examples = prepared(tmp_path / "cache", [clip(0)])
    assert examples.steps(0) == [[[[0]]]] and examples.steps(1, ranks=2, accumulate=3) == [[[[0], []]]]
    running = trainer(tmp_path / "run", examples, train={"steps": 3})
    running.run()
    assert running.place == Place(2, 1)
    with pytest.raises(ValueError, match="the data set has no clip that can be used; see the list of what is left out"):
        trainer(tmp_path / "none", prepared(tmp_path / "cache", []))


def test_what_an_example_says_of_itself(tmp_path):
    short, wide, small, picture = clip(0, 20), clip(1, 40, 32, 64), clip(2, 17, 16, 16), clip(3, 1)
    examples = prepared(tmp_path, [short, wide, small, picture], {"32x32": {34: 1}})
    found = [examples.read(n, 0) for n in range(4)]
    assert [each.sizes["num_frames"] for each in found] == [17, 34, 17, 1]
    assert [each.latents.shape[1] for each in found] == [5, 10, 5, 1]
    assert [each.sizes["fps"] for each in found] == [24, 24, 24, 120]
    assert found[1].sizes["width"] / found[1].sizes["height"] == pytest.approx(16 / 9, rel=0.4)
    assert found[2].sizes["height"] == 32 and examples.shape(2, 0).note.endswith("small: enlarged 2.0 times")
    assert found[0].has_still.any() and not found[3].has_still.any()


def test_frames_are_taken_at_an_interval(tmp_path):
    examples = prepared(tmp_path, [clip(0, 40)], {"32x32": {17: 1}})
    examples.shapes.interval = 2
    cut = examples.cuts(0, examples.shape(0, 0))[0]
    assert cut.frames == tuple(range(3, 36, 2)) and examples.shape(0, 0).frames == 17
    examples.shapes.interval = 3
    assert examples.shape(0, 0).note == "too short for motion: a still"


def test_each_epoch_draws_a_stretch_of_a_long_clip(tmp_path):
    examples = prepared(tmp_path, [clip(0, 60)], {"32x32": {17: 1}}, windows=4)
    cuts = examples.cuts(0, examples.shape(0, 0))
    assert [cut.frames[0] for cut in cuts] == [0, 14, 29, 43] and all(len(cut.frames) == 17 for cut in cuts)
    latents = [examples.read_cut(0, cut).latents for cut in cuts]
    seen = Counter(
        next(n for n in range(4) if torch.equal(latents[n], examples.read(0, epoch).latents)) for epoch in range(80)
    )
    assert sorted(seen) == [0, 1, 2, 3] and min(seen.values()) >= 8
    middle = examples.middle(0).latents
    assert torch.equal(middle, latents[2])


def test_what_the_data_set_is_is_remembered(tmp_path):
    clips = mixed_clips()
    one, two = prepared(tmp_path, clips), prepared(tmp_path, clips[::-1])
    assert one.fingerprint == two.fingerprint
    assert prepared(tmp_path, clips[:-1]).fingerprint != one.fingerprint
    assert prepared(tmp_path, [replace(clips[0], caption="other"), *clips[1:]]).fingerprint != one.fingerprint


def test_ranks_encode_their_share(tmp_path):
    told = []
    for rank in (0, 1):
        examples = Examples(mixed_clips(), Shapes(MIXED, CHUNKS), Cache(tmp_path))
        examples.prepare(
            MixingVAE(), WordEncoder(), lambda done, total, name: told.append((done, total, name)), rank, 2
        )
    assert [entry[:2] for entry in told] == [*((n, 5) for n in range(6)), *((n, 4) for n in range(5))]
    assert sorted(name for _, _, name in told if name) == sorted(each.path for each in mixed_clips())
    assert all(examples.read(n, 0) for n in range(9))


def test_files_are_held_back_whole():
    def of(path, start=0):
        return Clip(path, "x", 17, 32, 32, 24.0, path, start)

    clips = [of(f"{n}.mp4", start) for n in range(10) for start in (0, 17)]
    training, held = split_by_source(clips, 0.2, seed=1)
    assert len(held) == 4 and not {each.source for each in held} & {each.source for each in training}
    assert sorted([*training, *held], key=clips.index) == clips
    assert {each.source for each in split_by_source(clips[::-1], 0.2, seed=1)[1]} == {each.source for each in held}
    assert {each.source for each in split_by_source(clips, 0.2, seed=2)[1]} != {each.source for each in held}
    assert split_by_source(clips[:6], 0.5) == (clips[:6], []) and split_by_source(clips, 0) == (clips, [])
    assert len(split_by_source(clips, 0.01)[1]) == 2


def test_the_same_clip_twice_counts_twice(tmp_path):
    examples = prepared(tmp_path, [clip(0), replace(clip(0), caption="otherwise"), clip(1)])
    assert sorted(n for step in examples.steps(0) for batch in step for part in batch for n in part) == [0, 1, 2]
    assert not torch.equal(examples.read(0, 0).features, examples.read(1, 0).features)
