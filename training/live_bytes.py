"""Counts the bytes of all tensors that are alive at once while a network runs, on any device or on none.

Under FakeTensorMode nothing is computed or allocated, so networks of any
size can be measured; attention counts as the fused kernel that PyTorch takes.
"""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """A block in which `peak` becomes the most bytes that tensors made in it took at once; `now` is what they take."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: dict[int, Any] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for storage in _storages((args, kwargs)):  # what was there before does not count, nor do views of it
            self._note(storage, 0)
        result = function(*args, **(kwargs or {}))
        for storage in _storages(result):
            self._note(storage, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _note(self, storage, size):
        key = id(storage)
        if key not in self.known:
            self.now += size
            self.known[key] = weakref.ref(storage, lambda _: self._forget(key, size))

    def _forget(self, key, size):
        self.now -= size
        self.known.pop(key, None)


def _storages(values):
    return [value.untyped_storage() for value in tree_leaves(values) if isinstance(value, torch.Tensor)]
