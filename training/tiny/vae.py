"""Trains the tiny video VAE: the 2D VAE on single frames, the temporal VAE on its latents, then both together."""

from __future__ import annotations

import math
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
from .run import fit, kept
from .shapes import RESOLUTIONS, render_all, sample_scene

STEPS = (760, 900, 600, 900)
BATCH = 12  # clips that are rendered and encoded together
Loss = tuple[Tensor, dict[str, float]]  # what is learned from, and what the log is to know


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


def spatial_loss(vae: VideoVAE, frames: Tensor) -> Loss:
    """Edge-weighted L1 of single frames [N, 3, H, W] through the 2D VAE alone."""
    spatial = vae.spatial_vae["module"]
    mean, log_variance = spatial.encode(frames).chunk(2, dim=1)
    decoded = spatial.decode(mean + NOISE * torch.randn_like(mean))
    error = reconstruction_error(decoded, frames)
    return error + regulariser(mean, log_variance), {"psnr": psnr(decoded.detach(), frames)}


def temporal_loss(vae: VideoVAE, flat: Tensor, frames: Tensor | None = None) -> Loss:
    """Error of 2D latents [B, 4, T, h, w] through the temporal VAE and, with `frames`, of the pixels they decode to."""
    temporal, T = vae.temporal_vae, flat.shape[2]
    mean, log_variance = temporal.encode(flat).chunk(2, dim=1)
    x = temporal.decode(mean + NOISE * torch.randn_like(mean), T)
    error = (x - flat) / SPATIAL_FACTOR
    loss = (error.abs() + 4 * error.square()).mean() + regulariser(mean, log_variance)
    if frames is None:
        return loss, {}
    keep = torch.randperm(T)[: min(T, DECODED_FRAMES)]
    target = frames[:, :, keep].transpose(1, 2).flatten(0, 1)
    decoded = vae.spatial_vae["module"].decode(x[:, :, keep].transpose(1, 2).flatten(0, 1) / SPATIAL_FACTOR)
    return 0.1 * loss + reconstruction_error(decoded, target), {"psnr": psnr(decoded.detach(), target)}


def regulariser(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Keeps latents near unit scale and posteriors as narrow as the noise that decoding is trained to bear."""
    narrow = (log_variance - 2 * math.log(NOISE)).square().mean()
    return 1e-3 * (mean.square().mean() - 1).clamp(min=0) + 1e-5 * narrow


def chunk_length(rng: numpy.random.Generator) -> int:
    """Mostly full chunks; some single frames and partial chunks, so that any frame count decodes."""
    return int(rng.choice([17, 1, 4, 8, 12, 16], p=[0.8, 0.08, 0.03, 0.03, 0.03, 0.03]))


def rendered(seed: int, index: int) -> Tensor:
    """The clips of batch `index`, rendered whenever they are wanted: [BATCH, 3, 17, H, W]."""
    return clips(numpy.random.default_rng((seed, 1, index)), BATCH, 17)


def train_vae(
    folder: Path, steps: Sequence[int] = STEPS, batch: int = 16, seed: int = 0, clip_count: int = 1800
) -> VideoVAE:
    """Train (or go on training) and return the averaged module, its shift and scale measured on training clips.

    `steps`: of the four stages, single frames, temporal VAE alone, both together, decoders alone.
    """
    torch.manual_seed(seed)
    vae = VideoVAE(VAE)
    spatial, temporal = vae.spatial_vae["module"], vae.temporal_vae

    def single_frames(rng: numpy.random.Generator) -> Loss:
        return spatial_loss(vae, clips(rng, batch, 1)[:, :, 0])

    def latents_alone(rng: numpy.random.Generator) -> Loss:
        flat = encoded[rng.integers(len(encoded))]
        return temporal_loss(vae, flat[rng.permutation(len(flat))[: batch // 4], :, : chunk_length(rng)])

    def pixels(rng: numpy.random.Generator) -> Loss:
        index, length = int(rng.integers(len(encoded))), chunk_length(rng)
        rows = rng.permutation(len(encoded[index]))[: batch // 4]
        video = rendered(seed, index)[rows, :, :length]
        return temporal_loss(vae, encoded[index][rows, :, :length], video)

    rates: dict[str, Any] = {"learning_rate": 3e-3, "muon_rate": 0.02}
    fit(folder / "spatial", vae, single_frames, steps[0], seed=seed, **rates)
    with torch.no_grad():
        count = max(1, clip_count // BATCH)
        encoded = kept(folder / "encoded.pt", lambda: [vae.encode_frames(rendered(seed, i)) for i in range(count)])
    fit(folder / "temporal", temporal, latents_alone, steps[1], seed=seed, **rates)
    # The 2D encoder stays, so that encoded clips stay valid.
    painters = [spatial.post_quant_conv, spatial.decoder, temporal.post_quant_conv, temporal.decoder]
    parts = [*painters, temporal.encoder, temporal.quant_conv]
    fit(folder / "together", vae, pixels, steps[2], 1e-3, muon_rate=0.006, parts=parts, seed=seed)
    # Now the temporal encoder stays, too: a transformer can be trained on the latents meanwhile.
    fit(folder / "decoders", vae, pixels, steps[3], 5e-4, muon_rate=0.002, parts=painters, seed=seed)
    measure_normalisation(vae, numpy.random.default_rng((seed, 1 << 40)), min(96, clip_count))
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
