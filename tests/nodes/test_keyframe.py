"""Keyframes: where an image lands, what a clip covers, how it is fitted, what the noise mask says."""

import pytest
import torch
from pins import empty, encoded, keyframe, picture, pinned
from small import pack, run


def test_groups_are_what_the_vae_encodes(vae):
    """Changing one frame first changes the latent that `groups` files it under (the VAE is causal)."""
    groups = vae.first_stage_model.counting.groups
    for frames in (1, 17, 21, 34, 20):
        found = groups(frames)
        assert [frame for group in found for frame in group] == list(range(frames))
        assert len(found) == vae.first_stage_model.latent_frames(frames)


def test_first_frame_is_the_single_image_encoding(vae):
    image = picture()
    latent = keyframe(vae, empty(vae), image)
    assert pinned(latent) == [0]
    assert latent["noise_mask"].shape == (1, 1, 10, 8, 6)
    assert torch.allclose(latent["samples"][:, :, 0], encoded(vae, image)[:, :, 0], atol=1e-6)
    assert latent["samples"][:, :, 1:].abs().max() == 0


@pytest.mark.parametrize(("frame", "index"), [(0, 0), (1, 1), (16, 4), (17, 5), (30, 9), (-1, 9), (-34, 0), (-17, 5)])
def test_a_lone_image_fills_its_chunk(vae, frame, index):
    image = picture()
    latent = keyframe(vae, empty(vae), image, frame)
    assert pinned(latent) == [index]
    # The first frame of a chunk is a latent of its own, and so a single image; the others fill their chunk.
    expected = encoded(vae, image if index % 5 == 0 else image.repeat(17, 1, 1, 1))[:, :, index % 5]
    assert torch.allclose(latent["samples"][:, :, index], expected, atol=1e-6)


def test_a_clip_pins_the_groups_it_covers(vae):
    clip = picture(frames=17)
    whole = keyframe(vae, empty(vae), clip)
    assert pinned(whole) == [0, 1, 2, 3, 4]
    assert torch.allclose(whole["samples"][:, :, :5], encoded(vae, clip), atol=1e-6)
    assert pinned(keyframe(vae, empty(vae), clip[:7])) == [0, 1]  # frames 0, 1-4; of 5-8 only two
    assert pinned(keyframe(vae, empty(vae), clip[:7], 3)) == [2]  # of 1-4 only two, then 5-8, and 9
    assert pinned(keyframe(vae, empty(vae), clip, 10)) == [4, 5, 6, 7]  # across the border of two chunks
    assert pinned(keyframe(vae, empty(vae), clip, 25)) == [8, 9]  # what runs over the end is left out


def test_a_clip_that_covers_no_group_is_refused(vae):
    with pytest.raises(ValueError, match="image is a clip of 2 frames.*frame 2"):
        keyframe(vae, empty(vae), picture(frames=2), 2)


def test_a_long_clip_at_the_last_frame_is_refused(vae):
    """Only one of its frames would be left, and that is no lone image."""
    with pytest.raises(ValueError, match="image is a clip of 10 frames.*frame 33"):
        keyframe(vae, empty(vae), picture(frames=10), -1)


@pytest.mark.parametrize(("frame", "nearest"), [(34, 33), (100, 33), (-35, -34)])
def test_beyond_the_end_names_the_range(vae, frame, nearest):
    with pytest.raises(ValueError, match=f"frame is {frame}.*-34 to 33.*nearest is {nearest}$"):
        keyframe(vae, empty(vae), picture(), frame)


def test_chaining_strength_and_batches(vae):
    latent = keyframe(vae, empty(vae, batch=2), picture(seed=1))
    latent = keyframe(vae, latent, picture(seed=2), -1, strength=0.25)
    mask = latent["noise_mask"]
    assert mask.shape == (2, 1, 10, 8, 6)
    assert (mask[:, :, 0] == 0).all() and (mask[:, :, 9] == 0.75).all() and (mask[:, :, 1:9] == 1).all()
    assert torch.equal(latent["samples"][0], latent["samples"][1])
    assert latent["samples"][:, :, 9].abs().max() > 0


def test_inputs_are_left_as_they_were(vae):
    latent = empty(vae)
    first = keyframe(vae, latent, picture())
    assert "noise_mask" not in latent and latent["samples"].abs().max() == 0
    keyframe(vae, first, picture(seed=3), -1)
    assert pinned(first) == [0]


def test_unknown_keys_pass_through(vae):
    assert keyframe(vae, {**empty(vae), "other": 7}, picture())["other"] == 7


def test_an_image_of_another_size_is_fitted(vae):
    fitted = keyframe(vae, empty(vae), picture(height=100, width=300))
    by_hand = keyframe(vae, empty(vae), pack("model.images").resize_to_fill(picture(height=100, width=300), 64, 48))
    assert torch.equal(fitted["samples"], by_hand["samples"])


def test_wrong_channels_are_refused(vae):
    with pytest.raises(ValueError, match="latent has shape.*4 channels"):
        keyframe(vae, {"samples": torch.zeros(1, 16, 5, 8, 8)}, picture())


def test_records_of_a_chain(vae):
    latent = keyframe(vae, empty(vae), picture(frames=17, seed=1))
    latent = keyframe(vae, latent, picture(seed=2), -4, strength=0.25)
    assert latent["keyframes"] == [
        {
            "name": "image",
            "frame": 0,
            "count": 17,
            "strength": 1.0,
            "laid": [0, 1, 2, 3, 4],
            "latents": [0, 1, 2, 3, 4],
        },
        {"name": "image", "frame": 30, "count": 1, "strength": 0.25, "laid": [9], "latents": [9]},
    ]


def test_the_later_keyframe_wins_where_two_overlap(vae):
    first = keyframe(vae, empty(vae), picture(frames=17, seed=1))
    both = keyframe(vae, first, picture(seed=2), 3, strength=0.5)
    alone = keyframe(vae, empty(vae), picture(seed=2), 3)
    assert torch.equal(both["samples"][:, :, 1], alone["samples"][:, :, 1])
    assert torch.equal(both["samples"][:, :, 2:], first["samples"][:, :, 2:])
    assert both["noise_mask"][0, 0, :5, 0, 0].tolist() == [0, 0.5, 0, 0, 0]
    assert [record["latents"] for record in both["keyframes"]] == [[0, 2, 3, 4], [1]]
    assert first["keyframes"][0]["latents"] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ((1, 12), (1, 10), "image at frame 10 holds frames 9–12 and would hide the earlier image at frame 12, which holds "
         "frames 9–12, entirely: .* the later one wins. The nearest free place for image is frame 8$"),
        ((1, 0), (1, 0), "holds frame 0 and .*nearest free .* frame 1$"),
        ((1, -1), (1, 33), "nearest free .* frame 29$"),
        ((4, 1), (17, 0), "image at frame 0 holds frames 0–16 and .* holds frames 1–4, entirely.*frame 2$"),
        ((34, 0), (34, 0), "No other place in this clip is free"),
    ],
)  # fmt: skip
def test_a_hidden_keyframe_is_refused(vae, first, second, words):
    latent = keyframe(vae, empty(vae), picture(first[0]), first[1])
    with pytest.raises(ValueError, match=words):
        keyframe(vae, latent, picture(second[0]), second[1])


def test_a_place_that_is_left_to_the_model_is_free_again(vae):
    """A keyframe that holds nothing hides nothing: its strength is 0, or a later node took its hold."""
    loose = keyframe(vae, empty(vae), picture(seed=1), strength=0.0)
    node = pack("nodes.frame_strength").OpenSoraFrameStrength
    taken = keyframe(vae, empty(vae), picture(seed=1))
    taken = run(node, latent=taken, vae=vae, first_frame=0, last_frame=-1, strength=0.0)[0]
    for latent in (loose, taken):
        again = keyframe(vae, latent, picture(seed=2))
        assert pinned(again) == [0] and [record["strength"] for record in again["keyframes"]] == [1.0]
    half = keyframe(vae, empty(vae), picture(seed=1), strength=0.5)
    with pytest.raises(ValueError, match="would hide the earlier"):
        keyframe(vae, half, picture(seed=2))


def test_the_nearest_free_place_is_free(vae):
    """Whatever the refusal names can be done."""
    for frame in (0, 3, 16, 17, 33):
        latent = keyframe(vae, empty(vae), picture(), frame)
        with pytest.raises(ValueError) as error:
            keyframe(vae, latent, picture(), frame)
        place = int(str(error.value).rsplit(" ", 1)[1])
        assert len(pinned(keyframe(vae, latent, picture(), place))) == 2


def test_another_ones_keyframes_are_no_concern(vae):
    """Only the pack's own records count, and only for latents that are still there."""
    listless = dict.fromkeys(("name", "frame", "count", "strength", "laid", "latents"))
    for foreign in (7, "text", [3], [{"name": "x"}], [listless], None):
        latent = keyframe(vae, {**empty(vae), "keyframes": foreign}, picture())
        assert [record["frame"] for record in latent["keyframes"]] == [0]
    long = keyframe(vae, empty(vae), picture(), -1)
    cut = {**long, "samples": long["samples"][:, :, :5], "noise_mask": long["noise_mask"][:, :, :5], "frames": 17}
    assert [record["frame"] for record in keyframe(vae, cut, picture())["keyframes"]] == [0]


@pytest.mark.parametrize("strength", [-0.1, 1.5, float("nan")])
def test_a_strength_that_a_wire_brings_is_checked(vae, strength):
    with pytest.raises(ValueError, match="strength is .*; allowed are 0 .* to 1"):
        keyframe(vae, empty(vae), picture(), strength=strength)


def test_no_image_and_no_frames_are_refused(vae):
    with pytest.raises(ValueError, match=r"image has shape \(0, 64, 48, 3\), which holds no image"):
        keyframe(vae, empty(vae), picture(frames=0))
    with pytest.raises(ValueError, match=r"latent has shape \(1, 4, 0, 8, 6\)"):
        keyframe(vae, {"samples": torch.zeros(1, 4, 0, 8, 6)}, picture())


def test_a_frame_behind_the_last_group_is_named(vaes):
    """The VAE of 1.3 leaves out what does not fill a group: of 20 encoded frames the last 3."""
    vae = vaes["vae_v1_3"]
    latent = {"samples": torch.zeros(1, 16, 6, 8, 6), "frames": 20, "width": 48, "height": 64, "fps": 24.0}
    with pytest.raises(ValueError, match="frame is 19, but the VAE keeps frames 0 to 16 alone; the nearest is 16"):
        keyframe(vae, latent, picture(), -1)


def test_what_was_sampled_can_be_pinned_over(vae, model, positive):
    """A sampled clip holds its keyframes as content: another image may take their place in a second pass."""
    latent = keyframe(vae, empty(vae, frames=17), picture(seed=1))
    settings = {"seed": 1, "steps": 1, "cfg": 1.0, "sampler_name": "original", "denoise": 1.0}
    sampler = pack("nodes.sampler").OpenSoraSampler
    sampled = run(sampler, model=model, positive=positive, latent=latent, **settings)[0]
    assert "keyframes" not in sampled and pinned(sampled) == [0]
    again = keyframe(vae, sampled, picture(seed=2))
    assert [record["frame"] for record in again["keyframes"]] == [0]
