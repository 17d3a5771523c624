"""Which frames of a clip are trained on, and how they are brought to the size of their bucket.

As Open-Sora 1.0 to 1.3 do it (https://github.com/hpcaitech/Open-Sora, datasets/video_transforms.py and utils.py), to
the pixel: pictures go through Pillow's filters, clips through PyTorch's, and the two crop an odd rest differently.
"""

import random
from typing import Any

import numpy
import torch
import torch.nn.functional as F
from PIL import Image

from ...model.images import covering, resize_to_fill


def frame_indices(total: int, frames: int, interval: int = 1, rng: Any = random) -> list[int]:
    """`frames` indices into a clip of `total` frames, about `interval` apart, from a place that `rng` draws: a list.

    Where interval is above 1 they are spread evenly over the stretch, so that the distance varies by a frame. Raises
    ValueError where the clip has fewer than `frames`.
    """
    start = rng.randint(0, max(0, total - frames * interval - 1))
    end = min(start + frames * interval, total)
    if end - start < frames:
        raise ValueError(f"the clip has {total} frames, and {frames} are asked for; the most it has is {total}")
    return numpy.linspace(start, end - 1, frames, dtype=int).tolist()


def fit(
    x: torch.Tensor | numpy.ndarray, height: int, width: int, mode: str = "resize_crop", version: str = "1.2"
) -> torch.Tensor:
    """A picture or clip in 0…255 brought to height x width pixels, in -1…1.

    Args:
        x: uint8, a picture [H, W, 3] or a clip [T, 3, H, W]; a tensor or an array.
        mode: "resize_crop" scales it until it covers the size, and crops the middle; "center" makes squares of `width`
            pixels (1.0, and the other generations where asked for).

    Returns float [3, height, width] or [T, 3, height, width]. Raises ValueError for another mode, and for the few sizes
    that "center" rounds to less than the square (not in 1.3).
    """
    if mode not in ("resize_crop", "center"):
        raise ValueError(f"mode is {mode!r}; it must be 'resize_crop' or 'center', the usual one is 'resize_crop'")
    x = torch.as_tensor(x)
    if x.ndim == 3:
        picture = Image.fromarray(x.numpy())
        picture = _cover_picture(picture, height, width) if mode == "resize_crop" else _square_picture(picture, width)
        scaled = torch.from_numpy(numpy.array(picture)).movedim(-1, 0) / 255
    else:
        x = x / 255
        if mode == "resize_crop":
            scaled = resize_to_fill(x.movedim(1, -1), height, width, single=False).movedim(-1, 1)
        else:
            scaled = _square_clip(x, width, version)
    return (scaled - 0.5) / 0.5


def _cover_picture(picture, height, width):
    """As `resize_to_fill` does it, but in whole values and by Pillow itself: to the bit."""
    scaled_height, scaled_width = covering(picture.height, picture.width, height, width)
    picture = picture.resize((scaled_width, scaled_height), Image.Resampling.BICUBIC)
    top, left = round((scaled_height - height) / 2), round((scaled_width - width) / 2)
    return picture.crop((left, top, left + width, top + height))


def _square_clip(clip, side, version):
    H, W = clip.shape[-2:]
    factor = side / min(H, W)
    size = {"size": (round(H * factor), round(W * factor))} if version == "1.3" else {"scale_factor": factor}
    clip = F.interpolate(clip, mode="bilinear", align_corners=False, **size)
    if min(clip.shape[-2:]) < side:  # rounding down may lose the last row, and with it the square
        raise ValueError(
            f"a clip of {H} x {W} pixels scales to {tuple(clip.shape[-2:])}, less than {side}; use resize_crop"
        )
    top, left = (round((length - side) / 2) for length in clip.shape[-2:])
    return clip[..., top : top + side, left : left + side]


def _square_picture(picture, side):
    """Halved by averages while it is twice as large, then scaled smoothly: as the guided diffusion models did it."""
    while min(picture.size) >= 2 * side:
        picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
    factor = side / min(picture.size)
    picture = picture.resize((round(picture.width * factor), round(picture.height * factor)), Image.Resampling.BICUBIC)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))
