"""Files that are whole or not there, whatever happens while they are written."""

import contextlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_whole(path: str | os.PathLike, save: Callable[[Path], Any], *, durable: bool = True) -> Path:
    """Let `save(temporary)` write a file beside `path`, then rename it to `path`, which is returned.

    `durable`: wait until the disk has it, so that not even a power cut leaves half of it. Whatever `save` raises, and
    OSError where the folder cannot be written, goes on to the caller; nothing is left of the temporary file then.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name[:40]}.{uuid.uuid4().hex}.tmp")  # no longer than a name may be
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        save(temporary)
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    return path
