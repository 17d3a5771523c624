"""The frame-mask strategies of training."""

import numpy
import pytest
import torch
from opensora_comfy.training.masks import draw_frame_mask, frame_mask
from opensora_comfy.training.tiny.recipe import LONG_RATIOS, RATIOS


@pytest.mark.parametrize(
    ("name", "kept"),
    [("identity", []), ("image_head", [0]), ("image_tail", [9]), ("image_head_tail", [0, 9])],
)
def test_single_frames(name, kept):
    mask = frame_mask(name, 10, numpy.random.default_rng(0))
    assert mask.dtype == torch.bool
    assert (~mask).nonzero().flatten().tolist() == kept


def test_quarters_keep_a_run_of_at_most_a_quarter():
    for seed in range(50):
        rng = numpy.random.default_rng(seed)
        kept = (~frame_mask("quarter_random", 20, rng)).nonzero().flatten()
        assert 1 <= len(kept) <= 5
        assert (kept.diff() == 1).all()
        assert not frame_mask("quarter_head", 20, rng)[0]
        assert not frame_mask("quarter_tail", 20, rng)[-1]


def test_interpolation_keeps_every_second_frame():
    mask = frame_mask("intepolate", 9, numpy.random.default_rng(0))
    assert (mask[1:] != mask[:-1]).all()


def test_chunks_are_kept_whole():
    def kept(name, frames, seed=0):
        return (~frame_mask(name, frames, numpy.random.default_rng(seed))).nonzero().flatten().tolist()

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
            assert frame_mask(name, frames, numpy.random.default_rng(seed)).any()


def test_ratios_are_kept():
    rng = numpy.random.default_rng(0)
    masks = torch.stack([draw_frame_mask(10, rng, {"image_head": 0.25}) for _ in range(2000)])
    assert masks[:, 0].float().mean() == pytest.approx(0.75, abs=0.04)
    assert masks[:, 1:].all()
    with pytest.raises(ValueError, match="add up to 1.2"):
        draw_frame_mask(10, rng, {"image_head": 0.6, "image_tail": 0.6})
