"""Writes model files: half-precision safetensors whose metadata say what they are."""

import json
import os
from collections.abc import Container, Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from ..model.files import read_file
from ..model.whole_files import write_whole


def export(
    state_dict: Mapping[str, Tensor], path: str | os.PathLike, exact: Container[str] = (), **about: object
) -> Path:
    """Save weights in fp16, those that `exact` names in fp32, and what `about` says of them; returns the path."""
    tensors = {key: (value if key in exact else value.half()) for key, value in state_dict.items()}
    return _write(path, {key: value.detach().cpu().contiguous() for key, value in tensors.items()}, about)


def tell_more(source: str | os.PathLike, path: str | os.PathLike, **more: object) -> Path:
    """Save the exported file `source` as `path`, with `more` in its metadata and the tensors as they are."""
    state_dict, metadata = read_file(Path(source))
    return _write(path, state_dict, metadata["opensora"] | more)


def _write(path, state_dict, about):
    metadata = {"format": "pt", "opensora": json.dumps(about)}
    return write_whole(path, lambda file: save_file(state_dict, file, metadata=metadata))
