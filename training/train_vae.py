"""Trains the tiny video VAE with an edge-weighted L1: first single frames, then space and time jointly."""

import numpy
import torch
import torch.nn.functional as F

from ..model.vae import SPATIAL_FACTOR, VideoVAE, VideoVAEConfig
from ..model.vae_spatial import SpatialConfig
from ..model.vae_temporal import TemporalConfig
from .loop import Run
from .shapes import RESOLUTIONS, render, sample_scene

TINY = VideoVAEConfig(
    spatial=SpatialConfig(block_out_channels=(16, 24, 48, 96), layers_per_block=1, norm_groups=8),
    temporal=TemporalConfig(filters=16, channel_multipliers=(1, 2, 3, 4), num_res_blocks=1, norm_groups=8),
    shift=(0.0,) * 4,
    scale=(1.0,) * 4,
)
DECODED_FRAMES = 4  # of a clip, drawn at random: decoding all would double the cost of a step
EDGE_WEIGHT = 3.0
KL_WEIGHT = 1e-5
SPATIAL_SHARE = 0.28  # of all steps


def clips(rng, count, num_frames, split="train", resolution=None):
    """A batch of rendered scenes, [count, 3, T, H, W] in -1…1, all of one resolution (drawn where not given)."""
    height, width = resolution or RESOLUTIONS[rng.integers(len(RESOLUTIONS))]
    scenes = [sample_scene(rng, height, width, num_frames, split) for _ in range(count)]
    return torch.stack([render(scene) for scene in scenes]).permute(0, 4, 1, 2, 3).float() * 2 - 1


def edge_weights(frames):
    """1 on flat ground, up to 1 + EDGE_WEIGHT at contours; frames [N, 3, H, W]."""
    gray = F.pad(frames.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    across = (gray[..., 1:-1, 2:] - gray[..., 1:-1, :-2]).abs()
    down = (gray[..., 2:, 1:-1] - gray[..., :-2, 1:-1]).abs()
    return 1 + EDGE_WEIGHT * F.max_pool2d((across + down).clamp(max=1.0), 3, stride=1, padding=1)


def reconstruction_error(decoded, frames):
    """Edge-weighted sum of absolute error, for sharp contours, and squared error, which finds the colours soon."""
    error = (decoded - frames).abs()
    return ((error + 4 * error.square()) * edge_weights(frames)).mean()


def psnr(a, b):
    """Peak signal-to-noise ratio in dB of values in -1…1, mean over the batch."""
    error = (a.clamp(-1, 1) - b).square().flatten(1).mean(1)
    return (10 * torch.log10(4 / error.clamp(min=1e-10))).mean().item()


def spatial_loss(vae, frames):
    """Edge-weighted L1 of single frames [N, 3, H, W] through the 2D VAE alone."""
    spatial = vae.spatial_vae["module"]
    mean, log_variance = spatial.encode(frames).chunk(2, dim=1)
    decoded = spatial.decode(mean + 0.05 * torch.randn_like(mean))
    # The 2D posterior's width is never used: only keep it from drifting, and the latents near unit scale.
    regular = 1e-3 * (mean.square().mean() - 1).clamp(min=0) + 1e-6 * log_variance.square().mean()
    return reconstruction_error(decoded, frames) + regular, psnr(decoded.detach(), frames)


def joint_loss(vae, video, train_encoder=True):
    """Edge-weighted L1 of some decoded frames and the KL of the temporal posterior, on one chunk [B, 3, T, H, W]."""
    B, _, T, _, _ = video.shape
    with torch.set_grad_enabled(train_encoder):
        flat = vae.encode_frames(video)
    moments = vae.temporal_vae.encode(flat)
    mean, log_variance = moments.chunk(2, dim=1)
    log_variance = log_variance.clamp(-30, 20)
    z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1).mean()
    x = vae.temporal_vae.decode(z, T)
    keep = torch.randperm(T)[: min(T, DECODED_FRAMES)]
    target = video[:, :, keep].transpose(1, 2).flatten(0, 1)
    decoded = vae.spatial_vae["module"].decode(x[:, :, keep].transpose(1, 2).flatten(0, 1) / SPATIAL_FACTOR)
    return reconstruction_error(decoded, target) + KL_WEIGHT * kl / T, psnr(decoded.detach(), target)


def loss_at(step, steps, vae, rng, batch):
    """The first third: single frames. Then mostly full chunks, some images and partial chunks, for any frame count."""
    if step < steps * SPATIAL_SHARE:
        return spatial_loss(vae, clips(rng, 8 * batch, 1)[:, :, 0])
    kind = step % 10
    if kind == 3:
        return joint_loss(vae, clips(rng, 3 * batch, 1))
    video = clips(rng, batch, 17)
    if kind == 5:
        return joint_loss(vae, video[:, :, : int(rng.choice([4, 8, 12, 16]))])
    return joint_loss(vae, video, train_encoder=step % 3 == 0)


def train_vae(folder, steps=1900, batch=2, seed=0):
    """Train (or go on training) and return the averaged module, its shift and scale measured on training clips."""
    torch.manual_seed(seed)
    vae = VideoVAE(TINY)
    run = Run(folder, vae, steps=steps, learning_rate=3e-3, matrix_rate=0.02)
    for step in run:
        rng = numpy.random.default_rng((seed, step))
        loss, quality = loss_at(step, steps, vae, rng, batch)
        run.update(loss, psnr=quality)
        if (step + 1) % 500 == 0:
            run.note(step=step + 1, held_out_psnr=round(held_out_psnr(vae, run.average), 2))
    vae.load_state_dict(run.average)
    vae.eval().requires_grad_(False)
    measure_normalisation(vae, numpy.random.default_rng((seed, 1 << 40)))
    return vae


@torch.no_grad()
def held_out_psnr(vae, weights=None, count=24, num_frames=17):
    """PSNR of whole held-out clips through encode (mode) and decode."""
    current = {key: value.clone() for key, value in vae.state_dict().items()}
    if weights is not None:
        vae.load_state_dict(weights)
    rng = numpy.random.default_rng(123)
    scores = []
    for resolution in RESOLUTIONS:
        video = clips(rng, max(1, count // 3), num_frames, "held_out", resolution)
        scores.append(psnr(vae.decode(vae.encode(video), num_frames), video))
    vae.load_state_dict(current)
    return sum(scores) / len(scores)


@torch.no_grad()
def measure_normalisation(vae, rng, count=96):
    """Set shift and scale so that training latents have zero mean and unit variance in every channel."""
    vae.shift.zero_()
    vae.scale.fill_(1.0)
    z = torch.cat([vae.encode(clips(rng, count // 3, 17, resolution=r)).flatten(2) for r in RESOLUTIONS], dim=2)
    vae.shift.copy_(z.mean((0, 2)).view_as(vae.shift))
    vae.scale.copy_(z.std((0, 2)).view_as(vae.scale))


if __name__ == "__main__":
    import sys

    train_vae(sys.argv[1], steps=int(sys.argv[2]))
