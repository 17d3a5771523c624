"""The procedural world of the tiny model: one coloured shape that moves on a plain background."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy
import torch

COLORS = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 220),
    "yellow": (240, 210, 40),
    "purple": (150, 50, 190),
    "orange": (245, 135, 25),
}
BACKGROUNDS = {"white": (240, 240, 240), "black": (18, 18, 18), "gray": (128, 128, 128), "pink": (250, 180, 200)}
SHAPES = ("circle", "square", "triangle")
MOTIONS = ("left", "right", "up", "down", "still", "grow", "shrink")
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
RESOLUTIONS = ((64, 64), (48, 80), (80, 48))  # height, width
FRAME_COUNTS = (1, 17, 34)

# Half width and half height of each shape's bounding box for radius 1. The three look about equally large.
EXTENTS = {"circle": (1.0, 1.0), "square": (0.9, 0.9), "triangle": (1.15, 1.0)}
MARGIN = 1.5  # pixels that stay free between the shape and the frame's border
CENTRAL = 0.6  # of the free room is used for the place at which a shape starts, around its middle


@dataclass(frozen=True)
class Scene:
    """One clip's description. Lengths are in pixels, y points down; `center` and `size` belong to the first frame.

    `size` is the radius of the circle (EXTENTS gives the other shapes' proportions). `speed` is in pixels per frame:
    of the centre along the motion's direction, or of the radius for grow and shrink; 0 for still. A scene of one
    frame is an image and has the motion "none".
    """

    shape: str
    color: str
    background: str
    motion: str
    size: float
    center: tuple[float, float]  # x, y
    speed: float
    height: int
    width: int
    num_frames: int

    def path(self) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
        """Centre x, centre y and radius of each frame, three arrays [T]."""
        distance = self.speed * numpy.arange(self.num_frames, dtype=numpy.float32)
        step_x, step_y = DIRECTIONS.get(self.motion, (0, 0))
        growth = {"grow": 1, "shrink": -1}.get(self.motion, 0)
        return self.center[0] + step_x * distance, self.center[1] + step_y * distance, self.size + growth * distance


def is_held_out(color: str, shape: str, motion: str) -> bool:
    """Whether training never sees this combination: 16 of the 126, spread so that each pair of values stays covered."""
    return (list(COLORS).index(color) + 3 * SHAPES.index(shape) + 5 * MOTIONS.index(motion)) % 8 == 0


_TRIPLES = [(color, shape, motion) for color in COLORS for shape in SHAPES for motion in MOTIONS]
COMBINATIONS = {
    "train": [triple for triple in _TRIPLES if not is_held_out(*triple)],
    "held_out": [triple for triple in _TRIPLES if is_held_out(*triple)],
}


def sample_scene(
    rng: numpy.random.Generator, height: int = 64, width: int = 64, num_frames: int = 17, split: str = "train"
) -> Scene:
    """A random scene whose shape stays wholly inside the frame; `split` ("train" or "held_out") limits combinations.

    The proportions follow min(height, width) / 64: radius 11 to 16, travel over the clip 14 to 30 (16 to 43 for clips
    of more than 17 frames, less where the frame is too small), or a radius that changes by a factor of 1.75 to 2.2.
    Places keep to the middle of the room that is left: composed as one would compose a picture.
    """
    if split not in COMBINATIONS:
        raise ValueError(f"split is {split!r}; it must be 'train' or 'held_out'")
    triples = COMBINATIONS[split]
    color, shape, motion = triples[rng.integers(len(triples))]
    background = list(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))]
    scale = min(height, width) / 64
    steps = max(num_frames - 1, 1)
    if num_frames == 1:
        motion = "none"
    speed = 0.0
    if motion in ("grow", "shrink"):
        small = scale * rng.uniform(8.5, 11)
        largest = small * rng.uniform(1.75, 2.2)
        size = small if motion == "grow" else largest
        speed = (largest - small) / steps
    else:
        size = largest = scale * rng.uniform(11, 16)
    # The box in which the first centre may lie: the frame less the shape, the margin and, ahead, the travel.
    low = numpy.array(EXTENTS[shape]) * largest + MARGIN
    high = numpy.array([width, height]) - low
    if motion in DIRECTIONS:
        direction = numpy.array(DIRECTIONS[motion])
        room = float((high - low) @ abs(direction))
        shortest, longest = (14.0, 30.0) if num_frames <= 17 else (16.0, 43.0)
        longest = min(scale * longest, room)
        travel = rng.uniform(min(scale * shortest, longest), longest)
        speed = travel / steps
        low = low + travel * (direction < 0)
        high = high - travel * (direction > 0)
    high = numpy.maximum(high, low)
    middle, reach = (low + high) / 2, CENTRAL * (high - low) / 2
    x, y = rng.uniform(middle - reach, middle + reach)
    center = (float(x), float(y))
    return Scene(shape, color, background, motion, float(size), center, float(speed), height, width, num_frames)


def coverage(
    shape: str,
    x: float | numpy.ndarray,
    y: float | numpy.ndarray,
    radius: float | numpy.ndarray,
    height: int,
    width: int,
) -> numpy.ndarray:
    """How much of each pixel the shape covers, 0 to 1: [N, H, W] for centres and radii of shape [N].

    One minus the signed distance to the outline, clipped: an edge one pixel wide, without jaggies.
    """
    x, y, radius = (numpy.asarray(value, numpy.float32).reshape(-1, 1, 1) for value in (x, y, radius))
    dx = (numpy.arange(width, dtype=numpy.float32) + 0.5) - x  # [N, 1, W]
    dy = (numpy.arange(height, dtype=numpy.float32) + 0.5)[:, None] - y  # [N, H, 1]
    half_width, half_height = EXTENTS[shape][0] * radius, EXTENTS[shape][1] * radius
    if shape == "circle":
        distance = numpy.sqrt(dx * dx + dy * dy) - radius
    elif shape == "square":
        distance = numpy.maximum(abs(dx) - half_width, abs(dy) - half_height)
    else:
        # The two slanted sides mirror each other; the apex is the middle of the upper side of the bounding box.
        slope_x, slope_y = 2 * EXTENTS[shape][1], EXTENTS[shape][0]
        length = numpy.hypot(slope_x, slope_y)
        slanted = abs(dx) * (slope_x / length) - (dy + half_height) * (slope_y / length)
        distance = numpy.maximum(slanted, dy - half_height)
    return numpy.clip(0.5 - distance, 0, 1)


def render(scene: Scene) -> torch.Tensor:
    """The scene's frames, float32 [T, H, W, 3] in 0..1."""
    color = numpy.array(COLORS[scene.color], numpy.float32) / 255
    background = numpy.array(BACKGROUNDS[scene.background], numpy.float32) / 255
    mask = coverage(scene.shape, *scene.path(), scene.height, scene.width)
    frames = numpy.empty((*mask.shape, 3), numpy.float32)
    for channel in range(3):  # twice as fast as broadcasting over an axis of 3
        frames[..., channel] = mask * (color[channel] - background[channel]) + background[channel]
    return torch.from_numpy(frames)


def render_all(scenes: Iterable[Scene]) -> torch.Tensor:
    """The frames of scenes of one size and length as the networks take them, [B, 3, T, H, W] in -1..1."""
    return torch.stack([render(scene) for scene in scenes]).permute(0, 4, 1, 2, 3) * 2 - 1
