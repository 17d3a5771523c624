"""Runs the layers of a VAE in slices of rows, so that only a slice of a picture is on the device at a time.

A tile of a picture that went through the whole network would be normalised by its own mean and variance, and its
borders would show. Here a layer sees the whole picture before the next one begins: group norms gather their statistics
over all slices, convolutions see the rows around theirs. The result is that of the whole, but for rounding.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class Slices:
    """How to slice.

    `values` is how many values of a feature map a slice may hold; a slice is one row at least. `device` is where
    slices are worked on, `store` where whole feature maps lie meanwhile.
    """

    values: int
    device: torch.device
    store: torch.device


_current: contextvars.ContextVar[Slices | None] = contextvars.ContextVar("slices", default=None)


@contextlib.contextmanager
def in_slices(slices: Slices | None) -> Iterator[None]:
    """Let `row_wise` and `known` work by `slices` (a Slices, or None: in one go) inside the block."""
    token = _current.set(slices)
    try:
        yield
    finally:
        _current.reset(token)


def placed(x: Tensor) -> Tensor:
    """`x` on the device that layers work on; without slices it is there already."""
    slices = _current.get()
    return x if slices is None else x.to(slices.device)


def whole(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """function(x), x in one piece, for layers of low resolution that have to see all of it."""
    slices = _current.get()
    return function(x) if slices is None else function(x.to(slices.device)).to(slices.store)


def silu(x: Tensor) -> Tensor:
    """SiLU of a tensor that nobody else needs."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def row_wise(function: Callable[..., Tensor], *maps: Tensor, rows: int | None = None, growth: int = 1) -> Tensor:
    """function(*maps) for a function whose every row depends on the same row of the maps and on its neighbours.

    Args:
        function: of as many tensors as there are maps. It may halve or double the rows; then maps, too, may differ by
            a factor of 2. Its own zero padding at the edges counts only where the picture ends.
        maps: feature maps [..., H, W].
        rows: rows of the result, H of the first map where left out.
        growth: by how much the largest tensor inside `function` exceeds the largest map.
    """
    slices = _current.get()
    if slices is None:
        return function(*maps)
    rows = maps[0].shape[-2] if rows is None else rows
    units = min(rows, *(values.shape[-2] for values in maps))
    step = max(1, slices.values * units // (growth * max(values.numel() for values in maps)))
    out = None
    for start in range(0, units, step):
        stop = min(start + step, units)
        first, last = max(0, start - 1), min(units, stop + 1)
        pieces = (_rows(values, first, last, units).to(slices.device) for values in maps)
        piece = _rows(function(*pieces), start - first, stop - first, last - first)
        if out is None:
            out = torch.empty((*piece.shape[:-2], rows, piece.shape[-1]), dtype=piece.dtype, device=slices.store)
        _rows(out, start, stop, units).copy_(piece)
    return cast(torch.Tensor, out)


def _rows(values, start, stop, units):
    """The rows of `values` that belong to units start … stop of `units`; the last unit may be larger or smaller."""
    height = values.shape[-2]
    each = max(1, round(height / units))
    end = height if stop == units else stop * each
    return values.narrow(-2, start * each, end - start * each)


def known(norm: Any, x: Tensor) -> Callable[[Tensor], Tensor]:
    """A group norm that can be called on slices of `x`, and then uses the statistics of all of `x` [N, C, …]."""
    slices = _current.get()
    if slices is None:
        return norm
    mean, deviation = _statistics(x, norm.num_groups, norm.eps, slices)

    def normalised(piece):
        with _Known(mean, deviation):
            return norm(piece)

    return normalised


def _statistics(x, groups, eps, slices):
    """Mean and standard deviation [N, groups] of all of x, gathered slice by slice."""
    step = max(1, slices.values * x.shape[-2] // x.numel())
    count, total, squares = 0, 0.0, 0.0
    for piece in x.split(step, dim=-2):
        grouped = piece.to(slices.device).float().unflatten(1, (groups, -1)).flatten(2)
        variance, mean = (values.double() for values in torch.stack(torch.var_mean(grouped, 2, correction=0)).cpu())
        number = grouped.shape[2]
        count, total = count + number, total + number * mean
        squares = squares + number * (variance + mean**2)
    mean = total / count
    deviation = ((squares / count - mean**2).clamp(min=0) + eps).sqrt()
    return mean.float().to(slices.device), deviation.float().to(slices.device)


class _Known(TorchFunctionMode):
    """F.group_norm with given statistics, whoever calls it: hosts have layers that fetch and cast their weights."""

    def __init__(self, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        super().__init__()
        self.mean, self.deviation = mean, deviation

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is not F.group_norm:
            return function(*args, **(kwargs or {}))
        return self.group_norm(*args, **(kwargs or {}))

    def group_norm(
        self, x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
    ) -> Tensor:
        """As F.group_norm."""

        def each_channel(values):
            return values.repeat_interleave(x.shape[1] // num_groups, 1).view(*x.shape[:2], *[1] * (x.ndim - 2))

        scale = 1 / each_channel(self.deviation)
        if weight is not None:
            scale = scale * weight.float().view(1, -1, *[1] * (x.ndim - 2))
        shift = -each_channel(self.mean) * scale
        if bias is not None:
            shift = shift + bias.float().view(1, -1, *[1] * (x.ndim - 2))
        return x.float().mul_(scale).add_(shift).to(x.dtype) if x.dtype != torch.float32 else x * scale + shift
