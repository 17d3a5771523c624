"""A transformer that ran out of memory goes on in pieces, by what is apart anyway: frames, or the tokens of an MLP."""

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator

import torch

from ....model.transformers.layers import CrossAttention, Mlp, SelfAttention
from ....model.transformers.skeleton import VideoTransformer
from ....model.transformers.stdit3_v1_3 import HEIGHT, TIME, WindowAttention
from ..versions import with_less

MORE, MOST = 4, 64  # by how much the number of pieces grows each time, and to how many


class Pieces:
    """Runs a network, in pieces from the first time on that memory did not suffice for latents of that size."""

    def __init__(self) -> None:
        self.size, self.count = float("inf"), 1
        self.give_back: Callable[[], bool] = lambda: False  # lets go of what is only kept to be faster; if it did

    def run(self, network: VideoTransformer, x: torch.Tensor, *arguments: object, **named: object) -> torch.Tensor:
        """network.run(x, …), x [B, C, T, H, W]; the result is that of the whole but for rounding."""
        if torch.compiler.is_compiling():
            return network.run(x, *arguments, **named)
        count = self.count if x.numel() >= self.size else 1

        def attempt():
            with in_pieces(network, count):
                return network.run(x, *arguments, **named)

        def less():
            nonlocal count
            if self.give_back():
                return True
            if count >= MOST:
                return False
            count *= MORE
            self.size, self.count = min(self.size, x.numel()), count
            logging.warning(
                "Open-Sora: the transformer ran out of memory and goes on in %d pieces; the result is the same", count
            )
            return True

        return with_less(attempt, less)


@contextlib.contextmanager
def in_pieces(network: torch.nn.Module, count: int) -> Iterator[None]:
    """Let the attentions and MLPs of `network` take their input in `count` pieces inside the block."""
    changed = []
    try:
        for module in network.modules() if count > 1 else ():
            split = next((split for kind, split in SPLITS if isinstance(module, kind)), None)
            if split is not None:
                module.forward = functools.partial(split, module, count)
                changed.append(module)
        yield
    finally:
        for module in changed:
            del module.forward


def _joined(function, x, count, dim=0):
    """function(piece) for each of `count` pieces of x [..., C], one after the other along `dim`."""
    out, start = None, 0
    for piece in x.chunk(count, dim):
        result = function(piece)
        if out is None:
            out = result.new_empty((*x.shape[:-1], result.shape[-1]))
        out.narrow(dim, start, piece.shape[dim]).copy_(result)
        start += piece.shape[dim]
    return out


def _is_patched(attention):
    """Whether users' patches look at this attention; they may need to see all of it."""
    options = attention.attention.call.options
    return bool(options.get("patches") or options.get("optimized_attention_override"))


def _mlp(module, count, x):
    """x [..., C]; every token by itself."""
    joined = _joined(lambda piece: type(module).forward(module, piece), x.flatten(0, -2), count)
    return joined.unflatten(0, x.shape[:-1])


def _attention(dim, module, count, x, *arguments):
    """x [N, L, C]; every row by itself, or every token that reads a caption: `dim` 0 or 1."""
    if _is_patched(module):
        return type(module).forward(module, x, *arguments)
    return _joined(lambda piece: type(module).forward(module, piece, *arguments), x, count, dim)


def _window_attention(module, count, x, grid, window, rope=None):
    """x [B, T, S, C]; every row of windows by itself, along time where windows end there, else along the height."""
    if _is_patched(module):
        return type(module).forward(module, x, grid, window, rope)
    axis = TIME if window[TIME] < grid[TIME] else HEIGHT
    length, size = grid[axis], window[axis]
    step = max(1, -(-length // (size * count))) * size

    def attend(start):
        stop = min(start + step, length)
        own_grid = tuple(stop - start if each == axis else side for each, side in enumerate(grid))
        own_rope = rope and [
            tuple(table.narrow(axis, start, stop - start) if table.shape[axis] > 1 else table for table in pair)
            for pair in rope
        ]
        piece = x.unflatten(2, grid[1:]).narrow(axis + 1, start, stop - start).flatten(2, 3)
        result = type(module).forward(module, piece, own_grid, window, own_rope)
        out.unflatten(2, grid[1:]).narrow(axis + 1, start, stop - start).copy_(result.unflatten(2, own_grid[1:]))

    out = torch.empty_like(x)
    for start in range(0, length, step):
        attend(start)
    return out


SPLITS = (
    (WindowAttention, _window_attention),
    (SelfAttention, functools.partial(_attention, 0)),
    (CrossAttention, functools.partial(_attention, 1)),
    (Mlp, _mlp),
)
