"""Second phase of the tiny VAE: end to end on what it paints worst, its latents held near what they were.

The first phase trains the 2D encoder on single frames of all kinds alike, and loses large shapes that are as bright as
their background. Held near, a transformer that was trained on the old latents needs only little to follow.

Clips also come in as the VAE itself painted them: artists chain nodes, and what was decoded is encoded again when a
clip is edited, extended or looped. Such a clip is to get the latents of the clip that it shows.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy
import torch

from ...model.vaes.v1_2 import VideoVAE
from .hardest import Hardest
from .painting import NOISE, decibels, paint, painting_loss, reconstruction_error
from .run import fit
from .shapes import RESOLUTIONS, render_all, sample_scene

SQUARE = (0.6, 0.2, 0.2)  # the share of each resolution: the square one is the default
ANCHOR = 0.1  # weight of the squared distance from the old latents
IMAGES = 0.12  # of the steps see single frames, eight at a time
STILLS = 0.12  # of the steps see one frame of each clip repeated, as a picture that is pinned is encoded
PAINTED = 0.5  # of the steps see their clips as the VAE painted them
CANDIDATES = 16  # scenes from which those of a step are chosen


def refine(folder: Path, vae: VideoVAE, steps: int = 1200, batch: int = 2, seed: int = 77) -> VideoVAE:
    """The VAE, averaged weights; its shift and scale stay as they are."""
    old, hardest = copy.deepcopy(vae).eval().requires_grad_(False), Hardest()

    def loss_of(rng: numpy.random.Generator) -> tuple[torch.Tensor, dict[str, Any]]:
        height, width = RESOLUTIONS[rng.choice(len(RESOLUTIONS), p=SQUARE)]
        image = rng.random() < IMAGES
        candidates = [sample_scene(rng, height, width, 1 if image else 17) for _ in range(CANDIDATES)]
        scenes = [candidates[index] for index in hardest.choose(candidates, 8 if image else batch, rng)]
        frames = render_all(scenes)
        if rng.random() < STILLS:
            frames = frames[:, :, rng.integers(frames.shape[2]), None].expand_as(frames)
        with torch.no_grad():
            before = old.encode(frames)
            shown = paint(vae, before, frames.shape[2], rng) if rng.random() < PAINTED else frames
        latents = vae.encode(shown)
        noisy = latents + NOISE * torch.randn_like(latents)
        if image:
            decoded = vae.decode(noisy, 1)
            loss, errors = reconstruction_error(decoded[:, :, 0], frames[:, :, 0]), (decoded.detach() - frames).square()
            errors = errors.mean((1, 2, 3, 4))
        else:
            loss, errors = painting_loss(vae, noisy, frames)
            hardest.saw(scenes, errors)
        moved = (latents - before).square().mean()
        return loss + ANCHOR * moved, {"psnr": decibels(errors).mean(), "moved": moved.detach()}

    rates: dict[str, Any] = {"learning_rate": 4e-4, "muon_rate": 0.002, "ema": 0.995}
    return fit(folder, vae, loss_of, steps, memory=hardest.errors, seed=seed, **rates)
