"""The pictures and clips that the templates load, put into ComfyUI's input folder once.

They lie in the folder itself: Load Image and Load Video list no sub-folders, and newer front ends mark a file red that
their list does not have.
"""

import contextlib
import functools
import hashlib
import json
import logging
import os
import shutil
from pathlib import Path

import folder_paths

from . import files

EXAMPLE_IMAGES = Path(__file__).resolve().parents[2] / "workflows" / "inputs"


def offer_example_images() -> None:
    """Copy the examples that this input folder was never offered: a file of that name stays, a deleted one stays away.

    One that the pack has changed since takes the place of its old copy, if nobody touched that. A folder that cannot be
    written to is no reason to fail: the templates then ask for a picture.
    """
    folder = Path(folder_paths.get_input_directory())
    everywhere = _read_offered()
    offered = everywhere.setdefault(str(folder.resolve()), {})
    before = dict(offered)
    for source in sorted(EXAMPLE_IMAGES.glob("*")):  # none where the folder was left out
        digest, target = _digest(source), folder / source.name
        if digest == offered.get(source.name):
            continue
        new = source.name not in offered and not os.path.lexists(target)
        if (new or _is_our_copy(target, offered.get(source.name))) and not _copy(source, target):
            continue
        offered[source.name] = digest
    if offered != before:
        _write_offered(everywhere)


def _offered_file():
    # ComfyUI serves nothing from folders of its user directory that begin like this.
    return Path(folder_paths.get_user_directory()) / "__opensora" / "examples.json"


def _read_offered():
    """{input folder: {name of an example: the digest of what was offered there}}."""
    try:
        found = json.loads(_offered_file().read_text(encoding="utf-8"))
        return {folder: dict(names) for folder, names in found.items()}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return {}


def _write_offered(everywhere):
    file = _offered_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(everywhere, indent=1, sort_keys=True), encoding="utf-8")
    except OSError as error:
        logging.warning(
            "Open-Sora: example pictures that you delete will return, as %s cannot be written: %s", file, error
        )


def _digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_our_copy(target, digest):
    with contextlib.suppress(OSError):
        return not target.is_symlink() and _digest(target) == digest
    return False


def _copy(source, target):
    """Whether `source` is at `target` now; never half of it."""
    failed = f"the example picture {source.name} could not be put into the input folder"
    return files.put(target, functools.partial(shutil.copyfile, source), failed)
