"""Small pictures of shots, made from their files: a file is read in a few goes, however many shots it has."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ... import media
from .account import by_file

BYTES_AT_ONCE = 96_000_000  # of decoded frames that are held

Row = Mapping[str, Any]


def thumbnails(
    rows: Sequence[Row], folder: Path, count: int, side: int, height: int = 0
) -> Iterator[tuple[int, list[Image.Image]]]:
    """(number of the row, its pictures) for each row, file by file: `count` frames spread over the shot, or fewer.

    None of them where the file cannot be read any more.

    Args:
        folder: where the manifest is, which relative paths start from.
        side: the most pixels across and down; with `height`, across alone.
    """
    for path, numbers in by_file(rows).items():
        group: list[int] = []
        for number in numbers:
            group.append(number)
            if sum(_bytes(rows[one], count) for one in group) > BYTES_AT_ONCE:
                yield from _read(rows, group, folder / path, count, (side, height or side))
                group = []
        if group:
            yield from _read(rows, group, folder / path, count, (side, height or side))


def spread(row: Row, count: int) -> list[int]:
    """`count` numbers of frames in a shot's file, evenly over the shot; all of them where it has no more."""
    frames = row["num_frames"]
    count = min(count, frames)
    return [(row.get("start") or 0) + frames * (2 * place + 1) // (2 * count) for place in range(count)]


def _read(rows, group, path, count, room):
    wanted = sorted({frame for number in group for frame in spread(rows[number], count)})
    try:
        found = dict(zip(wanted, media.read(path, wanted)))
    except ValueError:
        if len(group) == 1:
            yield group[0], []
            return
        for number in group:  # those of the others may be there
            yield from _read(rows, [number], path, count, room)
        return
    small = {frame: _small(pixels, room) for frame, pixels in found.items()}
    for number in group:
        yield number, [small[frame] for frame in spread(rows[number], count)]


def _small(pixels, room):
    image = Image.fromarray(pixels.movedim(0, -1).contiguous().numpy())
    scale = min(room[0] / image.width, room[1] / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def _bytes(row, count):
    return 3 * (row.get("height") or 1080) * (row.get("width") or 1920) * min(count, row["num_frames"])
