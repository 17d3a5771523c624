"""Sharpness, exposure and colour without weights: what can be said of a picture by arithmetic. Nothing about beauty."""

from collections.abc import Sequence

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor

from .places import SHARES, at_shares

SIDE = 360  # pixels of the shorter side that larger frames are brought to
TAPS = 9  # of the average that a frame is blurred with
LUMA = torch.tensor([0.299, 0.587, 0.114])  # of red, green and blue (Rec. 601)
MIDDLE, WIDTH = 0.5, 0.2  # of the bell around what is well exposed


class Quality:
    """Three numbers, each the mean over the frames at 0.1, 0.5 and 0.9 of a shot: `sharpness`, `exposure`,
    `colorfulness`, higher for more of it. Larger frames are first brought to 360 pixels on the shorter side by
    averages, so that size matters little; smaller ones stay, and seem sharper than they would if enlarged.
    """

    name, columns = "quality", ("sharpness", "exposure", "colorfulness")
    key = f"quality {SIDE} {TAPS} {MIDDLE} {WIDTH} {SHARES}"

    def frames(self, total: int, fps: float) -> list[int]:
        """Those at 0.1, 0.5 and 0.9."""
        return at_shares(total)

    def reduce(self, frame: numpy.ndarray) -> tuple[float, float, float]:
        """The three numbers of a frame uint8 [H, W, 3]."""
        pixels = brought_down(frame)
        luma = pixels @ LUMA
        return sharpness(luma), exposure(luma), colorfulness(pixels)

    def score(self, frames: Sequence[tuple[float, float, float]], fps: float) -> dict[str, float | int | str | None]:
        """{column: number}, of reduced frames; None without any."""
        if not frames:
            return dict.fromkeys(self.columns)
        return {column: sum(numbers) / len(frames) for column, numbers in zip(self.columns, zip(*frames))}


def brought_down(frame: numpy.ndarray) -> Tensor:
    """A frame uint8 [H, W, 3] with at most 360 pixels on its shorter side: [h, w, 3] in 0…255."""
    pixels = torch.from_numpy(frame.astype(numpy.float32))
    H, W = pixels.shape[:2]
    if min(H, W) <= SIDE:
        return pixels
    size = (round(H * SIDE / min(H, W)), round(W * SIDE / min(H, W)))
    return F.interpolate(pixels.movedim(-1, 0)[None], size, mode="area")[0].movedim(0, -1)


def sharpness(luma: Tensor) -> float:
    """How much of the differences between neighbours is gone where [H, W] is blurred: 0 (nothing) … 1 (all).

    One minus the blur of Crete and others ("The blur effect", 2007): differences across and down, before and after an
    average of 9 pixels, the less sharp direction counts. A share, so neither contrast nor dark margins matter; what
    loses its texture to compression loses it as well. Noise is sharp. A plain area has no differences: 0.
    """
    return min(_lost(luma), _lost(luma.T))


def _lost(luma):
    """Of the differences between rows."""
    if luma.shape[0] < 2:
        return 0.0
    rows = F.pad(luma.T[None], (TAPS // 2, TAPS // 2), mode="replicate")
    blurred = F.avg_pool1d(rows, TAPS, 1)[0].T
    before, after = luma.diff(dim=0).abs(), blurred.diff(dim=0).abs()
    whole = before.sum().item()
    return (before - after).clamp(min=0).sum().item() / whole if whole else 0.0


def exposure(luma: Tensor) -> float:
    """How near to the middle pixels 0…255 are, 0…1: the mean of exp(-(x - 0.5)² / (2 · 0.2²)), x in 0…1.

    The well-exposedness of Mertens and others ("Exposure fusion", 2007), of the luma alone.
    """
    return torch.exp(-((luma / 255 - MIDDLE) ** 2) / (2 * WIDTH**2)).mean().item()


def colorfulness(pixels: Tensor) -> float:
    """Of [H, W, 3] in 0…255: 0 (grey) … about 110; above 60 it is colourful.

    Hasler and Süsstrunk ("Measuring colourfulness in natural images", 2003): with rg = R - G and yb = (R + G) / 2 - B,
    the length of both standard deviations plus 0.3 times that of both means.
    """
    red, green, blue = pixels.unbind(-1)
    both = torch.stack([red - green, (red + green) / 2 - blue])
    spread, mean = both.std((1, 2), correction=0), both.mean((1, 2))
    return (spread.norm() + 0.3 * mean.norm()).item()
