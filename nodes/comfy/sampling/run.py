"""Sampling with ComfyUI's machinery: Open-Sora's sigmas, a clip's own shift and sizes, the guided run."""

import math

import comfy.model_management as management
import comfy.model_sampling
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy.model_patcher import ModelPatcher

from ....model import flow, flow_v1_3, iddpm
from ..latent import Sizes, refuse_misfit, sizes_of
from ..transformer.base_model import OpenSoraModel, base_model_of
from ..transformer.guidance import OPTIONS
from .samplers import sampler_for

ORIGINAL = "original"


def sampler_names() -> list[str]:
    """Names for a combo: the original's own sampler, then ComfyUI's."""
    return [ORIGINAL, *comfy.samplers.KSampler.SAMPLERS]


def with_options(model: ModelPatcher, options: flow_v1_3.Options) -> ModelPatcher:
    """A clone of MODEL that samples with these `guidance.Options`. ValueError where it is not Open-Sora 1.3."""
    version = base_model_of(model).version
    if version != "1.3":
        name = "a PixArt model" if version == "pixart" else f"Open-Sora {version}"
        raise ValueError(f"model is {name}; these options belong to Open-Sora 1.3, so leave this node out")
    model = model.clone()
    model.model_options["transformer_options"][OPTIONS] = options
    return model


class ClipSampling(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
    """Rectified flow with one clip's shift; the largest sigma is exactly 1, whatever rounding the shift brings."""

    def set_parameters(
        self, shift: float = 1.0, timesteps: int = flow.NUM_TIMESTEPS, multiplier: float = flow.NUM_TIMESTEPS
    ) -> None:
        """`shift` is the ratio r of `model.flow.shift_ratio`."""
        super().set_parameters(shift=shift, timesteps=timesteps, multiplier=multiplier)
        self.sigmas[-1] = 1.0


def for_clip(model: ModelPatcher, sizes: Sizes, keep_patched: bool = False) -> ModelPatcher:
    """A clone of MODEL that samples with the shift of a clip of `sizes`, and tells the network those sizes.

    Epsilon models (1.0, 1.1, PixArt) have one schedule for all sizes. With `keep_patched` a shift that the artist set
    by another node stays.
    """
    base = base_model_of(model)
    model = model.clone()
    if _is_flow(base) and not (keep_patched and _patched_sampling(model)):
        sampling = ClipSampling(base.model_config)
        sampling.set_parameters(shift=shift_of(base, sizes))
        model.add_object_patch("model_sampling", sampling)
    model.add_object_patch("clip_sizes", sizes)
    return model


def _patched_sampling(model):
    """The sampling that a stock node (ModelSamplingSD3, …) gave this MODEL, or None."""
    sampling = model.object_patches.get("model_sampling")
    return None if isinstance(sampling, ClipSampling) else sampling


def _is_flow(base):
    return base.diffusion_model.prediction == "flow"


def sizes_for(model: ModelPatcher, latent: dict) -> Sizes:
    """`latent.Sizes` of a LATENT, counted as the VAE of this MODEL's generation counts."""
    return sizes_of(latent, counting=base_model_of(model).version)


def shift_of(base: OpenSoraModel, sizes: Sizes) -> float:
    """The shift r of a clip under this checkpoint's own base size. ValueError for clips too short to have one."""
    ratio = float(flow.shift_ratio(sizes.height, sizes.width, sizes.frames, **base.flow))
    if ratio <= 0:
        raise ValueError(
            f"latent has {sizes.frames} frames; the model generates 1 frame or 17 and more, the nearest are 1 and 17"
        )
    return ratio


def total_steps(steps: int, denoise: float) -> int:
    """The steps of the whole schedule of which a run of `steps` is the end, as ComfyUI's KSampler counts them."""
    return steps if denoise > 0.9999 else int(steps / denoise)


def sigmas_for(model: ModelPatcher, sizes: Sizes, steps: int, denoise: float = 1.0) -> torch.Tensor:
    """The sigmas of a run, falling to 0: fp32 [steps + 1]. Flow begins at 1, epsilon at the noisiest timestep's.

    The shift is that of a clip of `sizes`, or the artist's own, from a node such as ModelSamplingSD3.

    `denoise` below 1 works as in ComfyUI's KSampler: of the longer schedule with steps / denoise steps, the last
    `steps` are run. At 0 nothing is left to do and the result is empty.
    """
    base = base_model_of(model)
    if _is_flow(base):
        shift_of(base, sizes)
    if denoise <= 0:
        return torch.empty(0)
    total = total_steps(steps, denoise)
    if not _is_flow(base) and total > iddpm.NUM_TIMESTEPS:
        least = math.ceil(100 * steps / iddpm.NUM_TIMESTEPS) / 100
        raise ValueError(
            f"denoise is {denoise:g}, which with {steps} steps is the end of a schedule of {total} steps; this model "
            f"has {iddpm.NUM_TIMESTEPS}, so denoise must be at least {least:g}, or steps lower"
        )
    if _is_flow(base):
        patched = _patched_sampling(model)
        timesteps = flow.timesteps(total, sizes.height, sizes.width, sizes.frames, shift=patched is None, **base.flow)
        sigmas = timesteps / flow.NUM_TIMESTEPS
        if patched is not None:  # it counts timesteps to 1000, or like those of Flux and AuraFlow to 1
            sigmas = patched.sigma(sigmas * patched.timestep(torch.ones(1)))
    else:
        sigmas = model.get_model_object("model_sampling").sigmas.cpu()[iddpm.respaced_timesteps(total)]
    return torch.cat([sigmas, torch.zeros(1)])[-(steps + 1) :]


def sample(
    model: ModelPatcher, positive: list, negative: list, latent: dict, seed: int, steps: int, cfg: float,
    sampler_name: str = ORIGINAL, denoise: float = 1.0, progress: tuple[int, int] | None = None,
) -> tuple[torch.Tensor, Sizes]:  # fmt: skip
    """Denoise a LATENT: samples [B, C, T, h, w], the same a stock graph of OpenSoraModelSampling,
    OpenSoraScheduler, CFGGuider and SamplerCustomAdvanced gives; and its `latent.Sizes`.

    `progress` is (steps before, steps in all) where this run is one of several that share a progress bar.
    """
    base = base_model_of(model)
    sizes = sizes_for(model, latent)
    shape, channels = latent["samples"].shape, base.latent_format.latent_channels
    if shape[1] != channels:
        refuse_misfit(shape, "latent", channels, "model")
    sigmas = sigmas_for(model, sizes, steps, denoise)
    if sampler_name == ORIGINAL:
        sampler = sampler_for(base, total_steps(steps, denoise) if len(sigmas) else steps)
    else:
        sampler = comfy.samplers.sampler_object(sampler_name)
    model = for_clip(model, sizes, keep_patched=True)
    start = comfy.sample.fix_empty_latent_channels(model, latent["samples"])
    noise = comfy.sample.prepare_noise(start, seed, latent.get("batch_index"))

    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    samples = guider.sample(
        noise,
        start,
        sampler,
        sigmas,
        denoise_mask=latent.get("noise_mask"),
        callback=_callback(model, max(1, len(sigmas) - 1), progress),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
    return samples.to(management.intermediate_device()), sizes


def _callback(model, steps, progress):
    """ComfyUI's callback for progress and previews."""
    before, total = progress or (0, steps)
    show = latent_preview.prepare_callback(model, total)
    return lambda step, x0, x, _: show(before + step, x0, x, total)
