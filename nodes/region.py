"""The node that lets the model change a region of a clip over time, and nothing around it."""

import torch
from torch import Tensor

from .comfy.latent import PIXELS, clip_sizes, latent_mask, with_sizes
from .comfy.schema import io, schema
from .comfy.vae import video_vae
from .report import report


def check_mask(mask: Tensor, frames: int) -> Tensor:
    """A MASK as [1, H, W] or [frames, H, W]. ValueError, naming it, for other shapes, counts and values."""
    if mask.ndim == 2:
        mask = mask[None]
    if mask.ndim != 3 or 0 in mask.shape[1:]:
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}; a mask is [frames, height, width], or one [height, width]"
        )
    if len(mask) not in (1, frames):
        raise ValueError(
            f"mask holds {len(mask)} masks, but the clip has {frames} frames; give one mask for all of them, or "
            f"{frames}"
        )
    low, high = mask.min().item(), mask.max().item()
    if not 0 <= low <= high <= 1:
        raise ValueError(f"mask has values from {low:g} to {high:g}; allowed are 0 (keep) to 1 (generate)")
    return mask


def cover(mask: Tensor, dim: int, latents: int, pixels: int) -> Tensor:
    """The maximum of `mask` over the part of `dim` that lies behind each of `latents` latents, which takes its place.

    `dim` of the mask, whatever its length, stands for a side of `pixels` pixels, 8 of them a latent. An element that
    a latent only touches counts: nothing that is masked is left out, however thin, and however the mask is scaled.
    """
    length = mask.shape[dim]
    found = []
    for index in range(latents):
        first = min(index * PIXELS * length // pixels, length - 1)
        end = min(-(-(index + 1) * PIXELS * length // pixels), length)
        found.append(mask.narrow(dim, first, end - first).amax(dim))
    return torch.stack(found, dim)


def to_latents(mask: Tensor, groups: list[range], size: tuple[int, int], latent_size: tuple[int, int]) -> Tensor:
    """The noise mask [1, 1, T', h, w] of a MASK [1 or T, H, W]: every latent has the maximum of what lies behind it.

    Args:
        groups: the video frames behind each latent, as the VAE's `groups` tells them.
        size: (height, width) of the clip in pixels; a mask of another size is stretched to it.
        latent_size: (h, w).
    """
    for dim, latents, pixels in zip((1, 2), latent_size, size):
        mask = cover(mask, dim, latents, pixels)
    if len(mask) == 1:
        mask = mask.expand(len(groups), -1, -1)
    else:
        mask = torch.stack([mask[group.start : group.stop].amax(0) for group in groups])
    return mask[None, None]


class OpenSoraMaskRegion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Latent",
            shows_report=True,
            node_id="OpenSoraMaskRegion",
            display_name="Open-Sora Mask Region",
            description="Inpainting over time: the sampler changes what the mask shows white, and leaves the rest of "
            "the clip as it is.",
            search_aliases="inpaint, outpaint, noise mask, set latent noise mask, video edit, video to video, vid2vid",
            inputs=[
                io.Latent.Input(
                    "latent", tooltip="The clip to edit, from Open-Sora VAE Encode, with keyframes if you like."
                ),
                io.Vae.Input("vae", tooltip="The Open-Sora video VAE that made the latent."),
                io.Mask.Input(
                    "mask",
                    tooltip="White is generated, black is kept, gray is held partly. One mask for the whole clip, or "
                    "one for every frame of it; another size than the clip's is stretched to it. It grows to whole "
                    "latents: 8 x 8 pixels, and the frames that the VAE keeps together.",
                ),
            ],
            outputs=[io.Latent.Output(tooltip="The clip with this region, for the sampler.")],
        )

    @classmethod
    def execute(cls, latent: dict, vae: io.Vae.Type, mask: Tensor) -> io.NodeOutput:
        network = video_vae.network_of(vae)
        sizes = clip_sizes(latent, network)
        mask = check_mask(mask, sizes.frames)
        own = latent_mask(latent)
        region = to_latents(
            mask.float(),
            network.counting.groups(sizes.frames),
            (sizes.height, sizes.width),
            latent["samples"].shape[-2:],
        )
        latent = with_sizes(latent, sizes, noise_mask=torch.minimum(own, region.to(own)))
        return io.NodeOutput(latent, ui={"opensora": [report(latent, network)]})
