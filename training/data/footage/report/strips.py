"""Pictures of a manifest for a node: its shots as strips of film, kept and left out; and what it holds at a glance."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from ...lettering import shortened, wrapped, write
from ...panels import (
    CARD,
    GAP,
    MARGIN,
    MUTED,
    PADDING,
    TEXT,
    TRACK,
    USED,
    WARNING,
    blank,
    counted,
    heading,
    left_out_line,
    stacked,
    text_line,
)
from .account import Account, account, by_file, is_kept, is_shot, lasting, name_of, reason_of, scores, seconds
from .histograms import LEFT_OUT, histogram, value_said
from .thumbnails import thumbnails

MOST_KEPT, MOST_LEFT_OUT, MOST_LINES = 40, 24, 40  # strips of each, and lines of files without shots
FRAMES = 4  # of a strip
BAND, HOLE = "#0d0e15", "#2b2f44"  # a strip of film, its holes
EDGE = 15  # of a strip, above and below its frames
OBVIOUS = ("num_frames / fps", "text_len", "resolution")  # scores that the strip shows anyway, or that say little
DIM = 0.42  # how bright stays what is left out
LINE, MOST_FILES = 92, 4  # the height of a file's time line, and how many files have one
COLORS = (WARNING, "#b98cd9", "#5fa8d3", "#63b58f", "#c9865a", "#8a93b8")  # of reasons

Row = Mapping[str, Any]


def strips(rows: Iterable[Row], folder: Path, width: int = 1400) -> Image.Image:
    """The kept shots as strips of film, then those left out and why: an RGB picture, `width` pixels wide.

    Each has FRAMES of its frames, its name, its range and its scores. At most MOST_KEPT and MOST_LEFT_OUT are drawn.

    Args:
        folder: where the manifest is, which relative paths start from.
    """
    rows = list(rows)
    parts = [_header(account(rows), "Filtered", width)]
    values = {score.label: score.values for score in scores(rows) if score.expression not in OBVIOUS}
    kept = [number for number, row in enumerate(rows) if is_kept(row)]
    dropped = [number for number, row in enumerate(rows) if is_shot(row) and not is_kept(row)]
    without = [row for row in rows if not is_shot(row)]
    for title, numbers, most, columns, color in (
        ("Kept", kept, MOST_KEPT, 2, TEXT), ("Left out", dropped, MOST_LEFT_OUT, 3, WARNING),
    ):  # fmt: skip
        if numbers:
            length = sum(seconds(rows[number]) for number in numbers)
            said = counted(len(numbers), "shot") + (f", {lasting(length)}" if length else "")
            parts.append(heading(title, said, width, color))
            parts += _cards(rows, numbers[:most], values, folder, width, columns)
            parts += _more(len(numbers) - most, width)
    if without:
        parts.append(heading("Files without a shot", counted(len(without), "file"), width, WARNING))
        parts += [left_out_line(name_of(row), _why(row), width) for row in without[:MOST_LINES]]
        parts += _more(len(without) - MOST_LINES, width)
    return stacked([*parts, blank(width, MARGIN)])


def heart(rows: Iterable[Row], folder: Path, width: int = 1400) -> Image.Image:
    """What a manifest holds at a glance: counts, a histogram of each score, files on their time lines, and reasons.

    Arguments as of `strips`.
    """
    rows = list(rows)
    held = account(rows)
    parts = [_header(held, "Footage", width)]
    found = scores(rows)
    if found:
        parts += [heading("Scores", "yellow is kept, grey is left out; heights by the root", width)]
        parts += _histograms(found, [is_kept(row) for row in rows], width)
    files = {
        path: shots for path, numbers in by_file(rows).items() if (shots := [n for n in numbers if is_shot(rows[n])])
    }
    longest = sorted(files, key=lambda path: -len(files[path]))[:MOST_FILES]
    if longest:
        said = counted(len(files), "file") + (
            f", the {len(longest)} with the most shots" if len(files) > MOST_FILES else ""
        )
        parts.append(heading("Time lines", said, width))
        parts += [_time_line(rows, path, files[path], folder, width) for path in longest]
    if held.groups:
        left_out = sum(len(group.rows) for group in held.groups)
        parts.append(heading("Left out", f"{left_out:,} of {len(rows):,}", width, WARNING))
        for place, group in enumerate(held.groups[:MOST_LINES]):
            what = "shot" if is_shot(rows[group.rows[0]]) else "file"
            said = counted(len(group.rows), what) + (f", {lasting(group.seconds)}" if group.seconds else "")
            color = COLORS[min(place, len(COLORS) - 1)] if group.seconds or not held.seconds else TEXT
            parts.append(left_out_line(said, group.reason, width, color))
        parts += _more(len(held.groups) - MOST_LINES, width)
    return stacked([*parts, blank(width, MARGIN)])


def _header(held: Account, title: str, width: int) -> Image.Image:
    said = f"{held.kept:,} of {counted(held.shots, 'shot')} kept"
    if held.seconds:
        said += f", {lasting(held.seconds_kept)} of {lasting(held.seconds)}"
    said += f"; {counted(held.files, 'file')}"
    parts = [blank(width, MARGIN - 10), text_line(title, 40, TEXT, width), blank(width, 6)]
    return stacked([*parts, text_line(said, 20, TEXT, width), _share(held, width)])


def _share(held, width):
    """A bar of what is kept and of what is left out by its reason; in seconds, or in rows where nothing moves."""
    image = blank(width, 42)
    draw, room = ImageDraw.Draw(image), width - 2 * MARGIN
    parts = [(held.seconds_kept if held.seconds else held.kept, USED)]
    for place, group in enumerate(held.groups):
        weight = group.seconds if held.seconds else len(group.rows)
        parts.append((weight, COLORS[min(place, len(COLORS) - 1)]))
    total, before = sum(weight for weight, _ in parts) or 1, 0.0
    draw.rounded_rectangle((MARGIN, 14, width - MARGIN - 1, 27), 6, fill=TRACK)
    for weight, color in parts:
        left, right = (MARGIN + round(room * at / total) for at in (before, before + weight))
        if weight:
            draw.rounded_rectangle((left, 14, max(left + 2, right - 3), 27), 6, fill=color)
        before += weight
    return image


def _more(count, width):
    return [text_line(f"and {count:,} more", 16, MUTED, width)] if count > 0 else []


def _why(row):
    return reason_of(row).removeprefix(f"{row['path']}: ")


def _cards(rows, numbers, values, folder, width, columns) -> Iterator[Image.Image]:
    """Cards side by side; each line as high as its highest."""
    side = (width - 2 * MARGIN - (columns - 1) * GAP) // columns
    room = side - 2 * PADDING
    frame = (room - (FRAMES + 1) * 4) // FRAMES
    drawn = dict(thumbnails([rows[number] for number in numbers], folder, FRAMES, frame, frame * 3 // 4))
    for start in range(0, len(numbers), columns):
        cards = [
            _card(rows[number], drawn[start + place], [(name, held[number]) for name, held in values.items()], side)
            for place, number in enumerate(numbers[start : start + columns])
        ]
        whole = blank(width, max(card.height for card in cards) + GAP)
        for place, card in enumerate(cards):
            left = MARGIN + place * (side + GAP)
            whole.paste(CARD, (left, 0, left + side, whole.height - GAP))
            whole.paste(card, (left, 0))
        yield whole


def _card(row, frames, values, side):
    room = side - 2 * PADDING
    known = [f"{name.lower()} {value_said(value)}" for name, value in values if value is not None]
    kept = is_kept(row)
    name = shortened(name_of(row), 17, room - 190, middle=True)
    said = [
        *((line, 15, WARNING) for line in ([] if kept else wrapped(_why(row), 15, room, 3))),
        *((line, 15, TEXT if kept else MUTED) for line in wrapped(str(row.get("text") or ""), 15, room, 2)),
        *((line, 14, MUTED) for line in wrapped("  ·  ".join(known), 14, room, 2)),
    ]
    film = _film(frames, room, kept)
    card = Image.new("RGB", (side, PADDING + film.height + 40 + sum(size + 7 for _, size, _ in said) + 4), CARD)
    card.paste(film, (PADDING, PADDING))
    draw, y = ImageDraw.Draw(card), PADDING + film.height + 10
    end = write(draw, PADDING, y, name, 17, TEXT if kept else MUTED)
    write(draw, end + 14, y + 3, shortened(_range(row), 14, side - PADDING - end - 14), 14, MUTED)
    y += 28
    for words, size, color in said:
        write(draw, PADDING, y, words, size, color)
        y += size + 7
    return card


def _range(row):
    start, frames = row.get("start") or 0, row["num_frames"]
    return "picture" if frames == 1 else f"frames {start} to {start + frames - 1}, {lasting(seconds(row))}"


def _film(frames, room, kept):
    """Frames on a strip of film, darker where it is left out."""
    high = max((frame.height for frame in frames), default=60)
    band = Image.new("RGB", (room, high + 2 * EDGE), BAND)
    draw = ImageDraw.Draw(band)
    for left in range(6, room - 8, 16):
        for top in (4, EDGE + high + 4):
            draw.rounded_rectangle((left, top, left + 8, top + 6), 2, fill=HOLE)
    if not frames:
        write(draw, 10, EDGE + high // 2 - 10, "its file cannot be read any more", 15, WARNING)
    taken = sum(frame.width for frame in frames) + 4 * (len(frames) - 1)
    left = (room - taken) // 2
    for frame in frames:
        band.paste(frame if kept else frame.point(lambda value: int(value * DIM)), (left, EDGE))
        left += frame.width + 4
    return band


def _histograms(found, kept, width) -> Iterator[Image.Image]:
    columns = 3
    side = (width - 2 * MARGIN - (columns - 1) * GAP) // columns
    for start in range(0, len(found), columns):
        line = blank(width, 210 + GAP)
        for place, score in enumerate(found[start : start + columns]):
            line.paste(histogram(score, kept, side, 210), (MARGIN + place * (side + GAP), 0))
        yield line


def _time_line(rows, path, numbers, folder, width):
    """A file from its first frame to its last: each shot as wide as it is long, a picture in it, its fate above."""
    room = width - 2 * MARGIN
    last = max((rows[number].get("start") or 0) + rows[number]["num_frames"] for number in numbers)
    image = blank(width, LINE + 62)
    draw = ImageDraw.Draw(image)
    kept = [number for number in numbers if is_kept(rows[number])]
    end = write(draw, MARGIN, 2, shortened(path, 17, room * 0.6, middle=True), 17, TEXT)
    said = f"{len(kept)} of {counted(len(numbers), 'shot')} kept"
    write(draw, end + 14, 5, said, 14, MUTED)
    draw.rectangle((MARGIN, 32, width - MARGIN - 1, 31 + LINE), fill=CARD)
    for place, frames in thumbnails([rows[number] for number in numbers], folder, FRAMES, room, LINE - 8):
        row = rows[numbers[place]]
        start = row.get("start") or 0
        left, right = (MARGIN + round(room * at / last) for at in (start, start + row["num_frames"]))
        right = max(right - 2, left + 1)
        image.paste(_filled(frames, right - left, is_kept(row)), (left, 40))
        draw.rectangle((left, 32, right - 1, 37), fill=USED if is_kept(row) else LEFT_OUT)
        if right - left > 46:
            write(draw, left, 36 + LINE, str(start), 13, MUTED)
    return image


def _filled(frames, room, kept):
    """`room` pixels of a shot's frames: as many as are needed, evenly apart where they are too few."""
    image = Image.new("RGB", (room, LINE - 8), CARD)
    if not frames:
        return image
    each = frames[0].width + 2
    some = min(len(frames), -(-room // each))
    apart = max(0, room - some * each) // some
    left = (room - some * (each + apart) + 2 + apart) // 2
    for place in range(some):
        frame = frames[len(frames) * (2 * place + 1) // (2 * some)]
        image.paste(frame if kept else frame.point(lambda value: int(value * DIM)), (left + place * (each + apart), 0))
    return image
