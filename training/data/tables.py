"""Tables of clips on disk: CSV, JSON lines and Parquet, read row by row, and written whole or not at all."""

import csv
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..checkpoints import write as write_whole

KINDS = (".csv", ".jsonl", ".parquet")
ROWS_AT_ONCE = 1000  # of Parquet: a group of rows, which is held in memory
PARQUET_TYPES = {str: "string", int: "int64", float: "float64", bool: "bool_"}


def rows(path: str | os.PathLike) -> Iterator[dict[str, Any]]:
    """The rows of a table, one by one; those of CSV are text.

    Raises ValueError for another kind of file, one that cannot be read, and Parquet without pyarrow.
    """
    path = Path(path)
    check_kind(path)
    readers: dict[str, Callable] = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".parquet": _parquet_rows}
    return readers[path.suffix.lower()](path)


def write(path: str | os.PathLike, rows: Iterable[Mapping[str, Any]], columns: Mapping[str, type]) -> Path:
    """Write rows as they come; of each row the `columns`, in their order, what is missing empty.

    The table is written under a temporary name and renamed. Raises ValueError as `rows`, and where it cannot be
    written.
    """
    path = Path(path)
    check_kind(path)
    writers: dict[str, Callable] = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}
    if path.suffix.lower() == ".parquet":
        pyarrow(path)
    write_whole(path, lambda temporary: writers[path.suffix.lower()](temporary, rows, columns), "manifest")
    return path


def check_kind(path: Path) -> None:
    """ValueError for a file that is no table by its name."""
    if path.suffix.lower() not in KINDS:
        raise ValueError(f"manifest is {str(path)!r}; it must be one of {', '.join(KINDS)}")


def pyarrow(path: Path) -> Any:
    """The package that reads and writes Parquet. ValueError where it is not there."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(
            f"manifest {path} is Parquet, which needs the package pyarrow: pip install pyarrow; or save it as .csv"
        ) from error
    return pyarrow


def _csv_rows(path):
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield from csv.DictReader(file)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"manifest {path} is not readable CSV in UTF-8 ({error}); save it again as such") from error


def _jsonl_rows(path):
    try:
        with open(path, encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _json_object(path, number, line)
    except UnicodeDecodeError as error:
        raise ValueError(f"manifest {path} is not in UTF-8 ({error}); save it again as such") from error


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


def _write_csv(path, rows, columns):
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(columns), extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(rows)


def _write_jsonl(path, rows, columns):
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps({name: row.get(name) for name in columns}, ensure_ascii=False) + "\n")


def _write_parquet(path, rows, columns):
    arrow = pyarrow(path)
    schema = arrow.schema([(name, getattr(arrow, PARQUET_TYPES[kind])()) for name, kind in columns.items()])
    remaining = iter(rows)
    with arrow.parquet.ParquetWriter(path, schema) as writer:
        while group := list(itertools.islice(remaining, ROWS_AT_ONCE)):
            picked = [{name: row.get(name) for name in columns} for row in group]
            writer.write_table(arrow.Table.from_pylist(picked, schema))
