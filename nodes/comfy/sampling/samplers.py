"""The samplers Open-Sora was published with, where none of ComfyUI's is the same, as ComfyUI samplers."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import comfy.patcher_extension
import comfy.samplers
import torch
from torch import Tensor
from tqdm.auto import trange

from ....model import iddpm
from ..transformer.base_model import OpenSoraModel
from ..transformer.guidance import UNPINNED, options_of
from ..transformer.network import VARIANCE, Variance

Draws = Callable[[int, Sequence[int]], Tensor]  # (number, shape) -> noise


def sampler_for(base: OpenSoraModel, total_steps: int) -> comfy.samplers.KSAMPLER:
    """The original's sampler for an OpenSoraModel and a schedule of `total_steps`, of which a run may be the end."""
    if base.diffusion_model.prediction == "epsilon":
        return comfy.samplers.KSAMPLER(ancestral, {"total_steps": total_steps})
    if base.version == "1.3":
        return comfy.samplers.KSAMPLER(conditioned_euler)
    return comfy.samplers.sampler_object("euler")


def draws(seed: int | None, x: Tensor) -> Draws:
    """Standard normal tensors like x, the same on every device; not the run's initial noise."""
    generator = torch.Generator().manual_seed(((seed or 0) + 1) % 2**64)
    return lambda number, shape: torch.randn(shape, generator=generator).to(x)


def _with_transformer_options(extra_args, **options):
    """A copy of a sampler's `extra_args` that gives the network these transformer options."""
    model_options = comfy.patcher_extension.copy_nested_dicts(extra_args["model_options"])
    model_options.setdefault("transformer_options", {}).update(options)
    return {**extra_args, "model_options": model_options}


@torch.no_grad()
def ancestral(
    model: Any, x: Tensor, sigmas: Tensor, extra_args: dict | None = None,
    callback: Callable | None = None, disable: bool | None = None, *, total_steps: int, noise: Draws | None = None,
) -> Tensor:  # fmt: skip
    """The ancestral sampler of 1.0 and 1.1 with learned variance (`model.iddpm`), in ComfyUI's loop.

    Args:
        model: ComfyUI's denoiser, (x, sigma) -> clean latents, guided; x is z · √(1 + σ²).
        sigmas: the last levels of the respaced schedule of `total_steps` steps, then 0.
        noise: (number, shape) -> draw, two a step where frames are kept, as in `model.iddpm.sample`.
    """
    extra_args = extra_args or {"model_options": {}}
    table, steps = iddpm.schedule(total_steps), len(sigmas) - 1
    noise = noise or draws(extra_args.get("seed"), x)
    variance = Variance(x.shape, x.device)
    extra_args = _with_transformer_options(extra_args, **{VARIANCE: variance})
    mask, latents, count = extra_args.get("denoise_mask"), model.latent_image.to(x), itertools.count()
    wakes_at = None if mask is None else (mask * total_steps).int()

    z = model.noise.to(x)
    if steps < total_steps:
        z = table.add_noise(latents, z, steps - 1)
    if mask is not None:
        z = torch.where(wakes_at >= steps, z, latents)
    rows = x.new_ones(x.shape[0])
    for step in trange(steps, disable=disable):
        index, sigma = steps - 1 - step, sigmas[step]
        if mask is not None:
            noised = table.add_noise(z, noise(next(count), x.shape), index)
            z = torch.where((wakes_at == index) & (wakes_at > 0), noised, z)
        variance.start()
        scaled = z * (1 + sigma**2).sqrt()
        denoised = model(scaled, sigma * rows, **extra_args)
        if callback is not None:
            callback({"x": z, "i": step, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised})
        z = table.step(z, (scaled - denoised) / sigma, variance.value, index, noise(next(count), x.shape))
        if mask is not None:
            z = torch.where((wakes_at > 0) & (wakes_at >= index), z, latents)
    return z


@torch.no_grad()
def conditioned_euler(
    model: Any, x: Tensor, sigmas: Tensor, extra_args: dict | None = None,
    callback: Callable | None = None, disable: bool | None = None, *, noise: Draws | None = None,
) -> Tensor:  # fmt: skip
    """Open-Sora 1.3's loop: Euler; frames of mask value 0 are a condition, and in x they are generated like the rest.

    With SDEdit they are noised anew from the kept latents before each step. `keep_frames` puts these back at the end.

    Args:
        noise: (step, shape) -> draw, the noise for SDEdit.
    """
    extra_args = extra_args or {"model_options": {}}
    options, mask = options_of(extra_args["model_options"]), extra_args.get("denoise_mask")
    kept = mask == 0 if mask is not None and options.sdedit else None
    noise, latents = noise or draws(extra_args.get("seed"), x), model.latent_image
    extra_args = _with_transformer_options(extra_args, **{UNPINNED: True})
    rows = x.new_ones(x.shape[0])
    for step in trange(len(sigmas) - 1, disable=disable):
        sigma = sigmas[step]
        if kept is not None:
            x = torch.where(kept, (1 - sigma) * latents.to(x) + sigma * noise(step, x.shape), x)
        denoised = model(x, sigma * rows, **extra_args)
        if callback is not None:
            callback({"x": x, "i": step, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised})
        x = x + (x - denoised) / sigma * (sigmas[step + 1] - sigma)
    return x
