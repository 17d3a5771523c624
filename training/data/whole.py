"""Files that are whole or not there at all."""

import contextlib
import os
from pathlib import Path
from typing import Any


def write(path: Path, save: Any, name: str = "save.folder") -> None:
    """Let `save(temporary)` write a file, see it on the disk, then rename it to `path`: whole, or not there at all.

    `name`: of the input that says where, for errors. Raises ValueError for a folder that cannot be written and for a
    full disk.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # PyTorch's writer says a full disk as a RuntimeError
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise cannot_write(path, error, name) from error


def cannot_write(path: Path, error: Exception, name: str) -> ValueError:
    """What to say where a file cannot be written; `name` is of the input that says where."""
    return ValueError(
        f"{name}: {path} cannot be written ({error}); free space there, or choose a folder that can be written; "
        "what was saved before is whole"
    )
