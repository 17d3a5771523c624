"""Bridges without a seam: a gap's first and last latent hold the very frames that it leads from and to."""

from dataclasses import replace

import torch

from .comfy import vae as video_vae
from .pinning import encode_groups

LEAST = 3  # latents of a gap: two for its ends, one for the model


def pin_ends(timeline, target):
    """The Timeline (nodes/joining) with the ends of its gap pinned to its clip's last frame and to `target`'s first.

    A model that is a few pixels off would show as a jump where chunks meet. Where every frame is a latent of its own
    nothing is pinned: there the network sees the neighbouring frames themselves, and repeated ones would show.
    """
    chunk, groups = timeline.clip.chunk, timeline.groups
    gap = timeline.mask.nonzero().flatten().tolist()
    if chunk.latents == 1 or len(gap) < LEAST:
        return timeline
    pins = {gap[-1]: (groups[gap[-1]][-1], first_frame(target))}
    if gap[0] % chunk.latents == 0:  # within a chunk the VAE itself leads from frame to frame
        pins[gap[0]] = groups[gap[0]][0], last_frame(timeline, gap[0])
    samples, mask = timeline.samples.clone(), timeline.mask.clone()
    for index, (frame, images) in pins.items():
        samples[:, :, index] = torch.stack(
            [
                encode_groups(
                    lambda pixels: video_vae.encode(timeline.clip.vae, pixels), image, groups, frame, chunk.latents
                )[index]
                for image in images.split(1)
            ]
        ).to(samples)
        mask[index] = 0
    return replace(timeline, samples=samples, mask=mask)


def first_frame(clip):
    """IMAGE [B, H, W, 3]: the first frame of a Clip, decoded with the rest of its chunk."""
    latents = clip.samples[:, :, : clip.chunk.latents]
    frames = clip.network.groups(clip.sizes.frames)[latents.shape[2] - 1].stop
    return video_vae.decode(clip.vae, latents, frames).unflatten(0, (-1, frames))[:, 0]


def last_frame(timeline, stop):
    """IMAGE [B, H, W, 3]: the last frame before latent `stop` of a Timeline, decoded with its chunk."""
    start = stop - timeline.clip.chunk.latents
    frames = timeline.groups[stop - 1].stop - timeline.groups[start].start
    decoded = video_vae.decode(timeline.clip.vae, timeline.samples[:, :, start:stop], frames)
    return decoded.unflatten(0, (-1, frames))[:, -1]
