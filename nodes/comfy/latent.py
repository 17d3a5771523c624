"""What a LATENT of this pack carries beside `samples`: frame rate, frame count and pixel size, with fallbacks."""

import math
from dataclasses import dataclass

import comfy.model_management as management
import comfy.utils
import torch

from ...model.stdit3 import DEFAULT_FPS, IMAGE_FPS
from ...model.stdit3 import PIXELS_PER_LATENT as PIXELS
from ...model.vae import latent_frames, video_frames


@dataclass(frozen=True)
class Sizes:
    """A clip's frame rate, number of video frames, and size in pixels."""

    fps: float
    frames: int
    height: int
    width: int

    @property
    def model_fps(self):
        """The frame rate the model is told: an image has its own."""
        return IMAGE_FPS if self.frames == 1 else self.fps


def fit(shape, fps=None, frames=None, height=None, width=None):
    """`Sizes` for latents of `shape` [B, C, T, h, w]; a value that is missing or does not fit the shape is derived.

    The fallbacks are 24 frames per second, the valid frame count for T, and 8 pixels a latent.
    """
    T, h, w = shape[2:]
    return Sizes(
        fps=float(fps) if _is_number(fps) and fps > 0 else DEFAULT_FPS,
        frames=int(frames) if _is_number(frames) and latent_frames(int(frames)) == T else video_frames(T),
        height=int(height) if _is_number(height) and int(height) // PIXELS == h else h * PIXELS,
        width=int(width) if _is_number(width) and int(width) // PIXELS == w else w * PIXELS,
    )


def sizes_of(latent, input_name="latent"):
    """`Sizes` of a LATENT dictionary; stock nodes may have dropped or outdated the pack's own keys.

    ValueError, naming the node's input, where its samples are neither of a video nor of an image.
    """
    samples = latent["samples"]
    if samples.ndim not in (4, 5):
        raise ValueError(
            f"{input_name} has shape {tuple(samples.shape)}; a video latent is [batch, channels, frames, height / 8, "
            "width / 8], as from Empty Open-Sora Latent"
        )
    shape = samples.shape if samples.ndim == 5 else (*samples.shape[:2], 1, *samples.shape[2:])
    return fit(shape, **{key: latent.get(key) for key in ("fps", "frames", "height", "width")})


def with_sizes(latent, sizes, **changes):
    """A copy of `latent` with `changes` and all four size keys written out."""
    own = {"fps": sizes.fps, "frames": sizes.frames, "width": sizes.width, "height": sizes.height}
    return {**latent, **own, **changes}


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def empty(shape):
    """Zero latents where ComfyUI keeps what passes between nodes."""
    return torch.zeros(shape, device=management.intermediate_device())


def latent_mask(latent):
    """A fresh noise mask [B, 1, T, h, w] of a video LATENT: its own, brought to latent resolution, or all ones."""
    samples, mask = latent["samples"], latent.get("noise_mask")
    B, _, *size = samples.shape
    if mask is None:
        return torch.ones(B, 1, *size, device=samples.device)
    return comfy.utils.reshape_mask(mask.float(), (B, 1, *size))[:, :1].to(samples.device).clone()
