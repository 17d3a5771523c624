"""What a manifest holds, counted: shots, minutes, the scores that differ, and why what is left out is left out."""

import keyword
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Row = Mapping[str, Any]

# Of a score: how filters ask for it, its name, what its numbers mean.
KNOWN = (
    ("num_frames / fps", "Length", "seconds"),
    ("flow_dis", "Motion", "DIS flow, pixels between frames"),
    ("flow_raft", "Motion, RAFT", "RAFT flow, pixels between frames"),
    ("aes", "Aesthetic score", "5.5 is fair, 6.5 high"),
    ("sharpness", "Sharpness", "higher is sharper"),
    ("exposure", "Exposure", "0 black or white … 1 well lit"),
    ("colorfulness", "Colour", "higher is more colourful"),
    ("match", "Caption match", "how well the caption fits"),
    ("ocr", "Text in the picture", "regions of text"),
    ("text_len", "Caption length", "words or tokens"),
    ("resolution", "Size", "pixels of a frame"),
)
VARIES = re.compile(r'"[^"]*"|\S+#\d+|(?<![\w.])-?\d+(?:\.\d+)?(?!\w)')  # from row to row, in a reason
NO_SCORE = (
    "num_frames", "height", "width", "aspect_ratio", "fps", "shot", "start", "kept", *(known for known, _, _ in KNOWN)
)  # fmt: skip


class Score(NamedTuple):
    """A column of numbers: how filters ask for it, its name, what it means, and its value for each row, or None."""

    expression: str
    label: str
    note: str
    values: list[float | None]


class Group(NamedTuple):
    """What is left out for one reason: the reason without what differs, the numbers of its rows, their seconds."""

    reason: str
    rows: list[int]
    seconds: float


class Account(NamedTuple):
    """The rows of a manifest, counted; seconds are those of shots that move."""

    files: int
    shots: int
    kept: int
    seconds: float
    seconds_kept: float
    groups: list[Group]


def name_of(row: Row) -> str:
    """How a row is called: path#shot, or the path alone where the file gave no shot."""
    return f"{row['path']}#{row['shot']}" if is_shot(row) else str(row["path"])


def is_shot(row: Row) -> bool:
    """Whether a row is a shot, and not a whole file that gave none."""
    shot = row.get("shot")
    return (0 if shot is None else shot) >= 0 and bool(row.get("num_frames"))


def is_kept(row: Row) -> bool:
    """Whether a row is a shot that is used."""
    return is_shot(row) and bool(row.get("kept", True))


def seconds(row: Row) -> float:
    """How long a shot is; 0 for a picture, and where that is not known."""
    frames, fps = row.get("num_frames") or 0, row.get("fps") or 0
    return frames / fps if frames > 1 and fps > 0 else 0.0


def reason_of(row: Row) -> str:
    """Why a row is left out, in words also where it does not say."""
    return str(row.get("reason") or "") or "no reason is given"


def kind_of(row: Row) -> str:
    """Why a row is left out, without what differs from row to row: its path, its numbers, its texts."""
    reason = reason_of(row).removeprefix(f"{row['path']}: ")
    value, semicolon, asked = reason.partition("; the filter asks for ")
    if semicolon:
        column = re.sub(r" is .*", "", value)
        whole = asked.removesuffix(" in it") + f" in {column}" if asked.endswith(" in it") else asked
        return f"the filter asks for {f'{column} {asked}' if asked[0] in '<=>!' else whole}"
    return VARIES.sub("…", reason)


def account(rows: Sequence[Row]) -> Account:
    """Count rows; the largest group of what is left out comes first."""
    groups: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        if not is_kept(row):
            groups.setdefault(kind_of(row), []).append(number)
    found = [
        Group(_common([rows[one] for one in numbers]), numbers, sum(seconds(rows[one]) for one in numbers))
        for numbers in groups.values()
    ]
    return Account(
        len({row["path"] for row in rows}),
        sum(is_shot(row) for row in rows),
        sum(is_kept(row) for row in rows),
        sum(seconds(row) for row in rows),
        sum(seconds(row) for row in rows if is_kept(row)),
        sorted(found, key=lambda group: -len(group.rows)),
    )


def scores(rows: Sequence[Row]) -> list[Score]:
    """The columns of numbers that differ among the shots: those of the manifest in a fixed order, then any others."""
    others = dict.fromkeys(column for row in rows for column in row if column not in NO_SCORE and _a_name(column))
    found = [Score(*known, [_number(row, known[0]) for row in rows]) for known in KNOWN]
    found += [Score(column, column, "", [_number(row, column) for row in rows]) for column in others]
    return [score for score in found if len({value for value in score.values if value is not None}) > 1]


def by_file(rows: Iterable[Row]) -> dict[str, list[int]]:
    """{path: the numbers of its rows, by where they start}, in the order in which files appear."""
    rows = list(rows)
    found: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        found.setdefault(str(row["path"]), []).append(number)
    return {path: sorted(numbers, key=lambda number: rows[number].get("start") or 0) for path, numbers in found.items()}


def lasting(length: float) -> str:
    """Seconds as one says them: "8.2 s", "12.5 min", "3.4 h"."""
    if length < 99.95:
        return f"{length:.1f} s"
    return f"{length / 60:.1f} min" if length < 99.95 * 60 else f"{length / 3600:,.1f} h"


def _common(rows):
    """The reason of rows of one kind, with what is the same in all of them."""
    kind, first = kind_of(rows[0]), reason_of(rows[0])
    if "…" not in kind or kind.startswith("the filter asks for "):
        return kind
    found = [VARIES.findall(reason_of(row).removeprefix(f"{row['path']}: ")) for row in rows]
    parts = iter([values[0] if len(set(values)) == 1 else "…" for values in zip(*found)])
    return VARIES.sub(lambda _: next(parts, "…"), first.removeprefix(f"{rows[0]['path']}: "))


def _a_name(column):
    """Whether filters can ask for a column."""
    return column.isidentifier() and not keyword.iskeyword(column)


def _number(row, expression):
    if not is_shot(row):
        return None
    if expression == "num_frames / fps":
        return row["num_frames"] / row["fps"] if row["num_frames"] > 1 and row.get("fps") else None
    value = row.get(expression)
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if fits else None
