"""What is trained on: clips with their captions, from a folder or a manifest, and what had to be left out and why."""

import difflib
import hashlib
import mimetypes
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...model.frames import IMAGE_FPS
from . import media, tables
from .folders import files_in
from .media import file_key
from .sidecars import sidecar_of, text_beside

COLUMNS = ("path", "text")  # of a manifest; the original's others are allowed, and read from the files instead
OTHER_NAMES = {"path": ("file", "file_name", "filename", "video", "image"), "text": ("caption", "prompt")}
FILES_AT_ONCE = 4
LETTER = r"[^\W\u2e80-\U0010ffff]"  # of scripts that part words by spaces


@dataclass(frozen=True)
class Clip:
    """A clip or picture with its caption.

    `key` is the sha256 of the file's content, or of the pixels where it has no file. `frames` from number `start` of
    the file on belong to it; height and width are pixels as they are shown.
    """

    path: str
    caption: str
    frames: int
    height: int
    width: int
    fps: float
    key: str
    start: int = 0
    pixels: Tensor | None = field(default=None, repr=False, compare=False)

    @property
    def source(self) -> str:
        """The file, or the name of a clip that has none."""
        return self.path

    def read(self, indices: Sequence[int]) -> Tensor:
        """The frames with these numbers, counted from the clip's own first: uint8 [T, 3, H, W].

        Raises ValueError for numbers that the clip does not have, and where the file cannot be read any more.
        """
        beyond = [index for index in indices if not 0 <= index < self.frames]
        if beyond:
            raise ValueError(
                f"{self.path}: frame {beyond[0]} is asked for, and the clip has {self.frames}; the nearest is "
                f"{min(max(beyond[0], 0), self.frames - 1)}"
            )
        if self.pixels is not None:
            return self.pixels[list(indices)]
        return media.read(self.path, [self.start + index for index in indices])


class LeftOut(NamedTuple):
    """What is not trained on, and why."""

    name: str
    reason: str


class _Entry(NamedTuple):
    """A file that is to become a clip, or a part of one: its path, the name to report it by, its caption or why it has
    none, and which of its frames."""

    path: Path
    name: str
    caption: str
    reason: str = ""
    start: int = 0
    frames: int | None = None  # all of the file's


def read_folder(folder: str | os.PathLike, trigger: str = "") -> tuple[list[Clip], list[LeftOut]]:
    """The videos and pictures in `folder` and the folders in it, by name, and what had to be left out.

    The caption of `sunrise.mp4` is the text of `sunrise.mp4.txt` or `sunrise.txt` beside it. `trigger` is put in front
    of captions that lack it, and is the caption of files that have none. Raises ValueError where there is no such
    folder, or nothing in it.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):
        raise ValueError(f"folder is {str(folder)!r}, and there is no such folder{_nearest(folder)}")
    found, left_out = [], []
    for path in filter(os.path.isfile, files_in(folder)):
        name = path.relative_to(folder).as_posix()
        if media.is_video(path) or media.is_picture(path):
            found.append(_Entry(path, name, *_caption_beside(path, trigger)))
        elif (mimetypes.guess_type(path.name)[0] or "").startswith(("video/", "image/")):
            left_out.append(LeftOut(name, f"{path.suffix} is not read; save it as .mp4 or .png"))
    if not found and not left_out:
        raise ValueError(
            f"folder is {str(folder)!r}, and it has no videos or pictures ({' '.join(media.VIDEOS + media.PICTURES)}); "
            "put them there, each with its caption in a text file of the same name"
        )
    clips, broken = _clips(found)
    return clips, sorted(left_out + broken)


def read_manifest(path: str | os.PathLike, trigger: str = "") -> tuple[list[Clip], list[LeftOut]]:
    """The clips that a table names (.csv, .jsonl or .parquet), in its order, and what had to be left out.

    Its columns `path` (as seen from the table) and `text` are read; sizes and lengths are those of the files, whatever
    the table says. A row with a `start` is a shot: `num_frames` frames of the file from that one on. One that is not
    `kept` is left out for its `reason`. `trigger` as in `read_folder`. Raises ValueError for another kind of file,
    missing columns, and a table without rows.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise ValueError(f"manifest is {str(path)!r}, and there is no such file{_nearest(path)}")
    rows = list(tables.rows(path))
    if not rows:
        raise ValueError(f"manifest {path} has no rows; each names a file and its caption: {', '.join(COLUMNS)}")
    _check_columns(path, rows)
    return _clips([_entry(path.parent, number, row, trigger) for number, row in enumerate(rows, start=1)])


def clip_of_images(images: Tensor, caption: str, fps: float = 24, name: str = "images") -> Clip:
    """A clip of IMAGE [T, H, W, 3 or 4] in 0…1, kept in memory; what is transparent is black. One image is a picture.

    Raises ValueError for another shape.
    """
    if images.ndim != 4 or images.shape[-1] not in (3, 4) or not len(images):
        raise ValueError(f"{name}: images are {list(images.shape)}; they must be [T, H, W, 3]")
    images = images[..., :3] * images[..., 3:] if images.shape[-1] == 4 else images
    pixels = (images.float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).movedim(-1, 1).contiguous()
    T, _, H, W = pixels.shape
    key = hashlib.sha256(f"{T} {H} {W} ".encode() + pixels.numpy().tobytes()).hexdigest()
    return Clip(name, caption.strip(), T, H, W, IMAGE_FPS if T == 1 else float(fps), key, pixels=pixels)


def _clips(entries: Sequence[_Entry]) -> tuple[list[Clip], list[LeftOut]]:
    """Each file probed once; decoders leave Python free, so several are at it at once."""
    paths = list(dict.fromkeys(entry.path for entry in entries if not entry.reason))
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        files = dict(zip(paths, pool.map(_probed, paths)))
    found = [_clip(entry, files.get(entry.path, "")) for entry in entries]
    return [x for x in found if isinstance(x, Clip)], [x for x in found if isinstance(x, LeftOut)]


def _probed(path):
    """(what the file holds, its key), or why it cannot be used."""
    try:
        if not os.path.isfile(path):
            return f"there is no such file{_nearest(path)}"
        return media.probe(path), file_key(path)
    except (ValueError, OSError) as error:
        return str(error).removeprefix(f"{path}: ")


def _clip(entry, file):
    if entry.reason or isinstance(file, str):
        return LeftOut(entry.name, entry.reason or file)
    (frames, height, width, fps), key = file
    end = frames if entry.frames is None else entry.start + entry.frames
    if not 0 <= entry.start < end <= frames:
        reason = f"its frames {entry.start} to {end - 1} are not in the file, which has {frames}; prepare it again"
        return LeftOut(entry.name, reason)
    return Clip(str(entry.path), entry.caption, end - entry.start, height, width, fps, key, entry.start)


def _caption_beside(path, trigger):
    """(caption, why there is none) of a file in a folder."""
    beside = sidecar_of(path)
    if beside is None and not trigger:
        return "", f"it has no caption; write one into {path.stem}.txt beside it, or give a trigger word for all"
    try:
        caption = text_beside(path)
    except ValueError as error:
        return "", str(error)
    if not caption and not trigger:
        return "", f"its caption {beside.name} is empty; write one, or give a trigger word for all"
    return with_trigger(caption, trigger), ""


def with_trigger(caption: str, trigger: str) -> str:
    """The caption with the trigger words in front, where it lacks them: "art" is not in "party"."""
    if not trigger or re.search(rf"(?<!{LETTER}){re.escape(trigger)}(?!{LETTER})", caption, re.IGNORECASE):
        return caption
    return f"{trigger}, {caption}" if caption else trigger


def _text(cell):
    return "" if tables.is_missing(cell) else str(cell).strip()


def _entry(folder, number, row, trigger):
    """The entry of a row of a manifest, which may lie."""
    path, text = (_text(row.get(column)) for column in COLUMNS)
    if not path:
        return _Entry(folder, f"row {number}", "", "it names no file; fill in its path")
    full, text = folder / path, with_trigger(text, trigger)
    if not os.path.isfile(full) and os.path.isfile(folder / str(row["path"])):  # a name that begins with a space
        full = folder / str(row["path"])
    name, start, frames, reason = path, 0, None, ""
    try:
        kept = tables.is_missing(row.get("kept")) or tables.truth(row["kept"])
        if not tables.is_missing(row.get("start")):
            name = f"{path}#{row.get('shot', row['start'])}"
            start, frames = (tables.whole_number(row.get(column)) for column in ("start", "num_frames"))
    except KeyError:
        kept, reason = True, f"row {number}: kept is {row['kept']!r}; it must be true or false"
    except (TypeError, ValueError):
        said = " and ".join(f"{column} is {row.get(column)!r}" for column in ("start", "num_frames"))
        reason = f"row {number}: {said}; both must be whole numbers"
    if not kept:
        reason = _text(row.get("reason")) or "it is not kept in the table"
    elif not text:
        reason = reason or f"row {number} has no caption; fill in its text, or give a trigger word for all"
    elif os.path.isfile(full) and not (media.is_video(full) or media.is_picture(full)):
        reason = f"{full.suffix or 'a file without an ending'} is not read; save it as .mp4 or .png"
    return _Entry(full, name, text, reason, start, frames)


def _check_columns(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """ValueError where no row has a column that is needed, with the column that may be meant."""
    names = list(dict.fromkeys(str(name) for row in rows for name in row if name is not None))
    for column in COLUMNS:
        if column in names:
            continue
        near = [name for name in names if name.lower() in (column, *OTHER_NAMES[column])]
        near = near or difflib.get_close_matches(column, names, 1)
        hint = f"; rename {near[0]!r} to {column!r}" if near else f"; add a column {column!r}"
        raise ValueError(f"manifest {path} has the columns {', '.join(names)}; it needs {', '.join(COLUMNS)}{hint}")


def _nearest(path):
    """What to say of a path that is not there: the name beside it that is nearest, or nothing."""
    path = Path(path)
    names = os.listdir(path.parent) if os.path.isdir(path.parent) else []
    near = difflib.get_close_matches(path.name, names, 1)
    return f"; the nearest is {near[0]!r}" if near else ""
