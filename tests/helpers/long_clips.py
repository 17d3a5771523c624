"""Clips of random latents and calls of the long-video nodes; `setup` is a (MODEL, VAE) of the fixture `setups`."""

import torch
from small import CAPTION_CHANNELS, CAPTION_LENGTH, pack, run

SETTINGS = {"seed": 5, "steps": 2, "cfg": 3.0, "sampler_name": "original"}
LATENTS = (2, 3)  # height and width
# Generation: lengths of a clip and of one chunk more, of its context and its segment
COUNTS = {"1.2": (17, 34, 17, 17), "1.3": (17, 33, 17, 16), "2d": (6, 10, 4, 4)}


def prompt(seed):
    """CONDITIONING with 7 real tokens."""
    caption = torch.randn(1, CAPTION_LENGTH, CAPTION_CHANNELS, generator=torch.Generator().manual_seed(seed))
    mask = (torch.arange(CAPTION_LENGTH) < 7).long()[None]
    return [[caption * mask[..., None], {"attention_mask": mask, "pooled_output": None}]]


def clip_of(vae, frames, batch=1, seed=1, **keys):
    """A LATENT of random latents for so many frames."""
    network = vae.first_stage_model
    shape = (batch, network.latent_channels, network.latent_frames(frames), *LATENTS)
    sizes = {"fps": 12.0, "frames": frames, "height": 8 * LATENTS[0], "width": 8 * LATENTS[1]}
    return {"samples": torch.randn(shape, generator=torch.Generator().manual_seed(seed)), **sizes, **keys}


def call(node, setup, **inputs):
    model, vae = setup
    given = {"model": model, "vae": vae, "positive": prompt(3), "context": 17, "segment": 17, **SETTINGS, **inputs}
    return run(getattr(pack("nodes.long_video"), node), **given)[0]


def extend(setup, latent, frames=17, direction="forward", **inputs):
    return call("OpenSoraExtend", setup, latent=latent, frames=frames, direction=direction, **inputs)
