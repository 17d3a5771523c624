"""Frames and crops as the original's."""

import json
import random

import pytest
import torch
from golden import FOLDER, Case
from opensora_comfy.training.data.clips import fit, frame_indices


def test_every_row_of_frames():
    rows = json.loads((FOLDER / "training" / "frame_sampling.json").read_text())["rows"]
    for total, frames, interval, seed, known in rows:
        if known == "AssertionError":
            with pytest.raises(ValueError, match=f"the clip has {total} frames, and {frames} are asked for"):
                frame_indices(total, frames, interval, random.Random(seed))
        else:
            assert frame_indices(total, frames, interval, random.Random(seed)) == known
    assert len(rows) == 252


@pytest.mark.parametrize(
    "name, version", [("v1_0", "1.0"), ("v1_1", "1.1"), ("v1_1", "1.2"), ("v1_3_video_center", "1.3")]
)
def test_every_crop(name, version):
    case = Case(f"training/transforms_{name}")
    pictures = Case(f"training/transforms_{'v1_0' if version == '1.0' else 'v1_1'}").inputs
    for key, known in case.outputs.items():
        kind, mode, number = (*key.split("_", 1)[0:1], *key.split("_", 1)[1].split("."))
        height, width = known.shape[-2:]
        picture = pictures[number]
        if kind == "image":
            assert (fit(picture, height, width, mode, version) == known).all(), key
        else:
            clip = picture.movedim(-1, 0)[None]
            if len(known) == 2:  # the second frame is the first upside down
                clip = clip.repeat(2, 1, 1, 1)
                clip[1] = clip[1].flip(-2)
            assert (fit(clip, height, width, mode, version) - known).abs().max() < 1e-6, key


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="mode is 'stretch'; it must be 'resize_crop' or 'center'"):
        fit(Case("training/transforms_v1_0").inputs["0"], 16, 16, "stretch")
    with pytest.raises(ValueError, match="scales to .255, .*, less than 256; use resize_crop"):
        fit(torch.zeros(1, 3, 322, 400, dtype=torch.uint8), 256, 256, "center")


def test_a_clip_of_one_frame_is_scaled_as_a_clip_is():
    clip = torch.arange(2 * 3 * 40 * 30).view(2, 3, 40, 30).remainder(256).to(torch.uint8)
    assert torch.equal(fit(clip[:1], 24, 16), fit(clip, 24, 16)[:1])
