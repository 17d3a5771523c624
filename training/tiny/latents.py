"""The training set of the tiny transformer: scenes rendered and encoded once, grouped by shape into buckets.

Each clip also brings "stills": the encodings that a lone image gets when an artist pins it to a frame, repeated over
its 17-frame chunk. They stand in for the clip's own latents where training keeps a frame.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy
import torch

from ...model.pins import pieces
from ...model.vaes.v1_2 import VideoVAE
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
    vae: VideoVAE, rng: numpy.random.Generator, count: int, height: int, width: int, num_frames: int, batch: int = 8
) -> Bucket:
    """Render and encode `count` training scenes of one size and length."""
    parts: dict[str, list[torch.Tensor]] = {"latents": [], "stills": [], "has_still": []}
    scenes, groups = [], vae.counting.groups(num_frames)
    for start in range(0, count, batch):
        group = [sample_scene(rng, height, width, num_frames) for _ in range(min(batch, count - start))]
        video = render_all(group)
        flat = vae.encode_frames(video)
        z = vae.encode_latents(flat)
        stills, has_still = torch.zeros_like(z), torch.zeros(z.shape[0], z.shape[2], dtype=torch.bool)
        if num_frames > 1:
            for latent in {0, z.shape[2] - 1, int(rng.integers(z.shape[2]))}:
                frame = groups[latent].stop - 1
                for images, wanted in pieces(groups, frame, 1, vae.counting.chunk_latents):
                    chunk = vae.encode_latents(flat[:, :, frame + images])
                    for index, at in wanted.items():
                        stills[:, :, index], has_still[:, index] = chunk[:, :, at], True
        parts["latents"].append(z)
        parts["stills"].append(stills)
        parts["has_still"].append(has_still)
        scenes += group
    return Bucket(height, width, num_frames, **{name: torch.cat(value) for name, value in parts.items()}, scenes=scenes)


# (frames, share of all clips); the square size, the default, gets half of each, the two others a quarter.
LENGTHS = ((17, 0.62), (34, 0.16), (51, 0.04), (1, 0.18))


def build(
    vae: VideoVAE, folder: str | os.PathLike, count: int = 8000, seed: int = 0, parts: tuple[int, int] = (0, 1)
) -> None:
    """Encode `count` clips into one file a bucket under `folder`, but for those that are there already.

    `parts` = (index, of) splits the buckets' clips over processes that each write their own files.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    index, of = parts
    for frames, share in LENGTHS:
        for place, (height, width) in enumerate(RESOLUTIONS):
            path = folder / f"{frames}x{height}x{width}.{index}.pt"
            if path.exists():
                continue
            number = int(count * share * (0.5 if place == 0 else 0.25)) // of
            rng = numpy.random.default_rng((seed, index, frames, height, width))
            bucket = encode_bucket(vae, rng, number, height, width, frames)
            temporary = path.with_suffix(".tmp")
            torch.save(vars(bucket), temporary)
            temporary.replace(path)
            print(f"encoded {number} clips of {frames} frames at {width}×{height}", flush=True)


def load(folder: str | os.PathLike) -> list[Bucket]:
    """All buckets under `folder`, clips of the same size and length joined."""
    groups: dict[str, list[Bucket]] = {}
    for path in sorted(Path(folder).glob("*.pt")):
        # Our own files, with Scene objects in them: not weights from elsewhere.
        groups.setdefault(path.name.split(".")[0], []).append(Bucket(**torch.load(path, weights_only=False)))
    buckets = []
    for same in groups.values():
        first = same[0]
        first.latents = torch.cat([bucket.latents for bucket in same])
        first.stills = torch.cat([bucket.stills for bucket in same])
        first.has_still = torch.cat([bucket.has_still for bucket in same])
        first.scenes = [scene for bucket in same for scene in bucket.scenes]
        buckets.append(first)
    return buckets
