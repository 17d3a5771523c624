"""Clips, pictures and the keyframe node, for the tests of what is pinned."""

import torch
from small import pack, run


def keyframe(vae, latent, image, frame=0, strength=1.0):
    return run(
        pack("nodes.keyframe").OpenSoraKeyframe, latent=latent, vae=vae, image=image, frame=frame, strength=strength
    )[0]


def empty(vae, frames=34, width=48, height=64, batch=1):
    node = pack("nodes.empty_latent").OpenSoraEmptyLatent
    return run(
        node,
        vae=vae,
        resolution="custom",
        aspect_ratio="auto",
        frames=frames,
        fps=24.0,
        width=width,
        height=height,
        batch_size=batch,
    )[0]


def picture(frames=1, height=64, width=48, seed=0):
    return torch.rand(frames, height, width, 3, generator=torch.Generator().manual_seed(seed))


def encoded(vae, video):
    """The network itself, without ComfyUI's VAE class: IMAGE to latents."""
    return vae.first_stage_model.encode((video * 2 - 1).permute(3, 0, 1, 2)[None])


def pinned(latent):
    """Indices of the latents that the mask holds at all."""
    return [i for i in range(latent["samples"].shape[2]) if latent["noise_mask"][:, :, i].min() < 1]
