"""A transformer that ran out of memory goes on in pieces, by what is apart anyway: frames, or the tokens of an MLP."""

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator

import torch

from ....model.transformers.layers import CrossAttention, Mlp, SelfAttention
from ....model.transformers.skeleton import VideoTransformer
from ....model.transformers.stdit3_v1_3 import WindowAttention
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


def _joined(function, x, count, dim):
    """function(piece) for each of `count` pieces of x [..., C], one after the other along `dim`."""
    out, start = None, 0
    for piece in x.chunk(count, dim):
        result = function(piece)
        if out is None:
            out = result.new_empty((*x.shape[:-1], result.shape[-1]))
        out.narrow(dim, start, piece.shape[dim]).copy_(result)
        start += piece.shape[dim]
    return out


def _mlp(module, count, x):
    """x [..., C]; every token by itself."""
    joined = _joined(functools.partial(type(module).forward, module), x.flatten(0, -2)[None], count, dim=1)
    return joined[0].unflatten(0, x.shape[:-1])


def _attention(module, count, x, rotation=None, across_frames=False):
    """x [B, T, S, C]; every frame by itself, or every place across the frames."""
    if module.attention.patched:
        return type(module).forward(module, x, rotation, across_frames)
    forward = functools.partial(type(module).forward, module, rotation=rotation, across_frames=across_frames)
    if across_frames:
        return _joined(forward, x, count, dim=2)
    return _joined(forward, x.flatten(0, 1)[None], count, dim=1).view_as(x)


def _cross_attention(module, count, x, *arguments):
    """x [B, N, C]; every token by itself."""
    if module.attention.patched:
        return type(module).forward(module, x, *arguments)
    return _joined(lambda piece: type(module).forward(module, piece, *arguments), x, count, dim=1)


def _window_attention(module, count, x, windows):
    """x [B, T, S, C]; every row of windows by itself, or every frame."""
    if module.attention.patched:
        return type(module).forward(module, x, windows)
    if windows.frames:
        forward = functools.partial(type(module).forward, module, windows=windows)
        return _joined(forward, x.flatten(0, 1)[None], count, dim=1).view_as(x)
    return type(module).forward(module, x, windows.finer(count))


SPLITS = (
    (WindowAttention, _window_attention),
    (SelfAttention, _attention),
    (CrossAttention, _cross_attention),
    (Mlp, _mlp),
)
