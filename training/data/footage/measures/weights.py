"""Weights that measures are given as files."""

from pathlib import Path

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
