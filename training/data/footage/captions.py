"""Captions of footage: from text files beside it, a table, or one for all; and the scores that captions carry."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ....model.text import CAMERA_MOTIONS, add_scores
from ..sidecars import text_beside

WITHOUT_SCORES = ("1.0", "1.1")  # generations whose captions never carried any


class Captions:
    """What a file shows, in words: `captions(path)`. Where several say it, the nearest to the file counts.

    In this order: the text file beside it (`sunrise.mp4.txt` or `sunrise.txt`), its row in a table, the text for all.

    Args:
        text: the caption of files that have none of their own.
        rows: of a table, each with a `path`, as seen from `folder`; more than one of a file: the first that has text.
        column: of the table, the one that holds the captions.

    Raises ValueError where rows lack the column or a path.
    """

    def __init__(
        self,
        text: str = "",
        rows: Iterable[Mapping[str, Any]] = (),
        column: str = "text",
        folder: str | Path = "",
    ) -> None:
        self.text = text.strip()
        self.of_table: dict[str, str] = {}
        for number, row in enumerate(rows, start=1):
            for name in ("path", column):
                if name not in row:
                    columns = ", ".join(map(str, row))
                    raise ValueError(f"row {number} of the captions has no column {name!r}; it has {columns}")
            caption = str(row[column] or "").strip()
            if caption:
                self.of_table.setdefault(_place(Path(folder) / str(row["path"])), caption)

    def __call__(self, path: str | Path) -> str:
        """The caption of the file at `path`, "" where it has none. ValueError where its text file cannot be read."""
        return text_beside(path) or self.of_table.get(_place(path), "") or self.text


def with_scores(text: str, row: Mapping[str, Any], version: str, flow: str = "flow_dis") -> str:
    """A caption with the scores of its row in a manifest, as the captions that a generation was trained with have them.

    1.2 and 1.3 append the aesthetic score (`aes`), the motion (the column `flow`) and the camera's (`cmotion`); what a
    row lacks, or the camera's "dynamic", is left out, and so is what the caption says already. 1.0 and
    1.1 append nothing. Raises ValueError for another version.
    """
    if version in WITHOUT_SCORES:
        return text
    camera = row.get("cmotion")
    return add_scores(
        text, _number(row, "aes"), _number(row, flow), camera if camera in CAMERA_MOTIONS else None, version
    )


def _place(path):
    return str(Path(path).absolute())


def _number(row, column):
    """A score, which a table of text may hold as text; None where there is none."""
    value = row.get(column)
    try:
        return None if value in (None, "") else float(value)
    except ValueError as error:
        raise ValueError(f"{column} is {value!r}; it must be a number, or empty") from error
