"""Where training reads and writes in ComfyUI's folders, and which names are allowed there."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from pathlib import Path

import folder_paths

from ....training.data.folders import files_in

EXAMPLES, NONE = "example clips (bundled)", "no folder"
FOOTAGE = "example footage (bundled)"
ASSETS = Path(__file__).resolve().parents[3] / "assets"
BUNDLED = {EXAMPLES: ASSETS / "training_clips", FOOTAGE: ASSETS / "footage"}
OURS = "opensora_training"
# Where the head of the aesthetic score may lie, and as what.
NO_HEAD, FOLDERS_OF_HEADS, HEADS = "none", ("clip_vision", "classifiers"), (".safetensors", ".pth", ".pt", ".bin")
NOT_IN_NAMES = '<>:"/\\|?*'
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)


def choices(*first: str) -> list[str]:
    """Names for a combo: those of `first` (left out: the bundled clips, none), then ComfyUI's input folder's own."""
    base = folder_paths.get_input_directory()
    found = [entry.name for entry in os.scandir(base) if entry.is_dir()] if os.path.isdir(base) else []
    return [*(first or (EXAMPLES, NONE)), *sorted(name for name in found if not name.startswith("."))]


def source_of(folder: str, path: str) -> Path | None:
    """The folder or table of clips that the node's inputs name: `path` where it is filled in, else `folder`, or none.

    Raises ValueError where there is none, with the nearest.
    """
    if plain(path):
        found = Path(plain(path)).expanduser()
        if not os.path.exists(found):
            near = difflib.get_close_matches(found.name, _beside(found), 1, 0.4)
            hint = f"; the nearest there is {near[0]}" if near else ""
            raise ValueError(
                f"path is {plain(path)!r}, and there is nothing; it must be a folder of clips, or a table (.csv, "
                f".jsonl, .parquet) of them{hint}"
            )
        return found
    return None if folder == NONE else in_input(folder, EXAMPLES, NONE)


def in_input(folder: str, *first: str) -> Path:
    """The folder that a combo of `choices(*first)` names. ValueError where there is none, with the nearest."""
    if folder in BUNDLED:
        return BUNDLED[folder]
    found = Path(folder_paths.get_input_directory()) / folder
    if not os.path.isdir(found):
        known = choices(*first)
        near = difflib.get_close_matches(str(folder), known, 1, 0)[0]
        raise ValueError(f"folder is {folder!r}; it must be one of {', '.join(known)}; the nearest is {near!r}")
    return found


def plain(path: str) -> str:
    """A path as it was pasted, without the quotes and spaces around it."""
    return path.strip().strip('"')


def _beside(path):
    return os.listdir(path.parent) if os.path.isdir(path.parent) else []


def state_of(folder: str, path: str) -> str:
    """Changes where a file in the folder, or beside the table, does; empty where there is none."""
    try:
        source = source_of(folder, path)
    except ValueError:
        return ""
    return "" if source is None else state_at(source)


def state_of_footage(folder: str, path: str) -> str:
    """As `state_of`, of a combo with the bundled footage."""
    if plain(path):
        return state_of(NONE, path)
    try:
        return state_at(in_input(folder, FOOTAGE))
    except ValueError:
        return ""


def state_at(source: Path) -> str:
    """Changes where a file in the folder, or beside the table, does."""
    files = files_in(source) if source.is_dir() else source.parent.iterdir()
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


def footage_folder() -> Path:
    """Manifests with their reports, a folder for each folder of footage."""
    return base_folder() / "footage"


def lora_folder() -> Path:
    """The first of ComfyUI's folders for LoRAs."""
    return Path(folder_paths.get_folder_paths("loras")[0])


def heads() -> list[str]:
    """Names for a combo: none, then the files in models/clip_vision and models/classifiers that may be a head."""
    found = {
        path.relative_to(base).as_posix()
        for base in map(Path, _folders_of_heads())
        for path in (base.rglob("*") if base.is_dir() else ())
        if path.suffix.lower() in HEADS
    }
    return [NO_HEAD, *sorted(found)]


def head_path(name: str) -> Path:
    """Where the head lies that a combo names. ValueError where it is not there any more."""
    for base in _folders_of_heads():
        if (Path(base) / name).is_file():
            return Path(base) / name
    raise ValueError(
        f"aesthetic_head is {name!r}, which is not in models/{' or models/'.join(FOLDERS_OF_HEADS)}; there are "
        f"{', '.join(heads())}"
    )


def _folders_of_heads():
    return [base for name in FOLDERS_OF_HEADS for base in folder_paths.get_folder_paths(name)]
