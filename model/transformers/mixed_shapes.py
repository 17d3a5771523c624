"""Clips of different shapes in one call of a network: what each clip brings, and which families can.

How they are joined: padded to one shape in padded.py, packed into one sequence of tokens in packed.py. Both give every
clip what it gets alone, and run the network's own blocks through `run_block`, so that what wraps a layer, or computes a
block anew for its gradient, works on them as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..frames import DEFAULT_FPS, IMAGE_FPS

CANNOT = {
    "stdit": "its blocks attend in whole batches of one shape (Open-Sora 1.0)",
    "stdit2": "its blocks attend in whole batches of one shape (Open-Sora 1.1)",
    "stdit3_v1_3": "its temporal blocks attend in windows that lie on one grid (Open-Sora 1.3)",
    "pixart": "its blocks attend in whole batches of one shape (PixArt)",
}


@dataclass(frozen=True)
class ClipInputs:
    """What a network takes of one clip: the arguments of `VideoTransformer.forward`, without the batch.

    x [C, T, H, W]; timestep a number or a tensor of one; caption [L, caption_channels]; caption_mask [L], 1 where a
    token is real; frame_mask bool [T], True where a frame is being generated; fps, height, width: numbers, or None for
    what the clip's own latents say.
    """

    x: Tensor
    timestep: float | Tensor
    caption: Tensor
    caption_mask: Tensor | None = None
    frame_mask: Tensor | None = None
    fps: float | None = None
    height: float | None = None
    width: float | None = None

    @property
    def size(self) -> tuple[int, int, int]:
        """(T, H, W) in latents."""
        T, H, W = self.x.shape[1:]
        return T, H, W

    @property
    def known_fps(self) -> float:
        """Frames per second as the network is told them."""
        return fps_of(self.fps, self.size[0])

    def real_caption(self) -> Tensor:
        """bool [L]: which tokens of the caption are real."""
        if self.caption_mask is None:
            return torch.ones(len(self.caption), dtype=torch.bool, device=self.caption.device)
        return self.caption_mask.to(self.caption.device) != 0


def refuse_family(network: Any, way: str) -> None:
    """ValueError where clips of different shapes cannot be in one call of `network`; `way`: "padding" or "packing"."""
    if network.family != "stdit3":
        raise ValueError(
            f"{way} is set, but the model is {network.family}: {CANNOT.get(network.family, 'it has no way to do so')}. "
            f"{way} must be with stdit3 (Open-Sora 1.2); for {network.family} use buckets, where a batch has one shape"
        )


def check_clips(clips: Sequence[ClipInputs]) -> None:
    """ValueError for no clips, for masks or latents that do not fit the rest, and for a caption without real tokens."""
    if not clips:
        raise ValueError("there are no clips; give at least 1")
    channels = clips[0].x.shape[0]
    for number, clip in enumerate(clips):
        if clip.x.ndim != 4 or clip.x.shape[0] != channels or 0 in clip.x.shape:
            raise ValueError(
                f"x of clip {number} has the shape {tuple(clip.x.shape)}; it must be [C, T, H, W] with C = {channels} "
                "and at least one latent"
            )
        for name, mask, length in (
            ("frame_mask", clip.frame_mask, clip.size[0]),
            ("caption_mask", clip.caption_mask, len(clip.caption)),
        ):
            if mask is not None and tuple(mask.shape) != (length,):
                raise ValueError(f"{name} of clip {number} has the shape {tuple(mask.shape)}; it must be ({length},)")
        if not clip.real_caption().any():
            raise ValueError(f"the caption of clip {number} has no real token; it must have at least 1")


def fps_of(fps: float | None, frames: int) -> float:
    """Frames per second of a clip of so many latent frames: `fps`, or the network's own default."""
    if fps is not None:
        return float(fps)
    return IMAGE_FPS if frames == 1 else DEFAULT_FPS


def timesteps(clips: Sequence[ClipInputs]) -> Tensor:
    """The timesteps of all clips, [B] in fp32."""
    return torch.cat([torch.as_tensor(clip.timestep, device=clips[0].x.device).float().reshape(1) for clip in clips])


def frame_masks(clips: Sequence[ClipInputs]) -> Tensor | None:
    """The frame masks of all clips, bool [B, T of the longest], True behind the end; None where no clip has one."""
    if all(clip.frame_mask is None for clip in clips):
        return None
    longest = max(clip.size[0] for clip in clips)
    masks = [torch.ones(clip.size[0]) if clip.frame_mask is None else clip.frame_mask for clip in clips]
    device = clips[0].x.device
    return torch.stack([F.pad(mask.to(device) != 0, (0, longest - len(mask)), value=True) for mask in masks])
