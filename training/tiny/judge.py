"""The judge of generated clips: which colour, background, shape and motion a clip shows, by classical vision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy
import torch

from .shapes import BACKGROUNDS, COLORS, DIRECTIONS, SHAPES, Scene, coverage

ATTRIBUTES = ("color", "background", "shape", "motion")
NEAR = 50  # how far a colour may be from its palette entry, Euclidean in 0..255; the nearest two entries are 77 apart
VISIBLE = 40  # how far from the background a pixel must be to belong to the shape; the faintest pair is 102 apart
LEAST_AREA = 20  # pixels of foreground below which a frame counts as empty
LEAST_OVERLAP = 0.85  # intersection over union with the ideal outline, mean over the frames
# Area and centroid of each shape of radius 1: area, and how far the centroid lies below the bounding box's centre.
MOMENTS = {"circle": (numpy.pi, 0.0), "square": (4 * 0.9 * 0.9, 0.0), "triangle": (2 * 1.15, 1 / 3)}


@dataclass(frozen=True)
class Verdict:
    """What a clip shows; "none" where the judge recognises nothing."""

    color: str
    background: str
    shape: str
    motion: str

    def agrees(self, scene: Scene) -> dict[str, bool]:
        """Per attribute, whether it is what the scene asks for."""
        return {name: getattr(self, name) == getattr(scene, name) for name in ATTRIBUTES}


def judge(video: torch.Tensor | numpy.ndarray) -> Verdict:
    """What the clip [T, H, W, 3] in 0..1 shows.

    A clip of one frame has the motion "none". The shape must overlap its ideal outline by LEAST_OVERLAP on average;
    the motion must be steady and in one direction, or a change of size in place, or neither.
    """
    pixels = numpy.asarray(video, numpy.float32)
    if pixels.ndim != 4 or pixels.shape[-1] != 3 or 0 in pixels.shape:
        raise ValueError(f"video has the shape {tuple(pixels.shape)}; it must be [T, H, W, 3]")
    planes = 255 * numpy.ascontiguousarray(pixels.transpose(3, 0, 1, 2))  # much faster than an innermost axis of 3
    ground = numpy.median(_border(planes), axis=1)
    background = _nearest(ground, BACKGROUNDS)
    offset = planes - ground[:, None, None, None]
    distance = numpy.sqrt((offset * offset).sum(0))
    foreground = distance > VISIBLE
    # Where a frame is empty, nothing below can be measured.
    if (numpy.count_nonzero(foreground, axis=(1, 2)) < LEAST_AREA).any():
        return Verdict("none", background, "none", "none")
    core = foreground & (distance > 0.7 * numpy.percentile(distance[foreground], 90))
    fill = numpy.median(planes[:, core], axis=1)
    color = _nearest(fill, COLORS)
    if color == "none":
        return Verdict("none", background, "none", "none")
    direction = fill - ground
    mask = numpy.tensordot(direction, offset, 1) > 0.5 * float(direction @ direction)
    area = mask.sum((1, 2)).astype(numpy.float32)
    if (area < LEAST_AREA).any():
        return Verdict(color, background, "none", "none")
    height, width = mask.shape[1:]
    x = (mask.sum(1) @ (numpy.arange(width) + 0.5)) / area
    y = (mask.sum(2) @ (numpy.arange(height) + 0.5)) / area
    shape, y, radius = _shape(mask, area, x, y)
    return Verdict(color, background, shape, _motion(x, y, radius, min(height, width) / 64))


def _border(planes: numpy.ndarray) -> numpy.ndarray:
    sides = (planes[:, :, 0], planes[:, :, -1], planes[:, :, :, 0], planes[:, :, :, -1])
    return numpy.concatenate([side.reshape(3, -1) for side in sides], axis=1)


def _nearest(color: numpy.ndarray, palette: dict[str, tuple[int, int, int]]) -> str:
    distances = numpy.linalg.norm(numpy.array(list(palette.values())) - color, axis=1)
    best = int(distances.argmin())
    return list(palette)[best] if distances[best] <= NEAR else "none"


def _shape(mask: numpy.ndarray, area, x, y) -> tuple[str, numpy.ndarray, numpy.ndarray]:
    """The shape whose outline of the same area and centroid overlaps best, with its centre y and its radius [T]."""
    fits = []
    some = slice(None, None, 1 + len(mask) // 18)  # every second frame of a long clip is enough
    for shape in SHAPES:
        unit_area, below = MOMENTS[shape]
        radius = numpy.sqrt(area / unit_area)
        middle = y - below * radius
        ideal = coverage(shape, x[some], middle[some], radius[some], *mask.shape[1:]) > 0.5
        shared = numpy.count_nonzero(mask[some] & ideal, axis=(1, 2))
        either = numpy.count_nonzero(mask[some] | ideal, axis=(1, 2))
        fits.append((float((shared / either).mean()), shape, middle, radius))
    overlap, shape, middle, radius = max(fits, key=lambda fit: fit[0])
    return (shape if overlap >= LEAST_OVERLAP else "none"), middle, radius


def _motion(x: numpy.ndarray, y: numpy.ndarray, radius: numpy.ndarray, scale: float) -> str:
    """The motion of a centre and a radius over time, each fitted by a straight line; `scale` is 1 for 64 pixels."""
    frames = len(x)
    if frames == 1:
        return "none"
    time = numpy.linspace(-0.5, 0.5, frames)
    track = numpy.stack([x, y, radius], axis=1)
    mean = track.mean(0)
    change = time @ (track - mean) / (time @ time)  # over the whole clip
    jitter = (track - mean - time[:, None] * change).std(0).max()
    if jitter > 2.5 * scale:
        return "none"
    first, last = numpy.maximum(mean[2] + numpy.array([-0.5, 0.5]) * change[2], 0.5)
    growth = last / first
    travel = numpy.abs(change[:2])
    if travel.max() < 5 * scale:
        if growth > 1.4:
            return "grow"
        if growth < 1 / 1.4:
            return "shrink"
        return "still" if 1 / 1.2 < growth < 1.2 and travel.max() < 4 * scale else "none"
    if not 1 / 1.3 < growth < 1.3 or travel.max() < 8 * scale or travel.min() > 0.4 * travel.max():
        return "none"
    return max(DIRECTIONS, key=lambda name: float(change[:2] @ DIRECTIONS[name]))
