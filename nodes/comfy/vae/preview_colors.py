"""Preview colours: as a file tells them, or learned from a test card at the first use of a VAE whose file does not."""

import logging
import math

import comfy.model_management as management
import comfy.sd
import torch

from ....model.colors import ColorNetwork, fit_colors
from ..latent_formats import CausalLatents, VideoLatents

# The latents of the 2D VAE are Stable Diffusion's, whose colours ComfyUI knows.
FORMATS = {"vae_v1_2": VideoLatents, "vae_v1_3": CausalLatents}
CARD_SIDE = 96
_learned = set()


def network_of(metadata: dict, channels: int) -> ColorNetwork | None:
    """That for latents of so many channels in a file's metadata, or None."""
    text = metadata.get("latent_rgb_network")
    if text is None:
        return None
    try:
        return ColorNetwork.from_text(text, channels)
    except ValueError as error:
        logging.warning("Open-Sora: previews are in rough colours: %s", error)
        return None


def learn(vae: comfy.sd.VAE) -> None:
    """Teach the latent format of this VAE's generation its colours, once, and only where its file says none.

    ComfyUI loads MODEL and VAE apart, so the format's class carries what the VAE knows; files with colours of their own
    set them on their instance and stay as they are.
    """
    network = vae.first_stage_model
    latent_format = FORMATS.get(network.family)
    if latent_format is None or network.family in _learned or network.opensora.get("latent_rgb_factors"):
        return
    _learned.add(network.family)
    card = test_card(network.counting.chunk_frames, CARD_SIDE)
    try:
        with torch.inference_mode():
            latents = network.encode(card.to(device=vae.device, dtype=vae.vae_dtype))
            factors, bias, _ = fit_colors(latents, card, network.counting.groups(card.shape[2]))
        if not torch.tensor([*factors, bias]).isfinite().all():
            raise ValueError("the VAE gives latents that are not numbers")
    except management.InterruptProcessingException:  # the clip that was asked for is done: what comes next may stop
        management.interrupt_current_processing()
        _learned.discard(network.family)
        return
    except Exception as error:
        logging.warning("Open-Sora: the colours of previews stay a guess, they could not be learned: %s", error)
        return
    latent_format.latent_rgb_factors, latent_format.latent_rgb_factors_bias = factors, bias


def test_card(frames: int, side: int) -> torch.Tensor:
    """A video [1, 3, frames, side, side] in -1…1 of soft waves in all colours that drift slowly."""
    t = torch.linspace(0, 1, frames).view(-1, 1, 1)
    y, x = (torch.linspace(0, 1, side).view(shape) for shape in ((1, -1, 1), (1, 1, -1)))
    # One fast and one slow wave for each colour, in directions of their own, so that every mixture occurs.
    waves = [
        0.6 * torch.sin(2 * math.pi * (across * x + down * y + 0.25 * t) + color)
        + 0.6 * torch.sin(2 * math.pi * (0.4 * down * x - 0.5 * across * y) + 2 * color)
        for color, (across, down) in enumerate(((1.0, 0.4), (-0.6, 1.2), (1.5, -0.8)))
    ]
    return torch.stack(waves)[None].clamp(-1, 1)
