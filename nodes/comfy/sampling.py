"""Sampling with ComfyUI's machinery: Open-Sora's sigmas, a clip's own shift and sizes, the guided run."""

import comfy.model_management as management
import comfy.model_sampling
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch

from ...model import flow
from .base_model import OpenSoraModel
from .latent import sizes_of

ORIGINAL = "original"
ORIGINAL_SAMPLER = "euler"


def sampler_names():
    """Names for a combo: the original's own sampler, then ComfyUI's."""
    return [ORIGINAL, *comfy.samplers.KSampler.SAMPLERS]


def base_model_of(model):
    """The OpenSoraModel inside a MODEL. ValueError where it is none of this pack's."""
    base = getattr(model, "model", None)
    if not isinstance(base, OpenSoraModel):
        raise ValueError(
            f"model is {type(base).__name__}, not an Open-Sora transformer; connect the output of Load Open-Sora Model"
        )
    return base


class ClipSampling(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
    """Rectified flow with one clip's shift; the largest sigma is exactly 1, whatever rounding the shift brings."""

    def set_parameters(self, shift=1.0, timesteps=flow.NUM_TIMESTEPS, multiplier=flow.NUM_TIMESTEPS):
        """`shift` is the ratio r of `model.flow.shift_ratio`."""
        super().set_parameters(shift=shift, timesteps=timesteps, multiplier=multiplier)
        self.sigmas[-1] = 1.0


def for_clip(model, sizes):
    """A clone of MODEL that samples with the shift of a clip of `sizes`, and tells the network those sizes."""
    base = base_model_of(model)
    sampling = ClipSampling(base.model_config)
    sampling.set_parameters(shift=shift_of(base, sizes))
    model = model.clone()
    model.add_object_patch("model_sampling", sampling)
    model.add_object_patch("clip_sizes", sizes)
    return model


def shift_of(base, sizes):
    """The shift r of a clip under this checkpoint's own base size. ValueError for clips of 2 to 16 frames."""
    ratio = float(flow.shift_ratio(sizes.height, sizes.width, sizes.frames, **base.flow))
    if ratio <= 0:
        raise ValueError(
            f"latent has {sizes.frames} frames; the model generates 1 frame or 17 and more, the nearest are 1 and 17"
        )
    return ratio


def sigmas_for(model, sizes, steps, denoise=1.0):
    """The sigmas of a run, from 1 to 0: fp32 [steps + 1].

    `denoise` below 1 works as in ComfyUI's KSampler: of the longer schedule with steps / denoise steps, the last
    `steps` are run. At 0 nothing is left to do and the result is empty.
    """
    base = base_model_of(model)
    shift_of(base, sizes)
    if denoise <= 0:
        return torch.empty(0)
    total = steps if denoise > 0.9999 else int(steps / denoise)
    timesteps = flow.timesteps(total, sizes.height, sizes.width, sizes.frames, **base.flow)
    return torch.cat([timesteps / flow.NUM_TIMESTEPS, torch.zeros(1)])[-(steps + 1) :]


def refuse_misfit(base, latent):
    """ValueError where a LATENT's samples are no video latents of this model."""
    samples = latent["samples"]
    channels = base.latent_format.latent_channels
    if samples.shape[1] != channels:
        raise ValueError(
            f"latent has shape {tuple(samples.shape)} with {samples.shape[1]} channels; this model takes {channels} "
            "([batch, channels, frames, height / 8, width / 8]), as from Empty Open-Sora Latent"
        )


def sample(model, positive, negative, latent, seed, steps, cfg, sampler_name=ORIGINAL, denoise=1.0):
    """Denoise a LATENT: samples [B, C, T, h, w], the same a stock graph of OpenSoraModelSampling,
    OpenSoraScheduler, CFGGuider and SamplerCustomAdvanced gives.
    """
    sizes = sizes_of(latent)
    refuse_misfit(base_model_of(model), latent)
    sigmas = sigmas_for(model, sizes, steps, denoise)
    model = for_clip(model, sizes)
    start = comfy.sample.fix_empty_latent_channels(model, latent["samples"])
    noise = comfy.sample.prepare_noise(start, seed, latent.get("batch_index"))

    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    samples = guider.sample(
        noise,
        start,
        comfy.samplers.sampler_object(ORIGINAL_SAMPLER if sampler_name == ORIGINAL else sampler_name),
        sigmas,
        denoise_mask=latent.get("noise_mask"),
        callback=latent_preview.prepare_callback(model, max(1, len(sigmas) - 1)),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
    return samples.to(management.intermediate_device()), sizes
