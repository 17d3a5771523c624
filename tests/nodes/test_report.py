"""What a node shows of the mask it built: numbers for the drawn strip, and lines of words."""

import json

import pytest
import torch
from pins import empty, keyframe, picture
from small import pack


def shown(vae, latent):
    found = pack("nodes.report").report(latent, vae.first_stage_model)
    assert json.loads(json.dumps(found)) == found
    assert [english(words) for words in found["words"]] == found["lines"]
    return found


def english(words):
    """What the page makes of the words where nothing is translated."""
    if not isinstance(words, list):
        return str(words)
    template, values = words
    return template.format(**{name: english(value) for name, value in values.items()})


def test_an_empty_clip(vae):
    found = shown(vae, empty(vae, frames=17))
    assert {key: found[key] for key in ("frames", "fps", "width", "height", "vae")} == {
        "frames": 17, "fps": 24.0, "width": 48, "height": 64, "vae": "vae_v1_2",
    }  # fmt: skip
    assert found["groups"] == [[0, 0, 1.0], [1, 4, 1.0], [5, 8, 1.0], [9, 12, 1.0], [13, 16, 1.0]]
    assert found["keyframes"] == [] and found["lines"] == ["frames 0–16 (0.00–0.71 s): generated"]


def test_where_keyframes_landed(vae):
    latent = keyframe(vae, empty(vae), picture())
    latent = keyframe(vae, latent, picture(), 12, strength=0.75)
    latent = keyframe(vae, latent, picture(), -1, strength=0.0)
    found = shown(vae, latent)
    assert [group[2] for group in found["groups"]] == [0, 1, 1, 0.25, 1, 1, 1, 1, 1, 1]
    assert found["keyframes"] == [
        {"name": "image", "frame": 0, "count": 1, "landed": [0, 0], "strength": 1.0},
        {"name": "image", "frame": 12, "count": 1, "landed": [9, 12], "strength": 0.75},
        {"name": "image", "frame": 33, "count": 1, "landed": [30, 33], "strength": 0.0},
    ]
    assert found["lines"] == [
        "image at frame 0: frame 0 (0.00–0.04 s), kept",
        "image at frame 12: frames 9–12 (0.38–0.54 s), partly kept (strength 0.75: wakes at noise 25 %)",
        "image at frame 33: frames 30–33 (1.25–1.42 s), generated (strength 0 holds nothing)",
        "generated: frames 1–8 and 13–33 (1.21 s of 1.42 s)",
    ]


def test_what_a_later_keyframe_took_is_said(vae):
    latent = keyframe(vae, empty(vae), picture(frames=17, seed=1))
    latent = keyframe(vae, latent, picture(seed=2), 3, strength=0.5)
    found = shown(vae, latent)
    assert found["lines"][0] == (
        "image at frame 0: frame 0 (0.00–0.04 s) and frames 5–16 (0.21–0.71 s), kept; image at frame 3 took frames 1–4"
    )
    assert [each["landed"] for each in found["keyframes"]] == [[0, 16], [1, 4]]
    assert [each["count"] for each in found["keyframes"]] == [17, 1]


def test_masks_of_other_nodes(vae):
    """A mask may be changed after the keyframes: the words say what holds now; a region is one."""
    latent = keyframe(vae, empty(vae), picture())
    mask = latent["noise_mask"].clone()
    mask[:, :, 0] = 0.4
    mask[:, :, 2:4] = 0.3
    mask[:, :, 6, :2] = 0  # two of eight rows
    found = shown(vae, {**latent, "noise_mask": mask})
    assert [group[2] for group in found["groups"]] == pytest.approx([0.4, 1, 0.3, 0.3, 1, 1, 0.75, 1, 1, 1])
    assert found["lines"] == [
        "image at frame 0: frame 0 (0.00–0.04 s), partly kept (strength 0.6: wakes at noise 40 %)",
        "partly kept (strength 0.7: wakes at noise 30 %): frames 5–12 (0.21–0.54 s)",
        "a region generated (75 % of the picture), the rest kept: frames 18–21 (0.75–0.92 s)",
        "generated: frames 1–4, 13–17 and 22–33 (0.88 s of 1.42 s)",
    ]


def test_a_region_of_grays(vae):
    """What is partly held is not called kept, and a share is one of the picture, not of the strength."""
    latent = empty(vae, frames=17)
    mask = torch.ones_like(latent["samples"][:, :1])
    mask[:, :, 0, :4], mask[:, :, 0, 4:] = 0.3, 0.7
    mask[:, :, 1, :4] = 0.5
    mask[:, :, 2, :2], mask[:, :, 2, 2:4] = 0, 0.4
    found = shown(vae, {**latent, "noise_mask": mask})
    assert found["lines"][:3] == [
        "held with strengths from 0.3 to 0.7, by place: frame 0 (0.00–0.04 s)",
        "held with strengths from 0 to 0.5, by place: frames 1–4 (0.04–0.21 s)",
        "a region generated (75 % of the picture), the rest kept: frames 5–8 (0.21–0.38 s)",
    ]


def test_a_clip_without_size_keys(vae):
    found = shown(vae, {"samples": torch.zeros(1, 4, 5, 8, 6)})
    assert (found["frames"], found["fps"], found["width"], found["height"]) == (17, 24.0, 48, 64)
