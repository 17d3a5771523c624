"""How people would rate a picture, 1 … 10: CLIP's image features through the public linear head, both given as files.

About 5.5 is fair, 6.5 high; Open-Sora 1.1 keeps what has 5 and more, the second stage of 1.2 what has 4.5.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor

from .clip_vision import ClipVision
from .places import SHARES, at_shares
from .weights import Lazy, digest_of, weights_of

FEATURES = 768  # numbers that CLIP ViT-L/14 makes of a picture


class Aesthetic:
    """The aesthetic score, the mean over the frames at 0.1, 0.5 and 0.9 of a shot; of a picture its own.

    Args:
        head: the linear head: .safetensors or .pth, either layers.0.weight … layers.7.weight [1, 16] with their biases
            (768 → 1024 → 128 → 64 → 16 → 1, nothing but dropout between: one linear map), or one map [1, 768].
        clip: the file of a CLIP ViT-L/14 as `ClipVision` takes it, or a function of a list of frames (uint8
            [H, W, 3], here one at a time) that returns its features [1, 768], normalised or not.
        clip_key: what tells such a function from others.
        device: where the file's CLIP runs.

    Raises ValueError for files that cannot be read, and for a head of other shapes.
    """

    name, columns = "aes", ("aes",)

    def __init__(
        self,
        head: str | Path,
        clip: str | Path | Callable[[Sequence[numpy.ndarray]], Any],
        clip_key: str = "given",
        device: str = "cpu",
    ) -> None:
        self.weight, self.bias = linear(weights_of(head), head)
        self.clip = Lazy(_features, clip, device)
        made_by = clip_key if callable(clip) else digest_of(clip)
        self.key = f"aes {made_by} {digest_of(head)} {SHARES}"

    def frames(self, total: int, fps: float) -> list[int]:
        """Those at 0.1, 0.5 and 0.9."""
        return at_shares(total)

    def reduce(self, frame: numpy.ndarray) -> float:
        """The score of a frame uint8 [H, W, 3]. ValueError for features of another shape."""
        features = torch.as_tensor(self.clip()([frame])).detach().float().cpu()
        if features.shape != (1, FEATURES):
            raise ValueError(
                f"the features of a frame are {list(features.shape)} and should be [1, {FEATURES}]; choose CLIP "
                "ViT-L/14, which the head was made for"
            )
        return (F.normalize(features, dim=-1) @ self.weight + self.bias).item()

    def score(self, frames: Sequence[float], fps: float) -> dict[str, float | int | str | None]:
        """{"aes": score}, of reduced frames; None without any."""
        return {"aes": sum(frames) / len(frames) if frames else None}


def _features(clip, device):
    return clip if callable(clip) else ClipVision(clip, device)


def linear(weights: dict[str, Tensor], name: str | Path = "head") -> tuple[Tensor, Tensor]:
    """(weight [768], bias []) that the maps of a head come to, one after the other, by the numbers in their names.

    Raises ValueError where they are no chain of maps from 768 numbers to one.
    """
    maps = sorted(
        (key for key in weights if key.endswith("weight")), key=lambda key: [*map(int, re.findall(r"\d+", key))]
    )
    if not maps:
        raise ValueError(f"{name}: it has no weight of a linear map; choose the head of the aesthetic score")
    whole, bias = torch.eye(FEATURES, dtype=torch.float64), torch.zeros(FEATURES, dtype=torch.float64)
    for key in maps:
        weight = weights[key].double()
        offset = weights.get(f"{key.removesuffix('weight')}bias", torch.zeros(weight.shape[:1])).double()
        if weight.ndim != 2 or weight.shape[1] != whole.shape[0] or offset.shape != weight.shape[:1]:
            raise ValueError(
                f"{name}: {key} is {list(weight.shape)} and should be [any, {whole.shape[0]}]; choose a head for CLIP "
                "ViT-L/14"
            )
        whole, bias = weight @ whole, weight @ bias + offset
    if whole.shape[0] != 1:
        raise ValueError(f"{name}: {maps[-1]} makes {whole.shape[0]} numbers and should make 1, the score")
    return whole[0].float(), bias[0].float()
