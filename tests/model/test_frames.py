"""How every generation counts: frames, latents, chunks, and the pixels of a side."""

import pytest
from opensora_comfy.model.frames import CHUNKS, EACH_FRAME, OVERLAPPING
from small import small_causal_vae, small_image_vae, small_vae

COUNTINGS = {"1.0": EACH_FRAME, "1.2": CHUNKS, "1.3": OVERLAPPING}


def test_the_counting_of_every_vae():
    vaes = {"1.0": small_image_vae(), "1.2": small_vae(), "1.3": small_causal_vae()}
    assert {name: vae.counting for name, vae in vaes.items()} == COUNTINGS


@pytest.mark.parametrize("name", COUNTINGS)
def test_chunks_groups_and_counts_tell_one_story(name):
    counting = COUNTINGS[name]
    for frames in range(1, 120):
        chunks, groups = counting.chunks(frames), counting.groups(frames)
        assert {frame for chunk in chunks for frame in chunk} == set(range(frames))
        assert [later.start for later in chunks[1:]] == [chunk.stop - counting.overlap for chunk in chunks[:-1]]
        assert len(groups) == counting.latent_frames(frames)
        assert all(0 < len(group) <= counting.factor for group in groups)
        held, most = groups[-1].stop, counting.video_frames(len(groups))
        assert held == frames if not counting.causal else frames - counting.factor < held == most
        for valid in counting.nearest(frames):
            assert counting.nearest(valid) == (valid,) and counting.video_frames(counting.latent_frames(valid)) == valid


@pytest.mark.parametrize(
    ("name", "frames", "whole", "nearest"),
    [
        ("1.2", 34, 2, (34,)),
        ("1.2", 33, None, (17, 34)),
        ("1.2", 3, None, (17,)),
        ("1.3", 17, 1, (17,)),
        ("1.3", 49, 3, (49,)),
        ("1.3", 48, None, (33, 49)),
        ("1.3", 1, None, (17,)),
        ("1.0", 7, 7, (7,)),
    ],
)
def test_whole_chunks(name, frames, whole, nearest):
    counting = COUNTINGS[name]
    assert counting.whole_chunks(frames) == whole and counting.nearest_chunks(frames) == nearest


def test_a_side_is_cut_or_filled_up():
    assert [CHUNKS.latent_side(side) for side in (240, 426, 431)] == [30, 53, 53]
    assert [OVERLAPPING.latent_side(side) for side in (240, 426, 431)] == [30, 54, 54]
