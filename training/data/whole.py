"""Files that are whole or not there at all, and what to say where they cannot be written."""

from pathlib import Path
from typing import Any

from ...model.whole_files import write_whole


def write(path: Path, save: Any, name: str = "save.folder") -> None:
    """As `write_whole`. `name`: of the input that says where, for errors.

    Raises ValueError for a folder that cannot be written and for a full disk.
    """
    try:
        write_whole(path, save)
    except (OSError, RuntimeError) as error:  # PyTorch's writer says a full disk as a RuntimeError
        raise cannot_write(path, error, name) from error


def cannot_write(path: Path, error: Exception, name: str) -> ValueError:
    """What to say where a file cannot be written; `name` is of the input that says where."""
    return ValueError(
        f"{name}: {path} cannot be written ({error}); free space there, or choose a folder that can be written; "
        "what was saved before is whole"
    )
