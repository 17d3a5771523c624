"""Stopping in the midst of what may be left out: validation, the trial before the first step, samples."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from torch import Tensor, nn


class Stopped(Exception):
    """Someone asked for it."""


@contextlib.contextmanager
def stoppable(network: nn.Module, asked: Callable[[], bool]) -> Iterator[None]:
    """Inside, each block of the network asks before it runs, forwards and backwards; raises Stopped where it is so."""

    def look(*_: object) -> None:
        if asked():
            raise Stopped

    def look_on_the_way_back(module: nn.Module, given: object, result: object) -> None:
        if isinstance(result, Tensor) and result.requires_grad:
            result.register_hook(look)

    blocks = [block for each in network.modules() if isinstance(each, nn.ModuleList) for block in each]
    hooks = [block.register_forward_pre_hook(look) for block in (network, *blocks)]
    hooks += [block.register_forward_hook(look_on_the_way_back) for block in blocks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
