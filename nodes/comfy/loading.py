"""The one door for model files: a transformer becomes a ComfyUI MODEL, a VAE a VAE, a T5 a CLIP."""

from collections import Counter
from types import SimpleNamespace

import comfy.model_management as management
import comfy.sd
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP

from ...model.checkpoints.loading import plan_transformer, plan_vae
from ...model.checkpoints.t5 import check_keys, config_of
from ...model.flow import shift_ratio
from . import files, versions
from . import quantised as quantised_files
from .latent_formats import SigmaLatents
from .text.encoder import METADATA, OpenSoraTextModel, OpenSoraTokenizer
from .transformer import guidance
from .transformer.base_model import MODELS, compute_dtype, flow_settings
from .transformer.kept_frames import keep_frames, wake_frames
from .transformer.patches import patch_the_rest
from .vae import preview_colors
from .vae.video_vae import OpenSoraVAE
from .weights import assign_weights, note_dtypes

WEIGHT_DTYPES = {
    "auto": None,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8_e4m3fn": torch.float8_e4m3fn,
}
SIGMA_CAPTION_LENGTH = 300  # PixArt-Sigma's; PixArt-alpha reads 120 tokens
CAPTION_LENGTH = 300  # tokens of Open-Sora 1.2 and 1.3; a MODEL says its own (120 in 1.0, 200 in 1.1)
DEVICES = ("default", "cpu")
# The other half of a whole T5, and what ComfyUI's text encoders have beside every model; encoding needs none of it.
UNUSED = ("decoder.", "lm_head.", "logit_scale", "text_projection")


def load_model(
    path: str, weight_dtype: str = "auto", custom_operations: type | None = None, *, disable_dynamic: bool = False
) -> ModelPatcher:
    """A ModelPatcher around the transformer in `path`.

    Args:
        weight_dtype: a key of WEIGHT_DTYPES; "auto" leaves the choice to ComfyUI.
        custom_operations, disable_dynamic: as in `model_of`.

    Raises ValueError for a damaged file, another family's, or keys that do not fit.
    """
    state_dict, metadata, of_file = files.read(path, "model_name")
    try:
        state_dict, _ = versions.marked(state_dict, of_file)
        patcher = model_of(state_dict, metadata, weight_dtype, custom_operations, disable_dynamic=disable_dynamic)
    except ValueError as error:
        raise ValueError(f"model_name: {path}: {error}") from error
    patcher.cached_patcher_init = (load_model, (path, weight_dtype, custom_operations))
    return patcher


def model_of(
    state_dict: dict[str, torch.Tensor],
    metadata: dict,
    weight_dtype: str = "auto",
    custom_operations: type | None = None,
    *,
    disable_dynamic: bool = False,
) -> ModelPatcher:
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
    marked, quantised = versions.marked(state_dict, {})
    plain, as_they_are = quantised_files.split(marked) if quantised else (state_dict, {})
    plan = plan_transformer(plain, metadata["config"])
    load_device, offload_device = management.get_torch_device(), management.unet_offload_device()
    model_class = MODELS[plan.network.family]
    dtype = None if quantised else WEIGHT_DTYPES[weight_dtype]  # a quantised file has chosen for itself
    config = _config(model_class.config_class, plan, metadata, dtype, load_device, bool(quantised))
    config.custom_operations, config.quant_config = custom_operations, quantised
    model = model_class(config, plan.network, metadata, device=offload_device)
    patcher = versions.patcher_of(model, load_device, offload_device, disable_dynamic)
    network, dtype_of = model.diffusion_model, _dtype_of(model, plan)
    if custom_operations is None and not quantised and versions.loaded_as_they_are(patcher, plan.weights):
        note_dtypes(network, dtype_of)
    else:
        assign_weights(network, plan.weights, offload_device, dtype_of, as_they_are)
    patcher.add_callback_with_key(CallbacksMP.ON_LOAD, "opensora", patch_the_rest)
    patcher.set_model_denoise_mask_function(wake_frames)
    patcher.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, "opensora", keep_frames)
    guidance.install(patcher)
    return patcher


def _config(config_class, plan, metadata, dtype, load_device, quantised=False):
    config = config_class({"config": plan.config})
    if dtype is None:
        dtype = management.unet_dtype(
            model_params=sum(tensor.numel() for tensor in plan.weights.values()),
            supported_dtypes=config.supported_inference_dtypes,
            weight_dtype=plan.weights["x_embedder.proj.weight"].dtype,
        )
    # Layers of quantised files want to be told what they compute in, also where that is what the rest is kept in.
    kept = None if quantised else dtype
    manual_cast = management.unet_manual_cast(kept, load_device, config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, manual_cast)
    if plan.network.family == "pixart" and plan.config.model_max_length == SIGMA_CAPTION_LENGTH:
        config.latent_format = SigmaLatents()
    config.latent_format.latent_channels = plan.config.in_channels
    if metadata.get("latent_rgb_factors"):
        config.latent_format.latent_rgb_factors = metadata["latent_rgb_factors"]
        config.latent_format.latent_rgb_factors_bias = metadata.get("latent_rgb_factors_bias")
        config.latent_format.latent_rgb_mixing = metadata.get("latent_rgb_mixing")
        config.latent_format.latent_rgb_network = preview_colors.network_of(metadata, plan.config.in_channels)
    made_for = metadata.get("made_for")
    if made_for and plan.network.prediction == "flow":
        # A graph without OpenSoraModelSampling then samples as for the size the file was made for.
        flow = flow_settings(metadata, plan.network.version)
        config.sampling_settings["shift"] = float(
            shift_ratio(made_for["height"], made_for["width"], made_for["num_frames"], **flow)
        )
    return config


def _dtype_of(model, plan):
    """(key, submodule) -> the dtype that a tensor is kept in."""
    stored, computed = model.get_dtype(), compute_dtype(model)
    small = (
        stored if stored.itemsize > 1 else computed
    )  # fp8 is for matrices: tables, norms, biases would lose too much

    def dtype_of(key, part):
        if key in plan.network.OPTIONAL:
            return torch.float32
        matrix = isinstance(part, (torch.nn.Linear, torch.nn.Conv2d, torch.nn.Conv3d)) and key.endswith(".weight")
        return stored if matrix else small

    return dtype_of


def load_vae(path: str, disable_dynamic: bool = False) -> OpenSoraVAE:
    """An OpenSoraVAE for the file or Hugging Face folder at `path`, of whichever generation it is.

    `disable_dynamic`: ComfyUI asks for a plain ModelPatcher when it clones one itself.

    Raises ValueError for a damaged file, another model, or keys that do not fit.
    """
    state_dict, metadata, _ = files.read(path, "vae_name")
    try:
        plan = plan_vae(state_dict, metadata["config"])
    except ValueError as error:
        raise ValueError(f"vae_name: {path}: {error}") from error
    vae = OpenSoraVAE(plan, metadata, disable_dynamic)
    vae.patcher.cached_patcher_init = (_vae_patcher, (path,))
    return vae


def _vae_patcher(path, disable_dynamic=False):
    """The patcher alone, which ComfyUI rebuilds to clone it to another device. Arguments as `load_vae`."""
    return load_vae(path, disable_dynamic).patcher


def load_text_encoder(path: str, device: str = "default", disable_dynamic: bool = False) -> comfy.sd.CLIP:
    """A comfy.sd.CLIP around the T5 encoder in `path`: from the bundled one to T5 v1.1 XXL, fp8 included.

    Args:
        path: a single file as ComfyUI users have it, or a Hugging Face folder with its shards (or its index).
        device: one of DEVICES; "default" leaves the choice to ComfyUI, "cpu" keeps the encoder off the GPU.
        disable_dynamic: as in `load_vae`.

    Raises ValueError for a damaged file, one that is no T5 encoder, or keys that do not fit.
    """
    state_dict, _, metadata = files.read(path, "text_encoder_name")
    try:
        state_dict = {key: tensor for key, tensor in state_dict.items() if not key.startswith(UNUSED)}
        tied = state_dict.pop("encoder.embed_tokens.weight", None)  # the same table under its other name
        if tied is not None:
            state_dict.setdefault("shared.weight", tied)
        config = config_of(state_dict)
        check_keys(state_dict, config)
        parameters = comfy.utils.calculate_parameters(state_dict)
        state_dict, options = versions.quantised_text_encoder(state_dict, metadata)
        file_dtype = _file_dtype(state_dict, quantised=bool(options))
    except ValueError as error:
        raise ValueError(f"text_encoder_name: {path}: {error}") from error

    if device == "cpu":
        options["load_device"] = options["offload_device"] = torch.device("cpu")
    own = metadata.get("opensora") or {}
    tokenizer_data = {"t5xxl_max_length": (own.get("config") or {}).get("max_length", CAPTION_LENGTH), METADATA: own}
    target = SimpleNamespace(
        clip=OpenSoraTextModel, tokenizer=OpenSoraTokenizer, params={"config": config, "file_dtype": file_dtype}
    )
    clip = versions.clip_with_weights(target, state_dict, tokenizer_data, parameters, options, disable_dynamic)
    clip.patcher.cached_patcher_init = (_text_patcher, (path, device))
    return clip


def _file_dtype(state_dict, quantised):
    """The dtype to keep weights in: the norms' where layers are quantised, else that of most values."""
    if quantised:
        return state_dict["encoder.final_layer_norm.weight"].dtype
    values = Counter()
    for tensor in state_dict.values():
        values[tensor.dtype] += tensor.numel()
    return values.most_common(1)[0][0]


def _text_patcher(path, device="default", disable_dynamic=False):
    """The patcher alone, which ComfyUI rebuilds to clone it for another device or for compiling."""
    return load_text_encoder(path, device, disable_dynamic).patcher
