"""Strength over ranges of frames: which latents it sets, which ranges are refused, when such frames wake in a run."""

import pytest
import torch
from families import VIDEO, clip, ours
from small import pack, run


def video(frames=34, batch=1):
    """A LATENT of the video VAE 1.2."""
    shape = (batch, 4, pack("model.frames").CHUNKS.latent_frames(frames), 8, 6)
    return {"samples": torch.ones(shape), "frames": frames, "fps": 24.0, "height": 64, "width": 48}


def strengthen(vae, latent, first=0, last=-1, strength=0.5):
    node = pack("nodes.frame_strength").OpenSoraFrameStrength
    return run(node, latent=latent, vae=vae, first_frame=first, last_frame=last, strength=strength)[0]


def values(latent):
    """The mask value of every latent, the same all over it."""
    mask = latent["noise_mask"]
    assert torch.equal(mask.amin((0, 1, 3, 4)), mask.amax((0, 1, 3, 4)))
    return mask[0, 0, :, 0, 0].tolist()


# 34 frames are the groups 0, 1–4, 5–8, 9–12, 13–16, 17, 18–21, 22–25, 26–29, 30–33.
@pytest.mark.parametrize(
    ("first", "last", "latents"),
    [
        (0, -1, range(10)),
        (0, 16, range(5)),
        (0, 15, range(4)),
        (1, 11, range(1, 3)),
        (2, 17, range(2, 6)),
        (-34, -34, range(1)),
        (-4, 33, range(9, 10)),
        (15, 18, range(5, 6)),
    ],
)
def test_groups_that_lie_in_the_range_are_set(vae, first, last, latents):
    found = values(strengthen(vae, video(), first, last, 0.75))
    assert found == [0.25 if index in latents else 1.0 for index in range(10)]


def test_chained_ranges_where_the_later_wins(vae):
    first = strengthen(vae, {**video(batch=2), "other": 7}, 0, 16, 1.0)
    both = strengthen(vae, first, 13, -1, 0.25)
    assert values(first) == [0.0] * 5 + [1.0] * 5 and values(both) == [0.0] * 4 + [0.75] * 6
    assert both["noise_mask"].shape == (2, 1, 10, 8, 6) and both["other"] == 7
    assert values(strengthen(vae, both, 0, -1, 0.0)) == [1.0] * 10
    assert torch.equal(both["samples"], first["samples"])


def test_other_generations_have_groups_of_their_own(vaes):
    single = {"samples": torch.zeros(1, 4, 5, 8, 6), "frames": 5, "fps": 8.0, "height": 64, "width": 48}
    assert values(strengthen(vaes["vae_2d"], single, 1, 3)) == [1.0, 0.5, 0.5, 0.5, 1.0]
    shared = {"samples": torch.zeros(1, 16, 10, 8, 6), "frames": 33, "fps": 24.0, "height": 64, "width": 48}
    # Both chunks of 1.3 have a latent in which frame 16 is: the last group of the first, and alone in the second.
    assert values(strengthen(vaes["vae_v1_3"], shared, 16, 16)) == [1.0] * 5 + [0.5] + [1.0] * 4


@pytest.mark.parametrize(
    ("first", "last", "words"),
    [
        (2, 3, ["first_frame 2 to last_frame 3", "frames 1–4", "nearest range is 1 to 4"]),
        (6, 11, ["frames 5–8 and frames 9–12", "nearest range is 5 to 8"]),
        (-1, 0, ["first_frame is frame 33", "after last_frame, frame 0", "nearest range is 0 to 33"]),
        (34, 40, ["first_frame is 34", "34 frames", "nearest is 33"]),
        (0, -35, ["last_frame is -35", "nearest is -34"]),
    ],
)
def test_ranges_that_cannot_be_are_refused(vae, first, last, words):
    with pytest.raises(ValueError) as error:
        strengthen(vae, video(), first, last)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize("strength", [-0.5, 1.01])
def test_a_strength_beyond_0_to_1_is_refused(vae, strength):
    with pytest.raises(ValueError, match="strength is .*; allowed are 0 .* to 1"):
        strengthen(vae, video(), 0, -1, strength)


def test_the_node_shows_what_it_built(vae):
    node = pack("nodes.frame_strength").OpenSoraFrameStrength
    output = node.execute(latent=video(), vae=vae, first_frame=17, last_frame=-1, strength=0.25)
    (report,) = output.ui["opensora"]
    assert [group[2] for group in report["groups"]] == [1.0] * 5 + [0.75] * 5
    assert any("0.25" in line and "17–33" in line for line in report["lines"])


@pytest.mark.parametrize("name", VIDEO)
def test_the_stronger_a_range_the_less_it_changes(models, positive, name):
    """And where the whole range is held it comes out as it went in."""
    latent = clip(name, [0.0, 0.0, 0.5, 1.0, 1.0])
    samples = ours(models[name], positive, latent, steps=10)
    moved = (samples - latent["samples"]).pow(2).mean(dim=(0, 1, 3, 4))
    assert torch.equal(samples[:, :, :2], latent["samples"][:, :, :2])
    assert 0 < moved[2] < moved[3]
