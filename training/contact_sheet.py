"""One picture of many: the frames of a video side by side, or clips over their captions.

As a file of its own, for `run.py demo` (PyAV and Pillow): python contact_sheet.py VIDEO PICTURE
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy
from PIL import Image, ImageDraw, ImageFont

COLUMNS, MOST, SMALLEST = 6, 24, 128  # of a video: frames in a row and in all; pixels of a frame's longer side
GAP, LINE = 4, 18
LARGEST = 450_000  # bytes of `save_small`


def evenly(total: int, count: int) -> list[int]:
    """`count` places from the first to the last of `total`."""
    return [round(place * (total - 1) / max(count - 1, 1)) for place in range(count)]


def pictures(video: numpy.ndarray, count: int = 4) -> list[Image.Image]:
    """Evenly spaced frames of a clip [T, H, W, 3] in 0…1, an array or a tensor."""
    pixels = (255 * numpy.asarray(video, numpy.float32).clip(0, 1) + 0.5).astype(numpy.uint8)
    return [Image.fromarray(pixels[frame]) for frame in evenly(len(pixels), count)]


def contact_sheet(
    clips: Sequence[Sequence[Image.Image]], captions: Sequence[str] = (), columns: int = 3, zoom: int = 2
) -> Image.Image:
    """Every clip as a row of its frames, `columns` clips beside each other, captions (one a clip, or none) below.

    Frames are enlarged by whole pixels, so that one sees what is there; small ones stand in the middle of their place.
    """
    if not clips or len(captions) not in (0, len(clips)):
        raise ValueError(f"there are {len(clips)} clips and {len(captions)} captions; give one caption a clip, or none")
    font = ImageFont.load_default(14)
    width, height = (zoom * max(frame.size[axis] for clip in clips for frame in clip) for axis in (0, 1))
    across = max(map(len, clips)) * (width + GAP) + (3 * GAP if captions else 0)
    down = height + GAP + (2 * LINE + 3 * GAP if captions else 0)
    size = min(columns, len(clips)) * across + GAP, -(-len(clips) // columns) * down + GAP
    sheet = Image.new("RGB", size, (32, 32, 32))
    for index, clip in enumerate(clips):
        left, top = GAP + index % columns * across, GAP + index // columns * down
        for column, frame in enumerate(clip):
            tile = frame.resize((zoom * frame.width, zoom * frame.height), Image.Resampling.NEAREST)
            x, y = left + column * (width + GAP), top
            sheet.paste(tile, (x + (width - tile.width) // 2, y + (height - tile.height) // 2))
        for row, words in enumerate(_wrap(captions[index], font, across - 4 * GAP)[:2] if captions else ()):
            ImageDraw.Draw(sheet).text((left, top + height + GAP + row * LINE), words, (230, 230, 230), font)
    return sheet


def _wrap(text, font, width):
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def save_small(sheet: Image.Image, path: Path) -> None:
    """Write a PNG of 256 colours, of fewer where it would be larger than LARGEST."""
    for shades in (256, 128, 64):
        sheet.quantize(shades, Image.Quantize.MAXCOVERAGE, 2).save(path, "PNG", optimize=True)
        if path.stat().st_size < LARGEST:
            return


def main(video: str, picture: str) -> None:
    """Write evenly spaced frames of the file `video` to the PNG `picture`."""
    import av

    with av.open(video) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    if not frames:
        raise SystemExit(f"{video}: no frame could be decoded")
    clips = [[frames[place]] for place in evenly(len(frames), min(MOST, len(frames)))]
    contact_sheet(clips, columns=COLUMNS, zoom=max(1, -(-SMALLEST // max(frames[0].size)))).save(picture)


if __name__ == "__main__":
    main(*sys.argv[1:])
