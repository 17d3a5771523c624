"""Trains the tiny video VAE: the 2D VAE on single frames, the temporal VAE on its latents, then both together."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from ...model.vaes.spatial import SPATIAL_FACTOR
from ...model.vaes.v1_2 import VideoVAE
from .painting import DECODED_FRAMES, NOISE, psnr, reconstruction_error
from .recipe import VAE
from .run import Run
from .shapes import RESOLUTIONS, render_all, sample_scene

STEPS = (760, 900, 600, 900)
Encoded = list[tuple[Tensor, tuple[int, int, int]]]  # batches of 2D latents, and the seeds that render their clips


def clips(
    rng: numpy.random.Generator,
    count: int,
    num_frames: int,
    split: str = "train",
    resolution: tuple[int, int] | None = None,
) -> Tensor:
    """A batch of rendered scenes, [count, 3, T, H, W] in -1…1, all of one resolution (drawn where not given)."""
    height, width = resolution or RESOLUTIONS[rng.integers(len(RESOLUTIONS))]
    scenes = [sample_scene(rng, height, width, num_frames, split) for _ in range(count)]
    return render_all(scenes)


def spatial_loss(vae: VideoVAE, frames: Tensor) -> tuple[Tensor, float]:
    """Edge-weighted L1 of single frames [N, 3, H, W] through the 2D VAE alone."""
    spatial = vae.spatial_vae["module"]
    mean, log_variance = spatial.encode(frames).chunk(2, dim=1)
    decoded = spatial.decode(mean + NOISE * torch.randn_like(mean))
    error = reconstruction_error(decoded, frames)
    return error + regulariser(mean, log_variance), psnr(decoded.detach(), frames)


def temporal_loss(vae: VideoVAE, flat: Tensor, frames: Tensor | None = None) -> tuple[Tensor, float]:
    """Error of 2D latents [B, 4, T, h, w] through the temporal VAE and, with `frames`, of the pixels they decode to."""
    temporal, T = vae.temporal_vae, flat.shape[2]
    mean, log_variance = temporal.encode(flat).chunk(2, dim=1)
    x = temporal.decode(mean + NOISE * torch.randn_like(mean), T)
    error = (x - flat) / SPATIAL_FACTOR
    loss = (error.abs() + 4 * error.square()).mean() + regulariser(mean, log_variance)
    if frames is None:
        return loss, 0.0
    keep = torch.randperm(T)[: min(T, DECODED_FRAMES)]
    target = frames[:, :, keep].transpose(1, 2).flatten(0, 1)
    decoded = vae.spatial_vae["module"].decode(x[:, :, keep].transpose(1, 2).flatten(0, 1) / SPATIAL_FACTOR)
    return 0.1 * loss + reconstruction_error(decoded, target), psnr(decoded.detach(), target)


def regulariser(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Keeps latents near unit scale and posteriors as narrow as the noise that decoding is trained to bear."""
    narrow = (log_variance - 2 * math.log(NOISE)).square().mean()
    return 1e-3 * (mean.square().mean() - 1).clamp(min=0) + 1e-5 * narrow


def chunk_length(rng: numpy.random.Generator) -> int:
    """Mostly full chunks; some single frames and partial chunks, so that any frame count decodes."""
    return int(rng.choice([17, 1, 4, 8, 12, 16], p=[0.8, 0.08, 0.03, 0.03, 0.03, 0.03]))


def train_spatial(vae: VideoVAE, folder: Path, steps: int, batch: int, seed: int) -> None:
    """Single frames through the 2D VAE."""
    run = Run(folder, vae, steps=steps, learning_rate=3e-3, matrix_rate=0.02)
    for step in run:
        rng = numpy.random.default_rng((seed, step))
        loss, quality = spatial_loss(vae, clips(rng, batch, 1)[:, :, 0])
        run.update(loss, psnr=quality)
    run.settle()


@torch.no_grad()
def encode_clips(vae: VideoVAE, count: int, seed: int, batch: int = 12) -> Encoded:
    """2D latents of `count` training clips: (flat [batch, 4, 17, h, w], the generator's seed to render them again)."""
    found = []
    for index in range(count // batch):
        video = clips(numpy.random.default_rng((seed, 1, index)), batch, 17)
        found.append((vae.encode_frames(video), (seed, 1, index)))
    return found


def train_temporal(vae: VideoVAE, folder: Path, clips_encoded: Encoded, steps: int, batch: int, seed: int) -> None:
    """The temporal VAE between the 2D VAE's latents, which no longer change."""
    run = Run(folder, vae.temporal_vae, steps=steps, learning_rate=3e-3, matrix_rate=0.02)
    for step in run:
        rng = numpy.random.default_rng((seed, 2, step))
        flat = clips_encoded[rng.integers(len(clips_encoded))][0]
        rows = torch.from_numpy(rng.permutation(len(flat))[:batch])
        loss, _ = temporal_loss(vae, flat[rows, :, : chunk_length(rng)])
        run.update(loss)
    run.settle()


def train_together(
    vae: VideoVAE, folder: Path, clips_encoded: Encoded, steps: int, batch: int, seed: int, decoders_only: bool = False
) -> None:
    """The temporal VAE and the 2D decoder on pixels; the 2D encoder stays, so that encoded clips stay valid.

    With `decoders_only` the temporal encoder stays too, at a lower rate: latents no longer change, so a transformer
    can be trained on them meanwhile.
    """
    frozen = [vae.spatial_vae["module"].encoder, vae.spatial_vae["module"].quant_conv]
    if decoders_only:
        frozen += [vae.temporal_vae.encoder, vae.temporal_vae.quant_conv]
    vae.requires_grad_(True)
    for part in frozen:
        part.requires_grad_(False)
    rates: dict[str, Any] = (
        {"learning_rate": 5e-4, "matrix_rate": 0.002}
        if decoders_only
        else {"learning_rate": 1e-3, "matrix_rate": 0.006}
    )
    run = Run(folder, vae, steps=steps, **rates)
    for step in run:
        rng = numpy.random.default_rng((seed, 4 if decoders_only else 3, step))
        flat, scene_seed = clips_encoded[rng.integers(len(clips_encoded))]
        video = clips(numpy.random.default_rng(scene_seed), len(flat), 17)
        rows, length = torch.from_numpy(rng.permutation(len(flat))[:batch]), chunk_length(rng)
        loss, quality = temporal_loss(vae, flat[rows, :, :length], video[rows, :, :length])
        run.update(loss, psnr=quality)
    run.settle()


def train_vae(
    folder: str | os.PathLike,
    steps: Sequence[int] | None = None,
    batch: int = 16,
    seed: int = 0,
    clip_count: int = 1800,
) -> VideoVAE:
    """Train (or go on training) and return the averaged module, its shift and scale measured on training clips.

    `steps`: of the four stages, single frames, temporal VAE alone, both together, decoders alone.
    """
    steps = steps or STEPS
    folder = Path(folder)
    torch.manual_seed(seed)
    vae = VideoVAE(VAE)
    train_spatial(vae, folder / "spatial", steps[0], batch, seed)
    clips_encoded = encode_clips(vae, clip_count, seed)
    train_temporal(vae, folder / "temporal", clips_encoded, steps[1], batch // 4, seed)
    print(f"held-out PSNR after the temporal VAE alone: {held_out_psnr(vae):.2f} dB", flush=True)
    train_together(vae, folder / "together", clips_encoded, steps[2], batch // 4, seed)
    print(f"held-out PSNR after both together: {held_out_psnr(vae):.2f} dB", flush=True)
    train_together(vae, folder / "decoders", clips_encoded, steps[3], batch // 4, seed, decoders_only=True)
    vae.eval().requires_grad_(False)
    measure_normalisation(vae, numpy.random.default_rng((seed, 1 << 40)))
    return vae


@torch.no_grad()
def held_out_psnr(vae: VideoVAE, count: int = 24, num_frames: int = 17) -> float:
    """PSNR of whole held-out clips through encode (mode) and decode."""
    rng = numpy.random.default_rng(123)
    scores = []
    for resolution in RESOLUTIONS:
        video = clips(rng, max(1, count // 3), num_frames, "held_out", resolution)
        scores.append(psnr(vae.decode(vae.encode(video), num_frames), video))
    return sum(scores) / len(scores)


@torch.no_grad()
def measure_normalisation(vae: VideoVAE, rng: numpy.random.Generator, count: int = 96) -> None:
    """Set shift and scale so that training latents have zero mean and unit variance in every channel."""
    vae.shift.zero_()  # type: ignore[operator]
    vae.scale.fill_(1.0)  # type: ignore[operator]
    z = torch.cat([vae.encode(clips(rng, count // 3, 17, resolution=r)).flatten(2) for r in RESOLUTIONS], dim=2)
    vae.shift.copy_(z.mean((0, 2)).view_as(vae.shift))  # type: ignore[operator, arg-type]
    vae.scale.copy_(z.std((0, 2)).view_as(vae.scale))  # type: ignore[operator, arg-type]
