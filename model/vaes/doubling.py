"""Nearest-neighbour doubling and the convolution behind it as one transposed convolution.

Of three taps that lie side by side on doubled values two see the same value: their weights can be added beforehand.
What is left are two taps an axis, so 4 of 9 products of an image and 8 of 27 of a video, and nobody makes or reads the
doubled map. The result is that of the two steps, but for rounding.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

CONVOLUTIONS = (F.conv2d, F.conv3d, torch.cudnn_convolution)


def doubled(conv: nn.Module, x: Tensor) -> Tensor:
    """conv of x with twice the rows and columns, each value repeated.

    Args:
        conv: a layer with 3 x 3 taps that pads by 1; or with 3 x 3 x 3 that sees no future frame, for which the frames
            are doubled too. Which of the host's functions it calls does not matter.
        x: [N, C, H, W], or a video [N, C, T, H, W]; a layer for images takes each of its frames.
    """
    with _Transposed() as caught:
        out = conv(x)
    if not caught.calls:
        raise RuntimeError(f"{type(conv).__name__} convolves by a function that is not one of {CONVOLUTIONS}")
    return out


class _Transposed(TorchFunctionMode):
    """Puts a transposed convolution in the place of the one that is called with x.

    Hosts have layers that fetch and cast their weights, so it is caught where they use them.
    """

    calls = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in CONVOLUTIONS:
            self.calls += 1
            return self.convolution(function, *args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))

    def convolution(
        self, function: Callable[..., Tensor], x: Tensor, weight: Tensor, *rest: Any, **named: Any
    ) -> Tensor:
        """As `function`, of x doubled."""
        taps = transposed(weight)
        stride, padding = [2] * (weight.ndim - 2), [1] * (weight.ndim - 2)
        if weight.ndim == 5:  # one zero frame stands for the two in front; what the layer makes of it is cut off
            x, padding = F.pad(x, (0, 0, 0, 0, 1, 0)), [2, 1, 1]
        elif x.ndim == 5:
            taps, stride, padding = taps[:, :, None], [1, *stride], [0, *padding]
        if function is torch.cudnn_convolution:  # ComfyUI's way around a fault of some versions; it adds the bias later
            ones, none = [1] * len(stride), [0] * len(stride)
            return torch.cudnn_convolution_transpose(x, taps, padding, none, stride, ones, 1, **named)
        bias = rest[0] if rest else named.get("bias")
        transpose = F.conv_transpose2d if x.ndim == 4 else F.conv_transpose3d
        return transpose(x, taps, bias, stride=stride, padding=padding)


def transposed(weight: Tensor) -> Tensor:
    """Weights [out, in, 3, …] of a convolution over doubled values as those of a transposed one, [in, out, 4, …].

    Of taps a, b, c along an axis: c, b + c, a + b, a; the sums of neighbours, with nothing beyond the ends.
    """
    axes = tuple(range(2, weight.ndim))
    pool = F.avg_pool2d if len(axes) == 2 else F.avg_pool3d
    exact = weight.to(torch.promote_types(weight.dtype, torch.float32)).flip(axes)
    return pool(exact, 2, stride=1, padding=1, divisor_override=1).transpose(0, 1).to(weight.dtype)
