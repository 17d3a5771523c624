"""Guidance as the original has it where it differs from ComfyUI's: three channels (1.0, 1.1), image guidance (1.3)."""

import uuid

import comfy.conds
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor

from ....model.flow_v1_3 import Options, fix_flaw
from ....model.iddpm import GUIDANCE_CHANNELS

OPTIONS = "opensora_v1_3"  # transformer option: the flow_v1_3.Options of a run
UNPINNED = "opensora_unpinned"  # transformer option: leave the kept frames of 1.3 to the network, as the original does


def options_of(model_options: dict) -> Options:
    """The Options that OpenSoraV13Options left in a MODEL's `model_options`, or the defaults."""
    return model_options.get("transformer_options", {}).get(OPTIONS) or Options()


def install(patcher: ModelPatcher) -> None:
    """Give a MODEL its generation's guidance, so that every sampler has it."""
    version = patcher.model.version
    if version in ("1.0", "1.1"):
        patcher.set_model_sampler_pre_cfg_function(three_channels)
    elif version == "1.3":
        patcher.set_model_sampler_calc_cond_batch_function(text_and_image)
        patcher.set_model_sampler_post_cfg_function(flaw_fix)
        patcher.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "opensora_pin", hold_kept_frames)


def three_channels(args: dict) -> list[Tensor]:
    """ComfyUI's pre-cfg function: guidance on the first three of four channels, as the released configurations have it.

    On the fourth both halves are made equal, so that no formula of guidance, RescaleCFG's neither, finds a difference.
    """
    cond, *others = args["conds_out"]
    rest = cond[:, GUIDANCE_CHANNELS:]
    return [cond, *(torch.cat([other[:, :GUIDANCE_CHANNELS], rest], dim=1) for other in others)]


def text_and_image(args: dict) -> list[Tensor]:
    """ComfyUI's function for the predictions of a step: [conditional, unconditional], with image guidance in both.

    `flow_v1_3.combine` is ComfyUI's own guidance between v_text and v_image, plus (image_guidance - 1) · (v_image -
    v_none): added to both halves here, so that any guidance patch may follow. Where oscillation rests the prompt's
    guidance, the conditional half stands for both.
    """
    (positive, negative), x, sigma = args["conds"], args["input"], args["sigma"]
    model, model_options = args["model"], args["model_options"]

    def predict(*conds):
        return comfy.samplers.calc_cond_batch(model, list(conds), x, sigma, model_options)

    if negative is None:  # at cfg 1 ComfyUI leaves all guidance out
        return predict(positive, None)
    options, (step, steps) = options_of(model_options), step_of(sigma, model_options)
    rests = options.text_guidance(0.0, step) == 1.0
    weights = None if condition_of(positive) is None else options.image_guidance(step, steps, x.shape[2])
    if weights is None or (weights == 1).all():
        return predict(positive, None)[:1] * 2 if rests else predict(positive, negative)
    text, image, none = predict(positive, negative, without_condition(negative))
    pull = (weights - 1).to(x).view(1, 1, -1, 1, 1) * (image - none)
    return [text + pull, (text if rests else image) + pull]


def flaw_fix(args: dict) -> Tensor:
    """ComfyUI's post-cfg function: `flow_v1_3.fix_flaw` where the options ask for it and no frame is kept."""
    denoised, x = args["denoised"], args["input"]
    if not options_of(args["model_options"]).flaw_fix or condition_of(args["cond"]) is not None:
        return denoised
    # Both are velocity · sigma, and only their ratio counts.
    return x - fix_flaw(x - denoised, x - args["cond_denoised"])


def hold_kept_frames(
    executor: WrapperExecutor, x: Tensor, timestep: Tensor, model_options: dict = {}, seed: int | None = None  # noqa: B006 — as ComfyUI declares it
) -> Tensor:  # fmt: skip
    """Predict-noise wrapper: kept frames head for the latents they came with, whatever network and patches say."""
    denoised = executor(x, timestep, model_options, seed)
    found = condition_of(executor.class_obj.conds.get("positive"))
    if found is None or model_options.get("transformer_options", {}).get(UNPINNED):
        return denoised
    condition, mask = (cond.cond.to(denoised) for cond in found)
    return torch.where(mask > 0, condition, denoised)


def condition_of(conds: list[dict] | None) -> tuple[comfy.conds.CONDRegular, comfy.conds.CONDRegular] | None:
    """(condition, condition_mask) in the conds of a prompt, or None."""
    for cond in conds or ():
        own = cond.get("model_conds", {})
        if "condition" in own:
            return own["condition"], own["condition_mask"]
    return None


def without_condition(conds: list[dict]) -> list[dict]:
    """The same prompt with zeros for the condition; its mask stays."""
    zeroed = []
    for cond in conds:
        condition = cond["model_conds"]["condition"].cond
        own = {**cond["model_conds"], "condition": comfy.conds.CONDRegular(torch.zeros_like(condition))}
        # The same in every step: caches (EasyCache) know a prompt by it.
        zeroed.append({**cond, "model_conds": own, "uuid": uuid.uuid5(cond["uuid"], "without condition")})
    return zeroed


def step_of(sigma: Tensor, model_options: dict) -> tuple[int, int]:
    """(index of the step at `sigma`, number of steps) in the run that `model_options` belong to."""
    sigmas = model_options.get("transformer_options", {}).get("sample_sigmas")
    if sigmas is None or len(sigmas) < 2:
        return 0, 1
    starts = sigmas[:-1]
    step = int((starts > sigma.reshape(-1)[0].to(starts) * (1 + 1e-6)).sum())
    return min(step, len(starts) - 1), len(starts)
