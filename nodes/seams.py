"""Bridges without a seam: a gap's first and last latent hold the very frames that it leads from and to."""

import math
from dataclasses import replace

import torch

from ..model.pins import encode_groups
from .comfy.vae import video_vae

LEAST = 3  # latents of a gap: two for its ends, one for the model
ATTEMPTS = 3  # encodings of a bridge's end: each costs one encoding and one decoding of a chunk
CORRECTION = 0.6  # of what an attempt lacks is added to the next: with all of it, some frames overshoot


def pin_ends(timeline, target):
    """The Timeline (nodes/joining) with the ends of its gap pinned to its clip's last frame and to `target`'s first.

    A model that is a few pixels off would show as a jump where chunks meet. Where every frame is a latent of its own
    nothing is pinned: there the network sees the neighbouring frames themselves, and repeated ones would show.
    """
    counting, groups = timeline.clip.counting, timeline.groups
    gap = timeline.mask.nonzero().flatten().tolist()
    if counting.chunk_latents == 1 or len(gap) < LEAST:
        return timeline
    pins = {gap[-1]: (groups[gap[-1]][-1], first_frame(target))}
    if gap[0] % counting.chunk_latents == 0:  # within a chunk the VAE itself leads from frame to frame
        pins[gap[0]] = groups[gap[0]][0], last_frame(timeline, gap[0])
    samples, mask = timeline.samples.clone(), timeline.mask.clone()
    for index, (frame, images) in pins.items():
        samples[:, :, index] = torch.stack(
            [
                encode_groups(
                    lambda pixels: video_vae.encode(timeline.clip.vae, pixels),
                    image,
                    groups,
                    frame,
                    counting.chunk_latents,
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
    stop, counting, groups = len(bridge.mask), bridge.clip.counting, bridge.groups
    if bridge.mask[-1] != 0 or latent["samples"].shape[2] < stop:
        return latent
    samples = latent["samples"].clone()
    start = (stop - 1) // counting.chunk_latents * counting.chunk_latents
    frames, last = groups[stop - 1].stop - groups[start].start, len(groups[stop - 1])
    for row, goal in enumerate(first_frame(target)):
        end = samples[row : row + 1, :, start:stop]
        samples[row, :, stop - 1] = led_to(goal, bridge.clip.vae, end, frames, last)
    return {**latent, "samples": samples}


def led_to(goal, vae, latents, frames, last):
    """The last latent [C, h, w] of a chunk [1, C, T', h, w], for which its last of `frames` frames comes out as `goal`.

    `goal`: [H, W, 3]; `last`: how many frames the last latent holds. A VAE loses a little each time: what an attempt
    lacks is added to the frames of the next, as long as that comes closer.
    """
    made = video_vae.decode(vae, latents, frames)
    share = torch.linspace(0, 1, last + 1)[1:].view(-1, 1, 1, 1).to(made)
    wanted = torch.cat([made[:-last], made[-last:].lerp(goal, share)])
    shown, closest, least = wanted.clone(), None, math.inf
    for _ in range(ATTEMPTS):
        attempt = latents.clone()
        attempt[:, :, -1] = video_vae.encode(vae, shown)[:, :, -1].to(latents)
        made = video_vae.decode(vae, attempt, frames)
        away = (made[-1] - goal).abs().mean().item()
        if away >= least:
            break
        closest, least = attempt[0, :, -1], away
        shown[-last:] = (shown[-last:] + CORRECTION * (wanted[-last:] - made[-last:])).clamp(0, 1)
    return closest


def first_frame(clip):
    """IMAGE [B, H, W, 3]: the first frame of a Clip, decoded with the rest of its chunk."""
    latents = clip.samples[:, :, : clip.counting.chunk_latents]
    frames = clip.network.counting.groups(clip.sizes.frames)[latents.shape[2] - 1].stop
    return video_vae.decode(clip.vae, latents, frames).unflatten(0, (-1, frames))[:, 0]


def last_frame(timeline, stop):
    """IMAGE [B, H, W, 3]: the last frame before latent `stop` of a Timeline, decoded with its chunk."""
    start = stop - timeline.clip.counting.chunk_latents
    frames = timeline.groups[stop - 1].stop - timeline.groups[start].start
    decoded = video_vae.decode(timeline.clip.vae, timeline.samples[:, :, start:stop], frames)
    return decoded.unflatten(0, (-1, frames))[:, -1]
