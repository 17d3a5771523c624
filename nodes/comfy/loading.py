"""Turns a transformer file into a ComfyUI MODEL."""

import comfy.model_management as management
import comfy.model_patcher
import torch
from comfy.patcher_extension import CallbacksMP, WrappersMP

from ...model.flow import shift_ratio
from ...model.loading import plan_transformer
from . import files
from .latent_formats import SigmaLatents
from .transformer import guidance
from .transformer.base_model import MODELS, compute_dtype, flow_settings
from .transformer.kept_frames import keep_frames, wake_frames
from .vae import preview_colors
from .weights import assign_weights, note_dtypes, patch_the_rest

WEIGHT_DTYPES = {
    "auto": None,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8_e4m3fn": torch.float8_e4m3fn,
}
SIGMA_CAPTION_LENGTH = 300  # PixArt-Sigma's; PixArt-alpha reads 120 tokens


def load_model(path, weight_dtype="auto", custom_operations=None, *, disable_dynamic=False):
    """A ModelPatcher around the transformer in `path`.

    Args:
        weight_dtype: a key of WEIGHT_DTYPES; "auto" leaves the choice to ComfyUI.
        custom_operations, disable_dynamic: as in `model_of`.

    Raises ValueError for a damaged file, another family's, or keys that do not fit.
    """
    state_dict, metadata = files.read(path, "model_name")
    try:
        patcher = model_of(state_dict, metadata, weight_dtype, custom_operations, disable_dynamic=disable_dynamic)
    except ValueError as error:
        raise ValueError(f"model_name: {path}: {error}") from error
    patcher.cached_patcher_init = (load_model, (path, weight_dtype, custom_operations))
    return patcher


def model_of(state_dict, metadata, weight_dtype="auto", custom_operations=None, *, disable_dynamic=False):
    """A ModelPatcher around a transformer's weights, for packs with file formats of their own too.

    Args:
        state_dict: key → tensor by the checkpoint's names. Quantised tensors tell the shape that they stand for.
        metadata: what a file of this pack says of itself, at least {"config": {}}.
        weight_dtype: a key of WEIGHT_DTYPES; "auto" leaves the choice to ComfyUI.
        custom_operations: a namespace of layers as comfy.ops.manual_cast, whose `_load_from_state_dict` may take
            quantised tensors and whose `forward` brings them back; None for ComfyUI's own.
        disable_dynamic: ComfyUI asks for a plain ModelPatcher when it clones a model itself.

    Raises ValueError for another family's weights, or keys that do not fit.
    """
    plan = plan_transformer(state_dict, metadata["config"])
    load_device, offload_device = management.get_torch_device(), management.unet_offload_device()
    model_class = MODELS[plan.family.family]
    config = _config(model_class.config_class, plan, metadata, WEIGHT_DTYPES[weight_dtype], load_device)
    config.custom_operations = custom_operations
    model = model_class(config, plan.family, metadata, device=offload_device)
    plain = comfy.model_patcher.ModelPatcher
    patcher_class = plain if disable_dynamic else getattr(comfy.model_patcher, "CoreModelPatcher", plain)
    patcher = patcher_class(model, load_device=load_device, offload_device=offload_device)
    network, dtype_of = model.diffusion_model, _dtype_of(model, plan)
    if custom_operations is None and getattr(patcher, "is_dynamic", lambda: False)():
        model.load_model_weights(dict(plan.weights), "", assign=True)
        note_dtypes(network, dtype_of)
    else:
        assign_weights(network, plan.weights, offload_device, dtype_of)
    patcher.add_callback_with_key(CallbacksMP.ON_LOAD, "opensora", patch_the_rest)
    patcher.set_model_denoise_mask_function(wake_frames)
    patcher.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, "opensora", keep_frames)
    guidance.install(patcher)
    return patcher


def _config(config_class, plan, metadata, dtype, load_device):
    sizes = plan.sizes
    config = config_class({"sizes": sizes})
    if dtype is None:
        dtype = management.unet_dtype(
            model_params=sum(tensor.numel() for tensor in plan.weights.values()),
            supported_dtypes=config.supported_inference_dtypes,
            weight_dtype=plan.weights["x_embedder.proj.weight"].dtype,
        )
    manual_cast = management.unet_manual_cast(dtype, load_device, config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, manual_cast)
    if plan.family.family == "pixart" and sizes.model_max_length == SIGMA_CAPTION_LENGTH:
        config.latent_format = SigmaLatents()
    config.latent_format.latent_channels = sizes.in_channels
    if metadata.get("latent_rgb_factors"):
        config.latent_format.latent_rgb_factors = metadata["latent_rgb_factors"]
        config.latent_format.latent_rgb_factors_bias = metadata.get("latent_rgb_factors_bias")
        config.latent_format.latent_rgb_mixing = metadata.get("latent_rgb_mixing")
        config.latent_format.latent_rgb_network = preview_colors.network_of(metadata, sizes.in_channels)
    made_for = metadata.get("made_for")
    if made_for and plan.family.prediction == "flow":
        # A graph without OpenSoraModelSampling then samples as for the size the file was made for.
        flow = flow_settings(metadata, plan.family.version)
        config.sampling_settings["shift"] = float(
            shift_ratio(made_for["height"], made_for["width"], made_for["num_frames"], **flow)
        )
    return config


def _dtype_of(model, plan):
    """(key, submodule) -> the dtype that a tensor is kept in."""
    stored, computed = model.get_dtype(), compute_dtype(model)
    small = (
        stored if stored.itemsize > 1 else computed
    )  # fp8 is for matrices; tables, norms and biases would lose too much

    def dtype_of(key, part):
        if key in plan.family.OPTIONAL:
            return torch.float32
        matrix = isinstance(part, (torch.nn.Linear, torch.nn.Conv2d, torch.nn.Conv3d)) and key.endswith(".weight")
        return stored if matrix else small

    return dtype_of
