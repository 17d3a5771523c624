"""Where training reads and writes in ComfyUI's folders, and which names are allowed there."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from pathlib import Path

import folder_paths

EXAMPLES, NONE = "example clips (bundled)", "no folder"
BUNDLED_CLIPS = Path(__file__).resolve().parents[3] / "assets" / "training_clips"
OURS = "opensora_training"
NOT_IN_NAMES = '<>:"/\\|?*'
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)


def choices() -> list[str]:
    """Names for a combo: the bundled clips, none, then the sub-folders of ComfyUI's input folder."""
    base = folder_paths.get_input_directory()
    found = [entry.name for entry in os.scandir(base) if entry.is_dir()] if os.path.isdir(base) else []
    return [EXAMPLES, NONE, *sorted(name for name in found if not name.startswith("."))]


def source_of(folder: str, path: str) -> Path | None:
    """The folder or table of clips that the node's inputs name: `path` where it is filled in, else `folder`, or none.

    Raises ValueError where there is none, with the nearest.
    """
    path = path.strip().strip('"')
    if path:
        found = Path(path).expanduser()
        if not found.exists():
            near = difflib.get_close_matches(found.name, _beside(found), 1, 0.4)
            hint = f"; the nearest there is {near[0]}" if near else ""
            raise ValueError(
                f"path is {path!r}, and there is nothing; it must be a folder of clips, or a table (.csv, .jsonl, "
                f".parquet) of them{hint}"
            )
        return found
    if folder in (EXAMPLES, NONE):
        return BUNDLED_CLIPS if folder == EXAMPLES else None
    found = Path(folder_paths.get_input_directory()) / folder
    if not found.is_dir():
        known = choices()
        near = difflib.get_close_matches(str(folder), known, 1, 0)[0]
        raise ValueError(f"folder is {folder!r}; it must be one of {', '.join(known)}; the nearest is {near!r}")
    return found


def _beside(path):
    return os.listdir(path.parent) if path.parent.is_dir() else []


def state_of(folder: str, path: str) -> str:
    """Changes where a file in the folder, or beside the table, does; empty where there is none."""
    try:
        source = source_of(folder, path)
    except ValueError:
        return ""
    if source is None:
        return ""
    files = source.rglob("*") if source.is_dir() else source.parent.iterdir()
    found = sorted((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file())
    return hashlib.sha256(repr(found).encode()).hexdigest()


def check_name(name: str) -> None:
    """ValueError for what cannot be the name of a file on every system."""
    bad = [letter for letter in name if letter in NOT_IN_NAMES or ord(letter) < 32]
    nearest = re.sub(r"_+", "_", "".join("_" if letter in bad else letter for letter in name)).strip(" ._") or "my_lora"
    if RESERVED.fullmatch(nearest):
        nearest += "_1"
    if not name or bad or name != name.strip(" .") or RESERVED.fullmatch(name) or len(name) > 100:
        raise ValueError(
            f"name is {name!r}; it must be the name of a file, without folders, {' '.join(NOT_IN_NAMES)}, spaces or "
            f"dots at its ends, of 1 to 100 letters; the nearest is {nearest[:100]!r}"
        )


def base_folder() -> Path:
    """Where runs and the cache are kept."""
    return Path(folder_paths.get_output_directory()) / OURS


def cache_folder() -> Path:
    """Encoded clips and captions, of every data set: nothing is encoded twice."""
    return base_folder() / "cache"


def lora_folder() -> Path:
    """The first of ComfyUI's folders for LoRAs."""
    return Path(folder_paths.get_folder_paths("loras")[0])
