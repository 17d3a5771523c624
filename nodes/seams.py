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


def meet(latent, bridge, target):
    """The LATENT with the last latent of its bridge encoded anew, so that it meets `target` where it is decoded.

    The pin was encoded from a still, but a decoder reads a latent in the light of its chunk, which moves. So the last
    frames of the bridge, as they came out, are led to `target`'s first frame and encoded with the rest of their chunk.

    `bridge` is the Timeline of `pin_ends`. Where nothing was pinned, or the run was cut short, nothing changes.
    """
    stop, chunk, groups = len(bridge.mask), bridge.clip.chunk, bridge.groups
    if bridge.mask[-1] != 0 or latent["samples"].shape[2] < stop:
        return latent
    samples = latent["samples"].clone()
    start = (stop - 1) // chunk.latents * chunk.latents
    frames = groups[stop - 1].stop - groups[start].start
    made = video_vae.decode(bridge.clip.vae, samples[:, :, start:stop], frames).unflatten(0, (-1, frames))
    last = len(groups[stop - 1])
    share = torch.linspace(0, 1, last + 1)[1:].view(-1, 1, 1, 1).to(made)
    for row, (images, goal) in enumerate(zip(made, first_frame(target))):
        images = torch.cat([images[:-last], images[-last:].lerp(goal, share)])
        samples[row, :, stop - 1] = video_vae.encode(bridge.clip.vae, images)[0, :, -1].to(samples)
    return {**latent, "samples": samples}


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
