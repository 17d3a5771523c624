"""What a LATENT's noise mask keeps: when each frame wakes, what surrounds a region, how both leave a run untouched."""

import functools
from collections.abc import Callable

import torch
from comfy.model_base import BaseModel
from comfy.model_sampling import ModelSamplingDiscreteFlow as Sampling
from comfy.patcher_extension import WrapperExecutor
from comfy.samplers import CFGGuider
from torch import Tensor

from ....model.flow import NUM_TIMESTEPS
from ..versions import retained


class FlowFrames:
    """Open-Sora 1.2: a frame of mask value m stays clean, and is told timestep 0, until m · 1000 ≥ t."""

    def awake(self, mask: Tensor, sigma: Tensor, sigmas: Tensor | None, sampling: Sampling) -> Tensor:
        """True where `mask`, [B, …] in 0…1, is denoised at `sigma` [B] of a run over `sigmas`."""
        return mask * NUM_TIMESTEPS >= _beside(sigma * NUM_TIMESTEPS, mask)  # patches may count timesteps otherwise

    def told(self, mask: Tensor, sigma: Tensor, sigmas: Tensor | None, sampling: Sampling) -> Tensor:
        """True where a frame is told the timestep, False where it is told 0; arguments as `awake`."""
        return self.awake(mask, sigma, sigmas, sampling)

    def asleep_throughout(self, mask: Tensor, sigmas: Tensor, sampling: Sampling) -> Tensor:
        """True where `mask` never woke in a run over `sigmas`."""
        return ~self.awake(mask, sigmas[-2:-1], sigmas, sampling)


class StepFrames(FlowFrames):
    """Open-Sora 1.0 and 1.1: a frame wakes at the step whose index, counted down to 0, is int(m · N).

    On that step it is noised and denoised, but still told timestep 0. Other than in the original a frame that would
    wake at step 0 never does. The same rule as `model.iddpm.frame_states`, for any of ComfyUI's schedules.
    """

    def awake(self, mask: Tensor, sigma: Tensor, sigmas: Tensor | None, sampling: Sampling) -> Tensor:
        steps, index = _position(sigma, sigmas, sampling)
        wakes_at = (mask * steps).int()
        return (wakes_at > 0) & (wakes_at >= _beside(index, mask))

    def told(self, mask: Tensor, sigma: Tensor, sigmas: Tensor | None, sampling: Sampling) -> Tensor:
        steps, index = _position(sigma, sigmas, sampling)
        return (mask * steps).int() > _beside(index, mask)


class ConditionFrames(FlowFrames):
    """Open-Sora 1.3: a frame of mask value 0 is a condition of its own and noised like the rest; others as in 1.2."""

    def awake(self, mask: Tensor, sigma: Tensor, sigmas: Tensor | None, sampling: Sampling) -> Tensor:
        return (strongest(mask) == 0) | super().awake(mask, sigma, sigmas, sampling)

    def asleep_throughout(self, mask: Tensor, sigmas: Tensor, sampling: Sampling) -> Tensor:
        return (mask == 0) | super().asleep_throughout(mask, sigmas, sampling)


def strongest(mask: Tensor) -> Tensor:
    """The largest value of every frame: [B, 1, T, 1, 1] of a mask [B, C, T, h, w]."""
    return mask.amax(dim=(1, 3, 4), keepdim=True)


class Regions:
    """The frames of a run of which the mask generates a part and keeps a part."""

    def __init__(self, base: BaseModel, mask: Tensor, sigmas: Tensor) -> None:
        """`base`: the model; `mask` [B, C, T, h, w] in 0…1; `sigmas` of the run."""
        self.base, self.sigmas = base, sigmas
        self.strongest = strongest(mask)
        self.partly = self.strongest > mask.amin(dim=(1, 3, 4), keepdim=True)

    def awake(self, sigma: Tensor) -> Tensor:
        """True, [B, 1, T, 1, 1], for those of them that are being generated at `sigma` [B]."""
        base = self.base
        return self.partly & base.kept_frames.awake(self.strongest, sigma, self.sigmas, base.model_sampling)


def _beside(values, mask):
    """values [B] so that they broadcast to mask [B, …]."""
    return values.view(-1, *[1] * (mask.ndim - 1)).to(mask.device)


def _position(sigma, sigmas, sampling):
    """(number of steps N, index [B] of the step at `sigma`, N - 1 … 0) of a run over `sigmas`.

    Levels lie evenly in time, so their distance tells N even where only the end of a schedule is run. Without a
    schedule each of the 1000 timesteps is a step.
    """
    t = sampling.timestep(sigma).float()
    steps = NUM_TIMESTEPS if sigmas is None or len(sigmas) < 2 else _steps_of(sigmas, sampling)
    return steps, (t * (steps - 1) / (NUM_TIMESTEPS - 1)).round()


@functools.lru_cache(maxsize=4)
def _steps_of(sigmas, sampling):
    """N of a run over `sigmas`, asked for once a run: a GPU is waited for until it tells."""
    gaps = len(sigmas) - 2
    first, last = sampling.timestep(sigmas[[0, -2]]).float().tolist()
    return 1 if not gaps or first <= last else round(1 + gaps * (NUM_TIMESTEPS - 1) / (first - last))


def wake_frames(sigma: Tensor, denoise_mask: Tensor, extra_options: dict) -> Tensor:
    """ComfyUI's denoise-mask function: 1 where a frame is awake at `sigma`, else 0, by the rule of the model.

    Without it a partial value would blend clean and noisy on every step.
    """
    base = extra_options["model"].inner_model
    awake = base.kept_frames.awake(denoise_mask, sigma, extra_options.get("sigmas"), base.model_sampling)
    return awake.to(denoise_mask)


def keep_frames(
    executor: WrapperExecutor, guider: CFGGuider, sigmas: Tensor, extra_args: dict, callback: Callable | None,
    noise: Tensor, latent_image: Tensor, denoise_mask: Tensor | None = None, disable_pbar: bool = False,
) -> Tensor:  # fmt: skip
    """Sampler wrapper: tells the model what it must know of the run; what never woke leaves it as it entered.

    Samplers carry it along on its own line from noise to data, which ends a rounding error away.
    """
    base = guider.inner_model
    outer = base.regions, base.retained  # of a run in whose callback this one is made
    base.regions = None if denoise_mask is None else Regions(base, denoise_mask, sigmas)
    base.retained = retained(extra_args["model_options"])
    try:
        samples = executor(guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar)
    finally:
        base.regions, base.retained = outer
    if denoise_mask is None or len(sigmas) < 2:
        return samples
    asleep = denoise_mask == 0
    if extra_args["model_options"].get("denoise_mask_function") is wake_frames:
        asleep = base.kept_frames.asleep_throughout(denoise_mask, sigmas, base.model_sampling)
    return torch.where(asleep.to(samples.device), latent_image.to(samples), samples)
