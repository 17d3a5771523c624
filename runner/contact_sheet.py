"""One picture of a whole video: its frames side by side. Runs in the prepared environment (PyAV, Pillow)."""

import sys

import av
from PIL import Image

COLUMNS, MOST, GAP, SMALLEST = 6, 24, 4, 128


def main(video: str, picture: str) -> None:
    """Write up to 24 evenly spaced frames of the file `video` to the PNG `picture`."""
    with av.open(video) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    if not frames:
        raise SystemExit(f"{video}: no frame could be decoded")
    count = min(MOST, len(frames))
    chosen = [frames[round(i * (len(frames) - 1) / max(count - 1, 1))] for i in range(count)]
    # Tiny videos are enlarged by whole pixels, so that one sees what is there.
    factor = max(1, -(-SMALLEST // max(chosen[0].size)))
    width, height = (side * factor for side in chosen[0].size)
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    sheet = Image.new("RGB", (columns * (width + GAP) + GAP, rows * (height + GAP) + GAP), (32, 32, 32))
    for i, frame in enumerate(chosen):
        place = (GAP + i % columns * (width + GAP), GAP + i // columns * (height + GAP))
        sheet.paste(frame.resize((width, height), Image.Resampling.NEAREST), place)
    sheet.save(picture)


if __name__ == "__main__":
    main(*sys.argv[1:])
