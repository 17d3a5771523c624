"""How well the tiny VAE paints: errors that weigh contours, and clips as it paints them itself."""

from __future__ import annotations

import numpy
import torch
import torch.nn.functional as F

from ...model.vaes.spatial import SPATIAL_FACTOR
from ...model.vaes.v1_2 import VideoVAE

DECODED_FRAMES = 4  # of a clip, drawn at random: decoding all would double the cost of a step
EDGE_WEIGHT = 3.0
NOISE = 0.05  # on latents in training, against latents of about unit scale
PAINTED_NOISE = (0.0, 0.2)  # on the latents it painted them from: what is sampled lies off the encodings too


def edge_weights(frames: torch.Tensor) -> torch.Tensor:
    """1 on flat ground, up to 1 + EDGE_WEIGHT at contours; frames [N, 3, H, W].

    The channel that changes most counts: purple on gray is a contour too, though both are equally bright.
    """
    padded = F.pad(frames, (1, 1, 1, 1), mode="replicate")
    across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]).abs()
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]).abs()
    change = (across + down).amax(1, keepdim=True)
    return 1 + EDGE_WEIGHT * F.max_pool2d(change.clamp(max=1.0), 3, stride=1, padding=1)


def reconstruction_error(decoded: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Edge-weighted sum of absolute error, for sharp contours, and squared error, which finds the colours soon."""
    error = (decoded - frames).abs()
    return ((error + 4 * error.square()) * edge_weights(frames)).mean()


def decibels(errors: torch.Tensor, span: float = 2.0) -> torch.Tensor:
    """Peak signal-to-noise ratio of mean squared errors, of values that span so much: 2 where they are in -1…1."""
    return 10 * torch.log10(span**2 / errors.clamp(min=1e-10))


def psnr(a: torch.Tensor, b: torch.Tensor, span: float = 2.0) -> float:
    """The mean of `decibels` over a batch of pictures or clips [N, …]."""
    return decibels((a.clamp(-1, 1) - b).square().flatten(1).mean(1), span).mean().item()


def paint(vae: VideoVAE, latents: torch.Tensor, num_frames: int, rng: numpy.random.Generator) -> torch.Tensor:
    """Frames [B, 3, T, H, W] as `vae` paints these latents with a little noise."""
    noise = rng.uniform(*PAINTED_NOISE) * torch.randn_like(latents)
    return vae.decode(latents + noise, num_frames).clamp(-1, 1)


def painting_loss(vae: VideoVAE, latents: torch.Tensor, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Error of normalised latents [B, 4, T, h, w] against a few frames of [B, 3, T, H, W], the ends among them.

    Returns the loss, and the mean squared error of each clip [B].
    """
    T = frames.shape[2]
    x = vae.temporal_vae.decode(latents * vae.scale + vae.shift, T)  # type: ignore[operator]
    # The ends are pinned most often, and are to come out as they are: always two of the frames.
    keep = torch.cat([torch.tensor([0, T - 1]), 1 + torch.randperm(T - 2)[: DECODED_FRAMES - 2]])
    decoded = vae.spatial_vae["module"].decode(x[:, :, keep].transpose(1, 2).flatten(0, 1) / SPATIAL_FACTOR)
    target = frames[:, :, keep].transpose(1, 2).flatten(0, 1)
    squared = (decoded.detach().clamp(-1, 1) - target).square()
    return reconstruction_error(decoded, target), squared.unflatten(0, (len(latents), -1)).mean((1, 2, 3, 4))
