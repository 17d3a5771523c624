"""The colours of previews: a small network fitted on what the finished files sample and decode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
import torch.nn.functional as F
from torch import nn

from ...model.colors import ColorNetwork, colors_behind, fit_colors
from ...model.vaes.v1_2 import VideoVAE
from .captions import caption
from .pipeline import Pipeline, Trial
from .run import fit, kept
from .shapes import FRAME_COUNTS, RESOLUTIONS, sample_scene

KEYS = ("latent_rgb_factors", "latent_rgb_factors_bias", "latent_rgb_mixing")  # of the files' metadata
HIDDEN = 32
BATCH = 16
IMAGE, CLIP, LONG = FRAME_COUNTS
# What is sampled in turn, frames and size: mostly what the model is made for.
KINDS = [(CLIP, *RESOLUTIONS[0])] * 7 + [(CLIP, *size) for size in RESOLUTIONS[1:]]
KINDS += [(LONG, *RESOLUTIONS[0]), (IMAGE, *RESOLUTIONS[0])]


@torch.no_grad()
def preview_colors(vae: VideoVAE, latents: torch.Tensor) -> dict[str, Any]:
    """What a preview needs to know, fitted on what latents [N, C, T, h, w] decode to: entries of the metadata."""
    frames = vae.counting.video_frames(latents.shape[2])
    return dict(zip(KEYS, fit_colors(latents, vae.decode(latents, frames), vae.counting.groups(frames))))


def fit_network(
    folder: Path,
    pipeline: Pipeline,
    factors: Sequence[Sequence[float]],
    bias: Sequence[float],
    clips: int = 704,
    steps: int = 6000,
    seed: int = 3,
) -> ColorNetwork:
    """A ColorNetwork for latents whose colours are read by `factors` and `bias` (`model.colors.fit_colors`).

    Args:
        folder: where the run is kept.
        pipeline: a `pipeline.Pipeline` of the finished files.
        clips: how many to sample from captions of the training's scenes.
        steps: each on one batch of clips of a kind.
    """
    torch.manual_seed(seed)
    network = ColorNetwork(len(factors), HIDDEN)
    network.out = nn.Conv3d(HIDDEN, 3, 1)  # colours, until they are learned
    batches = kept(folder / "sampled.pt", lambda: sampled(pipeline, clips, numpy.random.default_rng(seed)))

    def loss_of(rng: numpy.random.Generator) -> tuple[torch.Tensor, dict[str, Any]]:
        latents, colors = batches[rng.integers(len(batches))]
        return F.mse_loss(network(latents), colors), {}

    network = fit(folder, network, loss_of, steps, 1e-2, weight_decay=1e-2, ema=0.0, seed=seed)
    network.out = as_latents(network.out, torch.tensor(factors), torch.tensor(bias))
    return network


@torch.no_grad()
def as_latents(colors: nn.Conv3d, factors: torch.Tensor, bias: torch.Tensor) -> nn.Conv3d:
    """A last layer that gives colours [3], as one that gives latents [C] whose colours these are."""
    inverse = torch.linalg.pinv(factors)
    out = nn.Conv3d(HIDDEN, len(factors), 1)
    out.weight.copy_(torch.einsum("oi...,oc->ci...", colors.weight, inverse))
    out.bias.copy_((colors.bias - bias) @ inverse)  # type: ignore[union-attr, operator]
    return out


def sampled(pipeline: Pipeline, clips: int, rng: numpy.random.Generator) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """[(latents [B, C, T, h, w], the colours behind them [B, 3, T, h, w])] of at least so many clips."""
    batches: list[tuple[torch.Tensor, torch.Tensor]] = []
    batch = min(BATCH, clips)
    while batch * len(batches) < clips:
        frames, height, width = KINDS[len(batches) % len(KINDS)]
        scenes = [sample_scene(rng, height, width, frames) for _ in range(batch)]
        latents = pipeline.sample([Trial(scene, caption(scene, rng), int(rng.integers(2**31))) for scene in scenes])
        with torch.no_grad():
            video = pipeline.vae.decode(latents, frames)
        batches.append((latents, colors_behind(latents, video, pipeline.vae.counting.groups(frames))))
    return batches
