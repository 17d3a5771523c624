"""What is in a folder of clips or footage, and in the folders in it."""

import os
from collections.abc import Iterator
from pathlib import Path


def files_in(folder: str | Path, but: Path | None = None, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """All files below a folder, but for those of one in it, in the order of their names; hidden ones are none.

    Links are followed, but not back to a folder that they are in (`above`, for the folders below). A folder that cannot
    be opened, and a link to nothing, are found as files are, so that somebody answers for them.
    """
    above = (*above, os.path.realpath(folder))
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError:
        yield Path(folder)
        return
    for entry in found:
        path = Path(entry.path)
        if os.path.isdir(path):
            if path != but and os.path.realpath(path) not in above:
                yield from files_in(path, but, above)
        elif os.path.isfile(path) or not os.path.exists(path):
            yield path
