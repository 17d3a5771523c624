"""Tables of clips on disk: CSV, JSON lines and Parquet, read row by row."""

import csv
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

KINDS = (".csv", ".jsonl", ".parquet")
ROWS_AT_ONCE = 1000  # of Parquet: a group of rows, which is held in memory
LARGEST = 1 << 53  # up to here a float tells whole numbers apart
TRUTHS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


def rows(path: str | os.PathLike) -> Iterator[dict[str, Any]]:
    """The rows of a table, one by one; those of CSV are text.

    Raises ValueError for another kind of file, one that cannot be read, and Parquet without pyarrow.
    """
    path = Path(path)
    check_kind(path)
    readers: dict[str, Callable] = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".parquet": _parquet_rows}
    return readers[path.suffix.lower()](path)


def check_kind(path: Path) -> None:
    """ValueError for a file that is no table by its name, and for Parquet without pyarrow."""
    if path.suffix.lower() not in KINDS:
        raise ValueError(f"manifest is {str(path)!r}; it must be one of {', '.join(KINDS)}")
    if path.suffix.lower() == ".parquet":
        pyarrow(path)


def pyarrow(path: Path) -> Any:
    """The package that reads and writes Parquet. ValueError where it is not there."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(
            f"manifest {path} is Parquet, which needs the package pyarrow: pip install pyarrow; or save it as .csv"
        ) from error
    return pyarrow


def is_missing(value: Any) -> bool:
    """Whether a cell holds nothing; a number that is none says so in tables that know no other way."""
    return value in (None, "") or value != value


def whole_number(value: Any) -> int:
    """A whole number as a cell has it: 7, 7.0 of a column with gaps, or the text of either; ValueError for others."""
    number = float(value)
    if not number.is_integer() or abs(number) > LARGEST:
        raise ValueError(f"{value!r} is no whole number")
    return int(number)


def truth(value: Any) -> bool:
    """Yes or no as a cell has it: true, 1, 1.0, or the text of these; KeyError for others."""
    return TRUTHS[str(value).strip().lower()]


def _csv_rows(path):
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            _check_names(path, reader.fieldnames or [])
            for row in reader:
                if None in row:  # more cells than names
                    raise ValueError(
                        f"manifest {path}, line {reader.line_num}: {row[None][0]!r} is behind the last column; write a "
                        'text that has commas in quotes: "a cat, running"'
                    )
                yield row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"manifest {path} is not readable CSV in UTF-8 ({error}); save it again as such") from error


def _check_names(path, names):
    for mark, called in ((";", "semicolons"), ("\t", "tabs")):
        if len(names) == 1 and mark in names[0]:
            raise ValueError(f"manifest {path} separates its cells by {called}; save it again with commas")


def _jsonl_rows(path):
    try:
        with open(path, encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _json_object(path, number, line)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"manifest {path} is not readable text in UTF-8 ({error}); save it again as such") from error


def _json_object(path, number, line):
    try:
        row = json.loads(line)
    except ValueError as error:
        row = error
    if not isinstance(row, dict):
        raise ValueError(
            f'manifest {path}, line {number}: {row}; each line is one object: {{"path": "…", "text": "…"}}'
        )
    return row


def _parquet_rows(path):
    parquet = pyarrow(path).parquet
    try:
        with parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(ROWS_AT_ONCE):
                yield from batch.to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise ValueError(f"manifest {path} is not readable Parquet ({error}); save it again") from error
