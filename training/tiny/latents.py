"""The training set of the tiny transformer: scenes rendered and encoded once, grouped by shape into buckets.

Each clip also brings "stills": the encodings that a lone image gets when an artist pins it to a frame, repeated over
its 17-frame chunk. They stand in for the clip's own latents where training keeps a frame.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy
import torch

from ...model.vaes.v1_2 import VideoVAE
from .. import checkpoints
from ..data.cache import stills_of
from .shapes import RESOLUTIONS, Scene, render_all, sample_scene


@dataclass
class Bucket:
    """Clips of one size and length: latents [N, 4, T, h, w], stills likewise with a bool [N, T] of where they exist."""

    height: int
    width: int
    num_frames: int
    latents: torch.Tensor
    stills: torch.Tensor
    has_still: torch.Tensor
    scenes: list[Scene] = field(repr=False)


@torch.no_grad()
def encode_bucket(
    vae: VideoVAE,
    rng: numpy.random.Generator,
    count: int,
    height: int,
    width: int,
    num_frames: int,
    split: str = "train",
    batch: int = 8,
) -> Bucket:
    """Render and encode `count` scenes of one size and length; `split` as `sample_scene` takes it."""
    parts: dict[str, list[torch.Tensor]] = {"latents": [], "stills": [], "has_still": []}
    scenes = []
    for start in range(0, count, batch):
        group = [sample_scene(rng, height, width, num_frames, split) for _ in range(min(batch, count - start))]
        video = render_all(group)
        flat = vae.encode_frames(video)
        z = vae.encode_latents(flat)
        stills, has_still = torch.zeros_like(z), torch.zeros(z.shape[0], z.shape[2], dtype=torch.bool)
        if num_frames > 1:
            places = {0, z.shape[2] - 1, int(rng.integers(z.shape[2]))}
            for index, still in stills_of(flat, vae.encode_latents, vae.counting, places).items():
                stills[:, :, index], has_still[:, index] = still, True
        parts["latents"].append(z)
        parts["stills"].append(stills)
        parts["has_still"].append(has_still)
        scenes += group
    return Bucket(height, width, num_frames, **{name: torch.cat(value) for name, value in parts.items()}, scenes=scenes)


# (frames, share of all clips); the square size, the default, gets half of each, the two others a quarter.
LENGTHS = ((17, 0.62), (34, 0.16), (51, 0.04), (1, 0.18))


def build(
    vae: VideoVAE,
    folder: Path,
    count: int = 8000,
    seed: int = 0,
    parts: tuple[int, int] = (0, 1),
    split: str = "train",
) -> None:
    """Encode about `count` clips into one file a bucket under `folder`, but for those that are there already.

    `parts` = (index, of) splits the buckets' clips over processes that each write their own files.
    """
    index, of = parts
    for frames, share in LENGTHS:
        for place, (height, width) in enumerate(RESOLUTIONS):
            path = folder / f"{frames}x{height}x{width}.{index}.pt"
            number = int(count * share * (0.5 if place == 0 else 0.25)) // of
            if path.exists() or not number:
                continue
            rng = numpy.random.default_rng((seed, index, frames, height, width))
            found = vars(encode_bucket(vae, rng, number, height, width, frames, split))
            checkpoints.write(path, partial(torch.save, found))
            print(f"encoded {number} clips of {frames} frames at {width}×{height}", flush=True)


def load(folder: Path) -> list[Bucket]:
    """All buckets under `folder`, clips of the same size and length joined."""
    buckets: dict[str, Bucket] = {}
    for path in sorted(folder.glob("*.pt")):
        # Our own files, with Scene objects in them: not weights from elsewhere.
        found = Bucket(**torch.load(path, weights_only=False))
        first = buckets.setdefault(path.name.split(".")[0], found)
        if first is not found:
            for name in ("latents", "stills", "has_still"):
                setattr(first, name, torch.cat([getattr(first, name), getattr(found, name)]))
            first.scenes += found.scenes
    return list(buckets.values())
