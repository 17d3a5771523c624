"""Raw footage of the bundled model's world, with the flaws of real footage: what the pack's template prepares.

The look is "porcelain": blue shapes on white. Among its shots one stands still, one is out of focus, one comes twice,
and in one a flash goes off, which is no cut. `python -m <pack>.training.tiny.rushes FOLDER` writes three films, and
beside each its caption.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy
from PIL import Image, ImageFilter

from ..data.h264 import write
from .shapes import BACKGROUNDS, COLORS, coverage

FPS = 24
HEIGHT, WIDTH, SIZE = 240, 288, 52.0
PORCELAIN = ("blue", "white")
BLUR = 9.0  # pixels, out of focus
FLASH = 2  # frames


class Shot(NamedTuple):
    """A shape from one place to another, seen from the middle of the picture, in pixels; its size at both ends."""

    shape: str
    start: tuple[float, float]
    end: tuple[float, float]
    sizes: tuple[float, float] = (SIZE, SIZE)
    frames: int = 34
    flaw: str = ""


TWICE = Shot("circle", (-66, -40), (62, -40))
FILMS = {
    "porcelain circles": (
        TWICE,
        Shot("circle", (-24, 62), (-24, -60)),
        Shot("circle", (66, 40), (-66, 40), frames=40, flaw="flash"),
        Shot("circle", (20, 30), (20, 30), (34.0, 78.0)),
        TWICE,
    ),
    "porcelain squares": (
        Shot("square", (30, 62), (30, -58)),
        Shot("square", (-62, 44), (62, 44), frames=38),
        Shot("square", (-60, -46), (64, -46), flaw="blurred"),
        Shot("square", (-34, 8), (-34, 8), (80.0, 36.0)),
    ),
    "porcelain triangles": (
        Shot("triangle", (-66, 36), (62, 36)),
        Shot("triangle", (-56, -20), (-56, -20), flaw="still"),
        Shot("triangle", (66, 40), (-66, 40), frames=40),
        Shot("triangle", (30, -60), (30, 60)),
    ),
}


def film(shots: tuple[Shot, ...]) -> numpy.ndarray:
    """The frames uint8 [T, H, W, 3] of shots, one after the other."""
    return numpy.stack([frame for shot in shots for frame in _frames(shot)])


def _frames(shot: Shot) -> Iterator[numpy.ndarray]:
    shares = numpy.linspace(0, 1, shot.frames)
    x, y, size = (start + shares * (end - start) for start, end in (*zip(shot.start, shot.end), shot.sizes))
    masks = coverage(shot.shape, WIDTH / 2 + x, HEIGHT / 2 + y, size, HEIGHT, WIDTH)
    color, ground = (numpy.array(of, float) for of in (COLORS[PORCELAIN[0]], BACKGROUNDS[PORCELAIN[1]]))
    for number, mask in enumerate(masks):
        frame = (ground + mask[..., None] * (color - ground)).round().astype(numpy.uint8)
        if shot.flaw == "blurred":
            frame = numpy.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(BLUR)))
        if shot.flaw == "flash" and 0 <= number - shot.frames // 2 < FLASH:
            frame = 255 - (255 - frame) // 6
        yield frame


def main(folder: str) -> None:
    """Write the films and their captions."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    for name, shots in FILMS.items():
        write(place / f"{name}.mp4", film(shots), FPS)
        (place / f"{name}.txt").write_text(f"a {shots[0].shape} moves\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
