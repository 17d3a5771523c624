"""Turns a transformer file into a ComfyUI MODEL."""

import comfy.model_management as management
import comfy.model_patcher
import torch
from comfy.patcher_extension import WrappersMP

from ...model.flow import shift_ratio
from ...model.layers import rope_frequencies
from ...model.loading import TRANSFORMER_OPTIONAL, check_keys, transformer_config
from ...model.stdit3 import STDiT3
from . import files
from .base_model import OpenSoraConfig, OpenSoraModel, compute_dtype, flow_settings, keep_frames, wake_frames
from .weights import assign_weights

WEIGHT_DTYPES = {
    "auto": None,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8_e4m3fn": torch.float8_e4m3fn,
}
XL_HIDDEN_SIZE = 1152


def load_model(path, weight_dtype="auto", disable_dynamic=False):
    """A ModelPatcher around the transformer in `path`.

    Args:
        weight_dtype: a key of WEIGHT_DTYPES; "auto" leaves the choice to ComfyUI.
        disable_dynamic: ComfyUI asks for a plain ModelPatcher when it clones a model itself.

    Raises ValueError for a damaged file, another family's, or keys that do not fit.
    """
    state_dict, metadata = files.read(path, "model_name")
    try:
        sizes = transformer_config(state_dict, metadata.get("config"))
        with torch.device("meta"):
            check_keys(STDiT3(sizes), state_dict, TRANSFORMER_OPTIONAL)
    except ValueError as error:
        raise ValueError(f"model_name: {path}: {error}") from error
    if "rope.freqs" not in state_dict:
        state_dict["rope.freqs"] = rope_frequencies(sizes.hidden_size // sizes.num_heads)

    load_device, offload_device = management.get_torch_device(), management.unet_offload_device()
    config = _config(sizes, metadata, state_dict, WEIGHT_DTYPES[weight_dtype], load_device)
    model = OpenSoraModel(config, metadata, device=offload_device)
    plain = comfy.model_patcher.ModelPatcher
    patcher_class = plain if disable_dynamic else getattr(comfy.model_patcher, "CoreModelPatcher", plain)
    patcher = patcher_class(model, load_device=load_device, offload_device=offload_device)
    if getattr(patcher, "is_dynamic", lambda: False)():
        model.load_model_weights(state_dict, "", assign=True)
    else:
        _assign(model, state_dict, offload_device)
    patcher.set_model_denoise_mask_function(wake_frames)
    patcher.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, "opensora", keep_frames)
    patcher.cached_patcher_init = (load_model, (path, weight_dtype))
    return patcher


def _config(sizes, metadata, state_dict, dtype, load_device):
    config = OpenSoraConfig({"sizes": sizes})
    if dtype is None:
        dtype = management.unet_dtype(
            model_params=sum(tensor.numel() for tensor in state_dict.values()),
            supported_dtypes=config.supported_inference_dtypes,
            weight_dtype=state_dict["x_embedder.proj.weight"].dtype,
        )
    manual_cast = management.unet_manual_cast(dtype, load_device, config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, manual_cast)
    config.memory_usage_factor = config.memory_usage_factor * sizes.hidden_size / XL_HIDDEN_SIZE
    config.latent_format.latent_channels = sizes.in_channels
    if metadata.get("latent_rgb_factors"):
        config.latent_format.latent_rgb_factors = metadata["latent_rgb_factors"]
        config.latent_format.latent_rgb_factors_bias = metadata.get("latent_rgb_factors_bias")
    made_for = metadata.get("made_for")
    if made_for:  # a graph without OpenSoraModelSampling then samples as for the size the file was made for
        ratio = shift_ratio(made_for["height"], made_for["width"], made_for["num_frames"], **flow_settings(metadata))
        config.sampling_settings["shift"] = float(ratio)
    return config


def _assign(model, state_dict, device):
    stored, computed = model.get_dtype(), compute_dtype(model)
    small = stored if stored.itemsize > 1 else computed  # fp8 is for matrices; tables and norms would lose too much

    def dtype_of(key, part):
        if key in TRANSFORMER_OPTIONAL:
            return torch.float32
        return stored if isinstance(part, (torch.nn.Linear, torch.nn.Conv3d)) else small

    assign_weights(model.diffusion_model, state_dict, device, dtype_of)
    model.diffusion_model.eval().requires_grad_(False)
