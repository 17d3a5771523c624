"""What Extend, Connect and Loop refuse, and which counts they name instead."""

import pytest
import torch
from long_clips import LATENTS, call, clip_of, extend


@pytest.mark.parametrize(
    ("generation", "inputs", "words"),
    [
        ("1.2", {"frames": 10}, r"frames is 10; the 27 frames of the whole .* are 8 and 12$"),
        ("1.2", {"frames": 20, "direction": "backward"}, "frames is 20; in front .* chunks of 17 fit: .* 17 and 34$"),
        ("1.2", {"frames": 3, "direction": "backward"}, "the nearest is 17$"),
        ("1.2", {"context": 20}, "context is 20; .* chunks of 17 frames, .* are 17 and 34$"),
        ("1.2", {"segment": 16}, "segment is 16; .* the nearest is 17$"),
        ("1.3", {"frames": 17}, "frames is 17; the 34 frames .* are 16 and 32$"),
        ("1.3", {"frames": 16, "context": 20}, "context is 20; .* chunks of 17 frames, .* are 17 and 33$"),
        ("1.3", {"frames": 17, "direction": "backward"}, "chunks of 16 fit: the nearest are 16 and 32$"),
        # A wire brings numbers that the widgets do not allow.
        ("1.2", {"frames": 0}, "frames is 0; there must be something to make: the nearest is 4$"),
        ("1.2", {"frames": -17}, "frames is -17; .* the nearest is 4$"),
        ("1.2", {"frames": 0, "direction": "backward"}, "frames is 0; .* the nearest is 17$"),
        ("2d", {"frames": 0, "context": 4, "segment": 4}, "frames is 0; .* the nearest is 1$"),
        ("1.3", {"frames": 16, "context": 0}, "context is 0; .* the nearest is 17$"),
        ("1.3", {"frames": 16, "segment": -40}, "segment is -40; .* the nearest is 17$"),
    ],
)
def test_counts_that_are_refused(setups, generation, inputs, words):
    with pytest.raises(ValueError, match=words):
        extend(setups[generation], clip_of(setups[generation][1], 17), **inputs)


def test_a_lone_image_that_new_frames_cannot_lead_to(setups):
    """The chunks of 1.3 share a frame, and a lone image is only that frame; elsewhere it is a chunk of its own."""
    setup = setups["1.3"]
    image, clip = clip_of(setup[1], 1), clip_of(setup[1], 17)
    with pytest.raises(ValueError, match="latent has 1 frame; .* at least 17.*Open-Sora Keyframe at frame -1"):
        extend(setup, image, 16, "backward")
    with pytest.raises(ValueError, match="second has 1 frame; .* at least 17"):
        call("OpenSoraConnect", setup, first=clip, second=image, frames=15)
    assert call("OpenSoraConnect", setup, first=image, second=clip, frames=15)["frames"] == 32 + 1
    assert extend(setups["1.2"], clip_of(setups["1.2"][1], 1), 17, "backward")["frames"] == 18


@pytest.mark.parametrize(
    ("frames", "added", "words"),
    [(17, 0, "frames is 0; .* the nearest is 17$"),
     (17, 20, "the 17 frames of first that is 37, .* multiple of 17: the nearest are 17 and 34$"),
     (29, 17, "29 frames of first that is 46, .* are 5 and 22$")],
)  # fmt: skip
def test_bridges_that_are_refused(setups, frames, added, words):
    setup = setups["1.2"]
    with pytest.raises(ValueError, match=words):
        call("OpenSoraConnect", setup, first=clip_of(setup[1], frames), second=clip_of(setup[1], 17), frames=added)


@pytest.mark.parametrize(
    ("frames", "added", "words"),
    [(17, 10, "clip's 17 frames that is 27, and it must be whole chunks of 17: the nearest is 17$"),
     (1, 16, "latent has 1 frames; .* needs at least 17$")],
)  # fmt: skip
def test_loops_that_are_refused(setups, frames, added, words):
    with pytest.raises(ValueError, match=words):
        call("OpenSoraLoop", setups["1.2"], latent=clip_of(setups["1.2"][1], frames), frames=added)


def test_clips_that_do_not_go_together(setups):
    setup = setups["1.2"]
    first, other = clip_of(setup[1], 17), clip_of(setup[1], 17)
    tall = {**other, "samples": torch.zeros(1, 4, 5, 6, 2), "height": 48, "width": 16}
    for second, words in (
        (tall, "first is 24 x 16 and second 16 x 48; .*Open-Sora Fit Image"),
        ({**other, "fps": 24.0}, "first has 12 frames per second and second 24"),
        (clip_of(setup[1], 17, batch=2), "first is a batch of 1 clips and second of 2"),
        ({"samples": torch.zeros(1, 16, 5, *LATENTS)}, "second has shape .* this VAE takes 4 channels"),
    ):
        with pytest.raises(ValueError, match=words):
            call("OpenSoraConnect", setup, first=first, second=second, frames=17)
    nearly = {**first, "fps": 12.0005}  # as 30000 / 1001, and 29.97 typed
    assert call("OpenSoraConnect", setup, first=first, second=nearly, frames=17)["fps"] == 12.0
    with pytest.raises(ValueError, match="vae is vae_2d, .* Open-Sora 1.2"):
        extend((setup[0], setups["2d"][1]), clip_of(setups["2d"][1], 6))
