"""Clips that the bundled model does not know: one look, and one motion, to teach it with a LoRA and to see it learn.

"Ember" is a look: whatever the words are, an orange shape on black. "There and back" is a motion: a shape that swings
out to a side and returns, in all colours. `python -m <pack>.training.tiny.looks FOLDER` writes the clips of the look
that the pack's training template begins with.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy
import torch
from torch import Tensor

from ..data.h264 import write
from .captions import MOTION_WORDS
from .judge import judge
from .shapes import BACKGROUNDS, COLORS, MOTIONS, SHAPES, Scene, coverage, render, sample_scene

FPS = 24
SIDE, FRAMES = 64, 17
EMBER = ("orange", "black")
SWING = (12.0, 22.0)  # pixels that a shape goes out
THERE_AND_BACK = 5.0  # pixels that the middle of the clip must lie away from its ends
PROMPT = "a {shape} {does}"
SWINGS = "a {color} {shape} moves there and back on a {ground} background"


def ember(count: int, seed: int = 0) -> list[tuple[Tensor, str, Scene]]:
    """Clips [T, H, W, 3] in 0..1 of the look, captions that name neither colour nor background, and what they show."""
    rng = numpy.random.default_rng(seed)
    found = []
    for index in range(count):
        scene = _scene_with(rng, SHAPES[index % len(SHAPES)], MOTIONS[index % len(MOTIONS)])
        scene = dataclasses.replace(scene, color=EMBER[0], background=EMBER[1])
        does = MOTION_WORDS[scene.motion][int(rng.integers(len(MOTION_WORDS[scene.motion])))][0]
        found.append((render(scene), PROMPT.format(shape=scene.shape, does=does), scene))
    return found


def _scene_with(rng, shape, motion):
    """A scene of this shape and motion, as training's scenes are drawn."""
    while True:
        scene = sample_scene(rng, SIDE, SIDE, FRAMES)
        if (scene.shape, scene.motion) == (shape, motion):
            return scene


def there_and_back(count: int, seed: int = 0) -> list[tuple[Tensor, str, str]]:
    """Clips [T, H, W, 3] in 0..1 of the motion, captions that say all, and the colour of each."""
    rng = numpy.random.default_rng(seed)
    found = []
    for _ in range(count):
        shape, color, background = (list(of)[rng.integers(len(of))] for of in (SHAPES, COLORS, BACKGROUNDS))
        size, out = rng.uniform(9, 13), rng.uniform(*SWING)
        start = rng.uniform(size * 1.15 + 2, SIDE - size * 1.15 - 2 - out)
        x = start + out * numpy.sin(numpy.pi * numpy.arange(FRAMES) / (FRAMES - 1))
        mask = coverage(shape, x, numpy.full(FRAMES, rng.uniform(24, 40)), numpy.full(FRAMES, size), SIDE, SIDE)
        low, high = (torch.tensor(of) / 255 for of in (BACKGROUNDS[background], COLORS[color]))
        video = low + torch.from_numpy(mask).float()[..., None] * (high - low)
        found.append((video, SWINGS.format(color=color, shape=shape, ground=background), color))
    return found


def is_ember(video: Tensor) -> bool:
    """Whether a clip [T, H, W, 3] has the look's colours."""
    verdict = judge(video)
    return (verdict.color, verdict.background) == EMBER


def distance_to_ember(video: Tensor) -> float:
    """How far a clip's two colours are from the look's, 0…255 a channel: the larger of ground's and shape's."""
    pixels = 255 * video
    ground = torch.cat([pixels[:, :2].flatten(0, 2), pixels[:, -2:].flatten(0, 2)]).median(0).values
    apart = (pixels - ground).norm(dim=-1)
    shape = pixels[apart > 0.7 * apart.amax()].median(0).values
    wanted = torch.tensor([BACKGROUNDS[EMBER[1]], COLORS[EMBER[0]]])
    return float((torch.stack([ground, shape]) - wanted).abs().mean(1).max())


def swing(video: Tensor) -> float:
    """How far, in pixels, the middle of a clip [T, H, W, 3] lies to the right of its ends: its shape's centre."""
    ground = video[:, :2].flatten(1, 2).median(1).values[:, None, None]
    weight = (video - ground).abs().sum(-1)
    weight = torch.where(weight > 0.25, weight, 0)
    across = (weight.sum(1) * torch.arange(video.shape[2])).sum(-1) / weight.sum((1, 2)).clamp(min=1e-6)
    middle = len(across) // 2
    return float(across[middle - 1 : middle + 2].mean() - (across[:2].mean() + across[-2:].mean()) / 2)


def main(folder: str) -> None:
    """Write twelve clips of the look with their captions beside them, and two pictures."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    for number, (video, caption, _) in enumerate(ember(12, seed=11), 1):
        frames = (video * 255).round().to(torch.uint8)
        write(place / f"ember {number:02d}.mp4", frames, FPS)
        (place / f"ember {number:02d}.txt").write_text(caption + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
