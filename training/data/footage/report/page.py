"""The report on a manifest: one HTML file, pictures within it, that opens from disk and needs no network."""

import base64
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ...whole import write as write_whole
from .account import account, by_file, is_kept, is_shot, reason_of, scores
from .thumbnails import thumbnails

SCRIPTS = ("filter.js", "page.js", "scores.js", "sheet.js", "files.js", "report.js")
MOST_PICTURES = 300  # shots that are drawn; the rest is named
MOST_BYTES = 3_600_000  # of all pictures; a third more as text
FRAMES = 4  # of a shot's film
SIDE, LARGE_SIDE, FEW = 176, 320, 60  # pixels of a frame; where there are few shots
QUALITIES = (72, 55, 40, 25)  # of WebP, until a film fits into its share
EXTREMES = 6  # shots at each end of each score that are drawn in any case
LONGEST_TEXT = 4000  # characters of a caption that are shown

Row = Mapping[str, Any]


def write(
    path: str | os.PathLike,
    rows: Iterable[Row],
    folder: str | os.PathLike,
    name: str = "",
    most: int = MOST_PICTURES,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the report on a manifest's rows as one HTML file, under a temporary name that is then renamed.

    Args:
        folder: where the manifest is, which relative paths start from.
        name: what the footage is called; the folder's name unless given.
        most: how many shots have pictures.
        progress: called with how many of them are drawn and how many there are to draw.

    Raises ValueError where it cannot be written.
    """
    path, content = Path(path), page(list(rows), Path(folder), name, most, progress)
    write_whole(path, lambda temporary: temporary.write_text(content, encoding="utf-8", errors="replace"), "report")
    return path


def page(
    rows: Sequence[Row],
    folder: Path,
    name: str = "",
    most: int = MOST_PICTURES,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """The report as HTML; arguments as of `write`."""
    here = Path(__file__).parent
    films = _films(rows, folder, most, progress)
    found = _data(rows, films, name or folder.resolve().name)
    parts = {
        "/* style */": (here / "page.css").read_text(encoding="utf-8"),
        "/* script */": "\n".join((here / script).read_text(encoding="utf-8") for script in SCRIPTS),
        # In a page's own words no text ends the script, whatever a file is called.
        "{ data }": json.dumps(found, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace(
            "<", "\\u003c"
        ),
    }
    whole = (here / "page.html").read_text(encoding="utf-8")
    for place, part in parts.items():
        before, after = whole.split(place)
        whole = f"{before}{part}{after}"
    return whole


def pictured(rows: Sequence[Row], most: int) -> list[int]:
    """The numbers of the shots that are drawn, at most `most`: the ends of each score, then evenly spread ones."""
    shots = [number for number, row in enumerate(rows) if is_shot(row)]
    if len(shots) <= most:
        return shots
    found: dict[int, None] = {}
    for score in scores(rows):
        known = sorted((value, number) for number, value in enumerate(score.values) if value is not None)
        found |= dict.fromkeys(number for _, number in known[:EXTREMES] + known[-EXTREMES:])
    drawn = list(found)[:most]
    rest = [number for number in shots if number not in found]
    left = most - len(drawn)
    return sorted(drawn + [rest[place * len(rest) // left] for place in range(left)])


def _films(rows, folder, most, progress):
    """{number of a row: its film}, a film being its frames beside each other."""
    numbers = pictured(rows, most)
    share = MOST_BYTES // max(len(numbers), 1)
    side = LARGE_SIDE if len(numbers) <= FEW else SIDE
    films, total = {}, 0
    for done, (place, frames) in enumerate(thumbnails([rows[number] for number in numbers], folder, FRAMES, side)):
        if progress:
            progress(done, len(numbers))
        if not frames:
            continue
        content = _webp(frames, share)
        total += len(content)
        if total > MOST_BYTES:
            break
        size = frames[0].size
        films[numbers[place]] = [len(frames), *size, base64.b64encode(content).decode()]
    if progress:
        progress(len(numbers), len(numbers))
    return films


def _webp(frames, most):
    """The frames beside each other, at the best quality that fits into `most` bytes, or else at the least."""
    width, height = frames[0].size
    film = Image.new("RGB", (width * len(frames), height))
    for place, frame in enumerate(frames):
        film.paste(frame, (place * width, 0))
    for quality in QUALITIES:
        content = io.BytesIO()
        film.save(content, "WEBP", quality=quality, method=4)
        if content.tell() <= most:
            break
    return content.getvalue()


def _data(rows, films, name):
    """What the page is made of; of each row a list in the order of `fields`."""
    numbers = {path: number for number, path in enumerate(by_file(rows))}
    groups = account(rows).groups
    group_of = {number: place for place, group in enumerate(groups) for number in group.rows}
    return {
        "name": name,
        "files": list(numbers),
        "reasons": [group.reason for group in groups],
        "fields": [
            "file",
            "shot",
            "start",
            "frames",
            "fps",
            "height",
            "width",
            "group",
            "reason",
            "text",
            "motion",
            "copy",
        ],
        "rows": [
            [
                numbers[str(row["path"])],
                row.get("shot") if is_shot(row) else -1,
                row.get("start") or 0,
                row.get("num_frames") or 0,
                _finite(row.get("fps")) or 0,
                row.get("height") or 0,
                row.get("width") or 0,
                group_of.get(number, -1),
                "" if is_kept(row) else reason_of(row),
                None if row.get("text") is None else str(row["text"])[:LONGEST_TEXT],
                row.get("cmotion"),
                row.get("duplicate_of"),
            ]
            for number, row in enumerate(rows)
        ],
        "scores": [
            {"expression": score.expression, "label": score.label, "note": score.note, "values": score.values}
            for score in scores(rows)
        ],
        "films": films,
    }


def _finite(value):
    return value if isinstance(value, int | float) and math.isfinite(value) else None
