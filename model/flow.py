"""Rectified flow as Open-Sora 1.2 and 1.3 use it: timesteps shifted by size and length, and 1.2's guided Euler sampler.

Liu et al. 2022 (rectified flow); the shift is that of Esser et al. 2024 (Stable Diffusion 3), extended over time.
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor

from .frames import CHUNKS, OVERLAPPING

OFFICIAL_BASE_RESOLUTION = 512 * 512
OFFICIAL_BASE_NUM_FRAMES = 1
NUM_TIMESTEPS = 1000
Size = float | Tensor  # a number, or a batch of one number
# How long a video of so many frames is to the shift, and the fewest frames that are any length at all.
LENGTHS = {
    "1.2": (lambda num_frames: num_frames // CHUNKS.chunk_frames * CHUNKS.chunk_latents, CHUNKS.chunk_frames),
    "1.3": (lambda num_frames: (num_frames - 1) // OVERLAPPING.factor, OVERLAPPING.factor + 1),
}


def shift_ratio(
    height: Size,
    width: Size,
    num_frames: Size,
    *,
    scale: float = 1.0,
    base_resolution: float = OFFICIAL_BASE_RESOLUTION,
    base_num_frames: float = OFFICIAL_BASE_NUM_FRAMES,
    version: str = "1.2",
) -> Tensor:
    """How much more noise this size and length need than the base does: √(area ratio) · √(length ratio), fp32 scalar.

    height and width in pixels, num_frames in video frames; numbers, or tensors of one size each. In bf16 tensors, as
    the original has them beside a bf16 model, the ratio is worked out in bf16 too. A video's length counts in
    latents: in 1.2 5 for every full 17 frames, in 1.3 one for every 4 behind the first. `scale` multiplies the ratio,
    in 1.3 that of videos only. `base_resolution` (pixels of area) and `base_num_frames` are what a checkpoint was made
    for: 512² and 1 for the official files.
    """
    height, width, num_frames = map(_number, (height, width, num_frames))
    image = bool(num_frames == 1)
    length = torch.ones_like(num_frames) if image else LENGTHS[version][0](num_frames)
    ratio = (height * width / base_resolution).sqrt() * (length / base_num_frames).sqrt()
    return ratio if image and version == "1.3" else ratio * scale


def _number(value: float | Tensor) -> Tensor:
    """A size as a scalar tensor, from a number or a batch [B] of one size; bf16 stays: the original computes in it."""
    value = torch.as_tensor(value)
    value = value if value.dtype == torch.bfloat16 else value.float()
    if value.numel() == 0 or (value != value.flatten()[0]).any():
        raise ValueError(f"sizes are {value.tolist()}; timesteps are those of one size, so all of a batch must have it")
    return value.flatten()[0]


def shift_timesteps(t: Tensor, ratio: float | Tensor) -> Tensor:
    """Move timesteps in 0…1000 toward noise (ratio > 1) or toward data (ratio < 1); 0 and 1000 stay."""
    t = t / NUM_TIMESTEPS
    # Rounding can lift the first timestep a hair above 1000, which no sampler expects.
    return (ratio * t / (1 + (ratio - 1) * t) * NUM_TIMESTEPS).clamp(max=float(NUM_TIMESTEPS))


def timesteps(
    steps: int, height: Size, width: Size, num_frames: Size, shift: bool = True, *, version: str = "1.2", **base: float
) -> Tensor:
    """The `steps` timesteps of a run, 1000 downward, without the final 0: fp32 [steps].

    Arguments as `shift_ratio`; `base`: scale, base_resolution, base_num_frames.

    Raises ValueError for another `version` of Open-Sora than 1.2 and 1.3, when steps is below 1, or when a video is so
    short that its shift would be 0 (below 17 frames, in 1.3 below 5).
    """
    if version not in LENGTHS:
        raise ValueError(f'version is "{version}"; the timesteps known here are those of {" and ".join(LENGTHS)}')
    if steps < 1:
        raise ValueError(f"steps is {steps}; it must be at least 1")
    t = torch.tensor([(1.0 - i / steps) * NUM_TIMESTEPS for i in range(steps)])
    if not shift:
        return t
    ratio = shift_ratio(height, width, num_frames, version=version, **base)
    if ratio <= 0:
        fewest = LENGTHS[version][1]
        raise ValueError(
            f"num_frames is {int(_number(num_frames))}; the timestep shift is defined for 1 frame and from {fewest} on"
        )
    return shift_timesteps(t, ratio)


def add_noise(clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The straight path from data (t = 0) to noise (t = 1000): clean and noise [B, C, T, H, W], t [B]."""
    t = (t.float() / NUM_TIMESTEPS).view(-1, 1, 1, 1, 1).to(clean.device)
    return (1 - t) * clean + t * noise


@torch.no_grad()
def sample(
    transformer: Callable[..., Tensor],
    z: Tensor,
    caption: Tensor,
    null_caption: Tensor,
    *,
    caption_mask: Tensor | None = None,
    timesteps: Tensor | Sequence[float],
    guidance: float,
    frame_mask: Tensor | None = None,
    noise: Callable[..., Tensor] | None = None,
    **sizes: float | Tensor | None,
) -> Tensor:
    """Open-Sora 1.2's guided Euler loop.

    Args:
        transformer: the network, called on [conditional, unconditional] halves.
        z: [B, C, T, H, W], noise on the frames to generate and clean latents on those to keep.
        caption: [B, L, caption_channels]; null_caption: the same shape, or [L, caption_channels].
        caption_mask: [B, L]; both halves use it.
        timesteps: [steps], falling from 1000, without the final 0.
        guidance: v = v_uncond + guidance · (v_cond - v_uncond).
        frame_mask: [B, T] in 0…1. A frame stays as it is, and is told timestep 0, while its value · 1000 < t;
            then it is noised to t and generated. 1 generates from the start, 0 keeps the frame bit for bit.
        noise: (step, shape) -> tensor, the draw for frames that wake at that step; left out: torch.randn.
        sizes: fps, height, width, num_frames, each [B].

    Returns:
        The denoised latents [B, C, T, H, W].
    """
    B = z.shape[0]
    timesteps = torch.as_tensor(timesteps, dtype=torch.float32)
    if null_caption.ndim == 2:
        null_caption = null_caption[None].expand(B, -1, -1)
    captions = torch.cat([caption, null_caption.to(caption)])
    mask2 = None if caption_mask is None else caption_mask.repeat(2, 1)
    sizes = {name: torch.as_tensor(value).reshape(-1).repeat(2) for name, value in sizes.items() if value is not None}
    ends = torch.cat([timesteps[1:], timesteps.new_zeros(1)])
    frame_mask = None if frame_mask is None else frame_mask.to(z.device)
    awake = None if frame_mask is None else frame_mask == 1

    for step, (t, t_next) in enumerate(zip(timesteps, ends)):
        rows = t.to(z.device).repeat(B)
        active = None
        if frame_mask is not None:
            active = frame_mask * NUM_TIMESTEPS >= rows[:, None]
            draw = torch.randn_like(z) if noise is None else noise(step, z.shape).to(z)
            waking = (active & ~cast(Tensor, awake))[:, None, :, None, None]
            z = torch.where(waking, add_noise(z, draw, rows), z)
            awake = active

        velocity = transformer(
            torch.cat([z, z]),
            rows.repeat(2),
            captions,
            caption_mask=mask2,
            frame_mask=None if active is None else active.repeat(2, 1),
            **sizes,
        )[:, : z.shape[1]]
        conditional, unconditional = velocity.chunk(2)
        velocity = unconditional + guidance * (conditional - unconditional)
        moved = z + velocity * ((t - t_next) / NUM_TIMESTEPS)
        z = moved if active is None else torch.where(active[:, None, :, None, None], moved, z)
    return z
