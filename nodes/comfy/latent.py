"""What a LATENT of this pack carries beside `samples`: frame rate, frame count and pixel size, with fallbacks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import comfy.model_management as management
import comfy.utils
import torch

from ...model.frames import CHUNKS, DEFAULT_FPS, EACH_FRAME, IMAGE_FPS, OVERLAPPING, Counting
from ...model.frames import PIXELS_PER_LATENT as PIXELS

# By a transformer's `version` (or a VAE's `family`).
COUNTING = {
    "1.0": EACH_FRAME, "1.1": EACH_FRAME, "pixart": EACH_FRAME, "vae_2d": EACH_FRAME,
    "1.2": CHUNKS, "vae_v1_2": CHUNKS,
    "1.3": OVERLAPPING, "vae_v1_3": OVERLAPPING,
}  # fmt: skip
CHANNELS_OF_1_3 = 16


def countings(channels: int, counting: str | Counting | None = None) -> tuple[Counting, ...]:
    """The Countings that latents of so many channels can follow, the likeliest first.

    `counting` says it outright: a key of COUNTING, or a Counting.
    """
    if counting is not None:
        return (COUNTING[counting] if isinstance(counting, str) else counting,)
    return (OVERLAPPING,) if channels == CHANNELS_OF_1_3 else (CHUNKS, EACH_FRAME)


@dataclass(frozen=True)
class Sizes:
    """A clip's frame rate, number of video frames, and size in pixels."""

    fps: float
    frames: int
    height: int
    width: int

    @property
    def model_fps(self) -> float:
        """The frame rate the model is told: an image has its own."""
        return IMAGE_FPS if self.frames == 1 else self.fps


def fit(shape: Sequence[int], own: Mapping[str, object], counting: str | Counting | None = None) -> Sizes:
    """`Sizes` for latents of `shape` [B, C, T, h, w] and with `own` values by name: fps, frames, height, width.

    What is missing or does not fit the shape is derived. The fallbacks are 24 frames per second, the valid frame count
    for T, and 8 pixels a latent. `counting` as in `countings`; left out, `frames` may follow any generation that has
    such latents.
    """
    C, T, h, w = shape[1:]
    known = countings(C, counting)
    fps, frames = own.get("fps"), own.get("frames")
    return Sizes(
        fps=float(fps) if _is_number(fps) and fps > 0 else DEFAULT_FPS,
        frames=int(frames)
        if _is_number(frames) and frames >= 1 and any(each.latent_frames(int(frames)) == T for each in known)
        else known[0].video_frames(T),
        height=_side(own.get("height"), h, known),
        width=_side(own.get("width"), w, known),
    )


def _side(pixels, latents, known):
    fits = _is_number(pixels) and pixels > 0 and any(each.latent_side(int(pixels)) == latents for each in known)
    return int(pixels) if fits else latents * PIXELS


def refuse_misfit(shape: Sequence[int], name: str = "latent", channels: int | None = None, taker: str = "VAE") -> None:
    """ValueError, naming the node's input, for samples that are no video latents of so many `channels` (None: of any).

    `taker`: the words for what takes them. That there are no frames is said before anything is said of channels.
    """
    shape, wanted = tuple(shape), channels or "channels"
    if len(shape) == 4:
        what = ", that of an image, which has no frames; a video latent is "
    elif len(shape) == 5 and channels and shape[1] != channels:
        what = f" with {shape[1]} channels; this {taker} takes {channels} channels, "
    elif len(shape) != 5 or 0 in shape:
        what = "; a video latent is "
    else:
        return
    raise ValueError(
        f"{name} has shape {shape}{what}[batch, {wanted}, frames, height / 8, width / 8], as from Empty Open-Sora "
        "Latent"
    )


def sizes_of(latent: dict, input_name: str = "latent", counting: str | Counting | None = None) -> Sizes:
    """`Sizes` of a LATENT dictionary; stock nodes may have dropped or outdated the pack's own keys.

    `counting` as in `countings`. ValueError, naming the node's input, where its samples are neither of a video nor of
    an image.
    """
    shape = latent["samples"].shape
    if len(shape) == 4:
        shape = (*shape[:2], 1, *shape[2:])
    refuse_misfit(shape, input_name)
    return fit(shape, latent, counting)


def clip_sizes(latent: dict, network: object, name: str = "latent") -> Sizes:
    """`Sizes` of a LATENT that belongs to this VAE's network. ValueError, naming the input, where it does not."""
    refuse_misfit(latent["samples"].shape, name, network.latent_channels)
    return sizes_of(latent, name, network.counting)


def with_sizes(latent: dict, sizes: Sizes, **changes: object) -> dict:
    """A copy of `latent` with `changes` and all four size keys written out."""
    own = {"fps": sizes.fps, "frames": sizes.frames, "width": sizes.width, "height": sizes.height}
    return {**latent, **own, **changes}


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def empty(shape: Sequence[int]) -> torch.Tensor:
    """Zero latents where ComfyUI keeps what passes between nodes."""
    return torch.zeros(shape, device=management.intermediate_device())


def latent_mask(latent: dict) -> torch.Tensor:
    """A fresh noise mask [B, 1, T, h, w] of a video LATENT: its own, brought to latent resolution, or all ones."""
    samples, mask = latent["samples"], latent.get("noise_mask")
    B, _, *size = samples.shape
    if mask is None:
        return torch.ones(B, 1, *size, device=samples.device)
    return comfy.utils.reshape_mask(mask.float(), (B, 1, *size))[:, :1].to(samples.device).clone()
