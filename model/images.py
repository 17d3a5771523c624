"""Images brought to the size of a clip as the original does: scaled until they cover it, then cropped."""

import torch.nn.functional as F
from torch import Tensor


def covering(H: int, W: int, height: int, width: int) -> tuple[int, int]:
    """The size (height, width) that H x W is scaled to, so that it just covers height x width."""
    across, down = width / W, height / H
    return (height, round(W * down)) if down > across else (round(H * across), width)


def resize_to_fill(pixels: Tensor, height: int, width: int, single: bool | None = None) -> Tensor:
    """Scale IMAGE [T, H, W, C] until it covers height x width, then crop the middle, as the original does.

    A single image is scaled bicubically with antialiasing, a clip bilinearly without; values stay in 0…1. `single` says
    which it is; left out: one frame is an image.
    """
    H, W = pixels.shape[1:3]
    if (height, width) == (H, W):
        return pixels
    scaled = covering(H, W, height, width)
    single = pixels.shape[0] == 1 if single is None else single
    pixels = pixels.movedim(-1, 1)
    if single:  # PIL's bicubic scales first across, then down, and cuts off what overshoots 0…1 after each
        for size in ((H, scaled[1]), scaled):
            pixels = F.interpolate(pixels, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    else:
        pixels = F.interpolate(pixels, size=scaled, mode="bilinear", align_corners=False).clamp(0, 1)
    # Of an odd rest the original takes half: rounded to even from an image, down from a clip.
    top, left = (round(rest / 2) if single else rest // 2 for rest in (scaled[0] - height, scaled[1] - width))
    return pixels.movedim(1, -1)[:, top : top + height, left : left + width]
