"""Captions in text files beside what they describe."""

import os
from pathlib import Path


def sidecar_of(path: str | os.PathLike) -> Path | None:
    """The text file with the caption of `sunrise.mp4`: `sunrise.mp4.txt`, else `sunrise.txt`; None without one."""
    path = Path(path)
    places = (path.with_name(f"{path.name}.txt"), path.with_suffix(".txt"))
    return next((file for file in places if os.path.isfile(file)), None)  # Path.is_file raises for too long a name


def text_beside(path: str | os.PathLike) -> str:
    """The caption of a file by its sidecar, "" without one. ValueError where the sidecar cannot be read."""
    beside = sidecar_of(path)
    if beside is None:
        return ""
    try:
        return beside.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"its caption {beside.name} cannot be read; save it as a text file in UTF-8") from error
