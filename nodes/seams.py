"""Bridges without a seam: a gap's first and last latent hold the very frames that it leads from and to."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from ..model.pins import pieces
from .comfy.sampling.long_run import Draft
from .comfy.vae import video_vae
from .joining import Clip

LEAST = 3  # latents of a gap: two for its ends, one for the model
ATTEMPTS = 3  # encodings of a bridge's end: each costs one encoding and one decoding of a chunk
CORRECTION = 0.6  # of what an attempt lacks is added to the next: with all of it, some frames overshoot


def pin_ends(draft: Draft, target: Clip) -> Draft:
    """The Draft (long_run.py) with the ends of its gap pinned to its last known frame and to the first of `target`.

    A model that is a few pixels off would show as a jump where chunks meet. Where every frame is a latent of its own
    nothing is pinned: there the network sees the neighbouring frames themselves, and repeated ones would show.
    """
    chunk_latents, groups = draft.counting.chunk_latents, draft.groups
    gap = draft.mask.nonzero().flatten().tolist()
    if chunk_latents == 1 or len(gap) < LEAST:
        return draft
    pins = {gap[-1]: (groups[gap[-1]][-1], first_frame(target))}
    if gap[0] % chunk_latents == 0:  # within a chunk the VAE itself leads from frame to frame
        pins[gap[0]] = groups[gap[0]][0], last_frame(draft, gap[0], target.vae)
    samples, mask = draft.samples.clone(), draft.mask.clone()
    for index, (frame, images) in pins.items():
        for shown, places in pieces(groups, frame, 1, chunk_latents):
            if index in places:  # chunks that share the frame have it in latents of their own
                stills = torch.cat([video_vae.encode(target.vae, image[shown]) for image in images.split(1)])
                samples[:, :, index] = stills[:, :, places[index]].to(samples)
        mask[index] = 0
    return replace(draft, latent={**draft.latent, "samples": samples}, mask=mask)


def meet(latent: dict, bridge: Draft, target: Clip) -> dict:
    """The LATENT with the last latent of its bridge encoded anew, so that it meets `target` where it is decoded.

    The pin was encoded from a still, but a decoder reads a latent in the light of its chunk, which moves. So the last
    frames of the bridge, as they came out, are led to `target`'s first frame and encoded with the rest of their chunk.

    `bridge` is the Draft of `pin_ends`. Where nothing was pinned, or the run was cut short, nothing changes.
    """
    stop, chunk_latents, groups = len(bridge.mask), bridge.counting.chunk_latents, bridge.groups
    if bridge.mask[-1] != 0 or latent["samples"].shape[2] < stop:
        return latent
    samples = latent["samples"].clone()
    start = (stop - 1) // chunk_latents * chunk_latents
    frames, last = groups[stop - 1].stop - groups[start].start, len(groups[stop - 1])
    for row, goal in enumerate(first_frame(target)):
        end = samples[row : row + 1, :, start:stop]
        samples[row, :, stop - 1] = led_to(goal, target.vae, end, frames, last)
    return {**latent, "samples": samples}


def led_to(goal: Tensor, vae: video_vae.OpenSoraVAE, latents: Tensor, frames: int, last: int) -> Tensor:
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


def first_frame(clip: Clip) -> Tensor:
    """IMAGE [B, H, W, 3]: the first frame of a Clip, decoded with the rest of its chunk."""
    latents = clip.samples[:, :, : clip.counting.chunk_latents]
    frames = clip.counting.groups(clip.sizes.frames)[latents.shape[2] - 1].stop
    return video_vae.decode(clip.vae, latents, frames).unflatten(0, (-1, frames))[:, 0]


def last_frame(draft: Draft, stop: int, vae: video_vae.OpenSoraVAE) -> Tensor:
    """IMAGE [B, H, W, 3]: the last frame before latent `stop` of a Draft, decoded with its chunk."""
    start = stop - draft.counting.chunk_latents
    frames = draft.groups[stop - 1].stop - draft.groups[start].start
    decoded = video_vae.decode(vae, draft.samples[:, :, start:stop], frames)
    return decoded.unflatten(0, (-1, frames))[:, -1]
