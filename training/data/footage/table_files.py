"""Tables written row by row, whole or not at all: CSV, JSON lines and Parquet."""

import csv
import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..tables import ROWS_AT_ONCE, check_kind, pyarrow
from ..whole import write as write_whole

PARQUET_TYPES = {str: "string", int: "int64", float: "float64", bool: "bool_"}


def write(path: str | os.PathLike, rows: Iterable[Mapping[str, Any]], columns: Mapping[str, type]) -> Path:
    """Write rows as they come; of each row the `columns`, in their order, what is missing empty.

    The table is written under a temporary name and renamed. Raises ValueError as `tables.rows`, and where it
    cannot be written.
    """
    path = Path(path)
    check_kind(path)
    writers: dict[str, Callable] = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}
    picked = ({name: _text(row.get(name)) for name in columns} for row in rows)
    write_whole(path, lambda temporary: writers[path.suffix.lower()](temporary, picked, columns), "manifest")
    return path


def _text(value):
    """A value as it can be written; what of a text is none, such as half an emoji, is "?"."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def _write_csv(path, rows, columns):
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows(rows)


def _write_jsonl(path, rows, columns):
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_parquet(path, rows, columns):
    arrow = pyarrow(path)
    schema = arrow.schema([(name, getattr(arrow, PARQUET_TYPES[kind])()) for name, kind in columns.items()])
    with arrow.parquet.ParquetWriter(path, schema) as writer:
        while group := list(itertools.islice(rows, ROWS_AT_ONCE)):
            writer.write_table(arrow.Table.from_pylist(group, schema))
