"""3D convolutions that see no future frame, as the video VAEs of 1.2 and 1.3 have them."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CausalConv3d(nn.Module):
    """3D convolution with zeros on all sides of a frame, and zero frames in front: `ahead`, by default all it needs."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        ops: Any,
        stride: int | tuple[int, int, int] = 1,
        ahead: int | None = None,
        **weights: Any,
    ) -> None:
        super().__init__()
        side = kernel // 2
        self.ahead = kernel - 1 if ahead is None else ahead
        self.conv = ops.Conv3d(channels_in, channels_out, kernel, stride=stride, padding=(0, side, side), **weights)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 0, 0, 0, self.ahead, 0)) if self.ahead else x)

    def of_silu(self, x: Tensor) -> Tensor:
        """The same of SiLU(x), which is written behind the zero frames at once; nobody else needs x."""
        padded = silu_behind(x, self.ahead)
        del x  # while the convolution runs
        return self.conv(padded)


def silu_behind(x: Tensor, frames: int) -> Tensor:
    """SiLU of a video [B, C, T, H, W] that nobody else needs, behind so many zero frames."""
    if torch.is_grad_enabled():
        return F.pad(F.silu(x), (0, 0, 0, 0, frames, 0))
    if not frames:
        return F.silu(x, inplace=True)
    out = x.new_empty((*x.shape[:2], frames + x.shape[2], *x.shape[3:]))
    out[:, :, :frames].zero_()
    torch.ops.aten.silu.out(x, out=out[:, :, frames:])
    return out
