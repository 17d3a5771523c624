"""The manifest of a set of footage: a table with a row for every file and shot, kept or not, and why.

Its columns are named as in the original's tables (https://github.com/hpcaitech/Open-Sora, tools/datasets); ours come
after them. `path` is seen from the table where the file is in its folder or below it.
"""

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import tables
from . import table_files

Row = dict[str, Any]

COLUMNS: dict[str, type] = {
    "path": str, "text": str, "num_frames": int, "height": int, "width": int, "aspect_ratio": float,
    "resolution": float, "fps": float, "aes": float, "flow_dis": float, "flow_raft": float, "match": float,
    "ocr": int, "cmotion": str, "text_len": int, "shot": int, "start": int, "kept": bool, "reason": str,
    "sharpness": float, "exposure": float, "colorfulness": float, "phash": str, "duplicate_of": str,
}  # fmt: skip
ORIGINALS = (
    "path", "text", "num_frames", "height", "width", "aspect_ratio", "resolution", "fps", "aes", "flow", "match",
    "ocr", "cmotion", "text_len",
)  # fmt: skip
WORDS = ("path", "text", "reason", "duplicate_of")  # which say nothing where they are empty
FLOWS = ("flow_dis", "flow_raft")
OF_CELLS: dict[type, Callable] = {bool: tables.truth, int: tables.whole_number}
# Of a row that is kept, the least that it may say of its frames.
LEAST = {"num_frames": 1, "height": 1, "width": 1, "fps": 0.001, "shot": 0, "start": 0}
WHOLE_FILE = -1  # the shot of a row for a file that gave none


def rows(path: str | os.PathLike) -> Iterator[Row]:
    """The rows of a manifest one by one, each value of its column's type; missing ones are None, words "".

    Raises ValueError as `tables.rows`, for a value of another type, for a table that is no manifest, and for a row that
    is kept and tells of no frames.
    """
    for number, row in enumerate(tables.rows(path), start=1):
        missing = [name for name in ("path", "num_frames", "kept") if name not in row]
        if missing:
            raise ValueError(
                f"manifest {path}, row {number}: it has no column {missing[0]!r}; a manifest is what `prepare` writes"
            )
        found = {name: _typed(path, number, name, row.get(name)) for name in COLUMNS}
        for name, least in LEAST.items() if found["kept"] else ():
            unknown = found[name] is None and name != "num_frames"
            if not unknown and (found[name] or 0) < least:
                raise ValueError(
                    f"manifest {path}, row {number}: it is kept, and {name} is {found[name]}; it must be {least} or "
                    "more; prepare it again, or set kept to false"
                )
        yield found


def write(path: str | os.PathLike, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write a manifest as .jsonl, .parquet or .csv, row by row. Raises ValueError as `table_files.write`."""
    return table_files.write(path, rows, COLUMNS)


def export_csv(path: str | os.PathLike, manifest: str | os.PathLike, flow: str = "flow_dis") -> Path:
    """Write the rows of a manifest that are kept as the original's table: its columns, `flow` being that measure.

    Paths are whole. That table knows no ranges: raises ValueError for a file of several shots, and for another flow.
    """
    if flow not in FLOWS:
        raise ValueError(f"flow is {flow!r}; it must be one of {', '.join(FLOWS)}")
    columns = {name: COLUMNS.get(name, float) for name in ORIGINALS}
    return table_files.write(path, ({**row, "flow": row[flow]} for row in _whole_files(Path(manifest))), columns)


def name_of(row: Mapping[str, Any]) -> str:
    """How a row is called elsewhere in the table: its path, `#` and the number of its shot."""
    return f"{row['path']}#{row['shot']}"


def file_of(row: Mapping[str, Any], manifest: str | os.PathLike) -> Path:
    """The file that a row is of, for a manifest at this path."""
    return Path(manifest).parent / row["path"]


def summary(path: str | os.PathLike) -> str:
    """How much of a manifest is kept, in a line."""
    kept, total, files, seconds = 0, 0, set(), 0.0
    for row in rows(path):
        files.add(row["path"])
        total += row["shot"] != WHOLE_FILE
        if row["kept"]:
            kept += 1
            seconds += row["num_frames"] / row["fps"] if row["fps"] and row["num_frames"] > 1 else 0
    return f"{kept} of {total} shots are kept, {seconds:.1f} s, of {len(files)} files"


def path_in(file: Path, manifest: Path) -> str:
    """How a manifest names a file: as seen from its folder, with "/", or whole where the file is elsewhere."""
    file, folder = file.absolute(), manifest.absolute().parent
    return (file.relative_to(folder) if file.is_relative_to(folder) else file).as_posix()


def as_type(name: str, value: Any) -> Any:
    """A value of column `name` as the column's type, which it may be the text of; a missing one is None, or ""."""
    kind = COLUMNS[name]
    if tables.is_missing(value):
        return "" if name in WORDS else None
    number = OF_CELLS.get(kind, kind)(value)
    if number in (math.inf, -math.inf):
        raise ValueError(f"{value!r} is no number")
    return number


def _typed(path, number, name, value):
    try:
        return as_type(name, value)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"manifest {path}, row {number}: {name} is {value!r}, which is no {COLUMNS[name].__name__}; prepare it "
            "again"
        ) from error


def _whole_files(manifest):
    for _, shots in itertools.groupby(rows(manifest), lambda row: row["path"]):
        first, *others = shots
        kept = [row for row in (first, *others) if row["kept"]]
        if kept and others:
            raise ValueError(
                f"{name_of(kept[0])} is one of {1 + len(others)} shots of its file, which the original's table cannot "
                "say; write the shots out as files first (--clips FOLDER)"
            )
        for row in kept:
            yield {**row, "path": str(file_of(row, manifest).absolute())}
