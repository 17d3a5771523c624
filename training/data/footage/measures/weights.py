"""Weights that measures are given as files, and that are read when they are first needed."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from .....model.files import read_file
from ...media import file_key


def digest_of(path: str | Path) -> str:
    """The sha256 of a file of weights. ValueError where it cannot be read."""
    try:
        return file_key(path)
    except OSError as error:
        raise ValueError(f"{path}: it cannot be read ({error.strerror}); choose a file of weights") from error


def weights_of(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or PyTorch file, by name. ValueError where it is none."""
    return read_file(path)[0]


class Lazy:
    """What `make` makes when it is first asked for: once, however many ask; a copy by pickle makes its own."""

    def __init__(self, make: Callable[..., Any], *arguments: Any) -> None:
        self.make, self.arguments = make, arguments
        self._lock, self._made = threading.Lock(), None

    def __call__(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = self.make(*self.arguments)
            return self._made

    def __reduce__(self) -> tuple[Any, ...]:
        return Lazy, (self.make, *self.arguments)
