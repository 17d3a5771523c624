"""Checkpoints: read a file, tell what it is, build the module for it, and load it key by key."""

import json
import os
import re
from collections.abc import Mapping

import torch
from safetensors import SafetensorError, safe_open

from .layers import rope_frequencies
from .stdit3 import STDiT3, STDiT3Config
from .vae import OFFICIAL_SCALE, OFFICIAL_SHIFT, VideoVAE, VideoVAEConfig
from .vae_spatial import SpatialConfig
from .vae_temporal import TemporalConfig

PYTORCH_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth")
DEFAULT_HEAD_DIM = 72  # every official transformer's; only asked where no q/k norm tells

# Tell-tale keys of files that artists keep in the same folders, from the most to the least specific; no node: nothing
# here or in ComfyUI loads it.
KNOWN_FILES = (
    ("blocks.0.attn_temp.qkv.weight", "an older Open-Sora transformer (1.0 or 1.1)", None),
    ("blocks.0.scale_shift_table", "a PixArt transformer", "Load Diffusion Model"),
    ("fps_embedder.mlp.0.weight", "an Open-Sora transformer (STDiT3)", "Load Open-Sora Model"),
    ("temporal_vae.encoder.conv_in.conv.weight", "an Open-Sora VAE 1.2", "Load Open-Sora VAE"),
    ("decoder.up.2.upsample.conv3d.conv1.conv.weight", "an Open-Sora VAE 1.3", None),
    ("encoder.block.0.layer.0.SelfAttention.q.weight", "a T5 text encoder", "Load Open-Sora Text Encoder"),
    ("shared.weight", "a T5 text encoder", "Load Open-Sora Text Encoder"),
    ("conditioner.embedders.1.model.ln_final.weight", "a Stable Diffusion XL checkpoint", "Load Checkpoint"),
    ("model.diffusion_model.input_blocks.0.0.weight", "a Stable Diffusion checkpoint", "Load Checkpoint"),
    (
        "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight",
        "a Stable Diffusion 3 checkpoint",
        "Load Checkpoint",
    ),
    ("double_blocks.0.img_attn.norm.key_norm.scale", "a Flux transformer", "Load Diffusion Model"),
    ("text_model.encoder.layers.0.layer_norm1.weight", "a CLIP text encoder", "Load CLIP"),
    ("decoder.up.0.block.0.norm1.weight", "a Stable Diffusion VAE", "Load VAE"),
    ("decoder.up_blocks.0.resnets.0.norm1.weight", "a 2D VAE in diffusers' layout", "Load VAE"),
)


def read_file(path):
    """Open a safetensors file without reading its weights: (state_dict of memory-mapped tensors, metadata dict).

    The metadata's `opensora` entry, JSON, arrives parsed. Raises ValueError for a file that is damaged or is none.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            state_dict = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 — not a dict
        if "opensora" in metadata:
            own = json.loads(metadata["opensora"])
            metadata["opensora"] = own if isinstance(own, dict) else {}
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
        suffix = os.path.splitext(path)[1].lower()  # pickles are named, not read: they can run code
        if suffix in PYTORCH_SUFFIXES:
            raise ValueError(
                f"{path} is a PyTorch file ({suffix}), and this pack reads safetensors only; get the model as a "
                ".safetensors file, or convert it to one"
            ) from error
        raise ValueError(
            f"{path} is not a readable safetensors file ({error}); it may be cut short: download it again"
        ) from error
    return state_dict, metadata


def identify(state_dict):
    """(what a file is, the node that loads it or None) from its tell-tale keys; (None, None) for an unknown one."""
    for key, what, node in KNOWN_FILES:
        if key in state_dict:
            return what, node
    return None, None


def refusal(what, node, wanted):
    """What to tell about a file that `identify` knows, where `wanted` was asked for."""
    advice = f"use {node} for it" if node else "this version of the pack loads Open-Sora 1.2"
    return f"this is {what}, not {wanted}; {advice}"


def _refuse(state_dict, wanted):
    what, node = identify(state_dict)
    if what is None:
        sample = ", ".join(sorted(state_dict)[:3]) or "none"
        raise ValueError(f"this file is not {wanted}; its keys ({sample}, …) belong to no model this pack knows")
    raise ValueError(refusal(what, node, wanted))


def _count(state_dict, pattern):
    """How many different first groups of `pattern` the keys show."""
    matches = (re.match(pattern, key) for key in state_dict)
    return len({match.group(1) for match in matches if match})


def _shape(state_dict, key, rank, otherwise):
    """The shape of a weight that tells sizes; `otherwise` where it is missing or odd, which `check_keys` then lists."""
    tensor = state_dict.get(key)
    return tuple(tensor.shape) if tensor is not None and tensor.ndim == rank else otherwise


def _agree(found, config, names):
    """Refuse a config that contradicts what the weights say."""
    for name in names:
        if name in config and config[name] is not None:
            given = tuple(config[name]) if isinstance(config[name], (list, tuple)) else config[name]
            if given != getattr(found, name):
                raise ValueError(f"config says {name} = {given}, but the weights say {getattr(found, name)}")


def transformer_config(state_dict, config=None):
    """The `STDiT3Config` of these weights; `config` supplies what they cannot tell. ValueError for other files."""
    config = config or {}
    depth = _count(state_dict, r"spatial_blocks\.(\d+)\.")
    if not depth:
        _refuse(state_dict, "an Open-Sora 1.2 transformer")
    if "x_embedder_cond.proj.weight" in state_dict:
        raise ValueError("this is an Open-Sora 1.3 transformer; this version of the pack loads Open-Sora 1.2")
    _, size = _shape(state_dict, "final_layer.scale_shift_table", 2, (2, STDiT3Config.hidden_size))
    hidden_size, in_channels, *patch_size = _shape(state_dict, "x_embedder.proj.weight", 5, (size, 4, 1, 2, 2))
    norms = [tensor for key, tensor in state_dict.items() if key.endswith("attn.q_norm.weight")]
    if norms:
        num_heads = hidden_size // max(1, norms[0].numel())
    elif "rope.freqs" in state_dict:
        num_heads = hidden_size // max(1, 2 * state_dict["rope.freqs"].numel())
    else:
        num_heads = config.get("num_heads") or hidden_size // DEFAULT_HEAD_DIM
    patch_volume = patch_size[0] * patch_size[1] * patch_size[2]
    _, features = _shape(state_dict, "y_embedder.y_proj.fc1.weight", 2, (size, STDiT3Config.caption_channels))
    length = config.get("model_max_length") or STDiT3Config.model_max_length
    max_length, caption_channels = _shape(state_dict, "y_embedder.y_embedding", 2, (length, features))
    mlp_size, _ = _shape(state_dict, "spatial_blocks.0.mlp.fc1.weight", 2, (4 * hidden_size, hidden_size))
    out_size, _ = _shape(state_dict, "final_layer.linear.weight", 2, (2 * in_channels * patch_volume, hidden_size))
    found = STDiT3Config(
        depth=depth,
        hidden_size=hidden_size,
        num_heads=max(1, num_heads),
        caption_channels=caption_channels,
        model_max_length=max_length,
        in_channels=in_channels,
        patch_size=tuple(patch_size),
        mlp_ratio=mlp_size / hidden_size,
        pred_sigma=out_size == 2 * in_channels * patch_volume,
        qk_norm=bool(norms),
        input_sq_size=config.get("input_sq_size") or 512,
    )
    _agree(
        found,
        config,
        ("depth", "hidden_size", "num_heads", "caption_channels", "model_max_length", "in_channels", "patch_size",
         "pred_sigma", "qk_norm"),
    )  # fmt: skip
    return found


def vae_config(state_dict, config=None):
    """The `VideoVAEConfig` of these weights; `config` supplies what they cannot tell. ValueError for other files."""
    config = config or {}
    spatial, temporal = "spatial_vae.module.encoder.", "temporal_vae.encoder."
    levels = _count(state_dict, re.escape(spatial) + r"down_blocks\.(\d+)\.")
    temporal_levels = _count(state_dict, re.escape(temporal) + r"block_res_blocks\.(\d+)\.")
    if not levels or not temporal_levels:
        _refuse(state_dict, "an Open-Sora VAE 1.2")
    norm_groups = config.get("spatial_norm_groups") or 32
    spatial_config = SpatialConfig(
        block_out_channels=tuple(
            _shape(state_dict, f"{spatial}down_blocks.{i}.resnets.0.norm2.weight", 1, (norm_groups,))[0]
            for i in range(levels)
        ),
        layers_per_block=_count(state_dict, re.escape(spatial) + r"down_blocks\.0\.resnets\.(\d+)\."),
        latent_channels=_shape(state_dict, f"{spatial}conv_out.weight", 4, (8,))[0] // 2,
        norm_groups=norm_groups,
    )
    filters, channels, *_ = _shape(state_dict, f"{temporal}conv_in.conv.weight", 5, (128, 4))
    temporal_config = TemporalConfig(
        channels=channels,
        latent_channels=_shape(state_dict, "temporal_vae.post_quant_conv.conv.weight", 5, (4,))[0],
        filters=filters,
        channel_multipliers=tuple(
            _shape(state_dict, f"{temporal}block_res_blocks.{i}.0.conv1.conv.weight", 5, (filters,))[0] // filters
            for i in range(temporal_levels)
        ),
        num_res_blocks=_count(state_dict, re.escape(temporal) + r"block_res_blocks\.0\.(\d+)\."),
        temporal_downsample=tuple(
            any(f"{temporal}conv_blocks.{i}.conv.{part}" in state_dict for part in ("weight", "bias"))
            for i in range(temporal_levels - 1)
        ),
        norm_groups=config.get("temporal_norm_groups") or 32,
    )
    return VideoVAEConfig(
        spatial=spatial_config,
        temporal=temporal_config,
        chunk_frames=config.get("chunk_frames") or 17,
        shift=tuple(config.get("shift") or OFFICIAL_SHIFT),
        scale=tuple(config.get("scale") or OFFICIAL_SCALE),
    )


def normalise_vae_keys(state_dict):
    """Rename the attention keys of older diffusers files (query, key, value, proj_attn) to today's."""
    names = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

    def rename(key):
        return re.sub(r"(attentions\.\d+)\.(query|key|value|proj_attn)\.", lambda m: f"{m[1]}.{names[m[2]]}.", key)

    return {rename(key): value for key, value in state_dict.items()}


def check_keys(module, state_dict, optional=()):
    """Refuse weights whose keys or shapes are not exactly the module's, listing them; `optional` ones may be missing."""
    own = module.state_dict()
    missing = sorted(set(own) - set(state_dict) - set(optional))
    unexpected = sorted(set(state_dict) - set(own))
    misshapen = [
        f"{key} {tuple(state_dict[key].shape)} instead of {tuple(own[key].shape)}"
        for key in sorted(set(own) & set(state_dict))
        if state_dict[key].shape != own[key].shape
    ]
    problems = [
        f"{len(found)} {kind}: {', '.join(found[:8])}{', …' if len(found) > 8 else ''}"
        for kind, found in (("missing keys", missing), ("unexpected keys", unexpected), ("wrong shapes", misshapen))
        if found
    ]
    if problems:
        raise ValueError(f"these weights do not fit {type(module).__name__}. " + "; ".join(problems))


# Buffers that a file may lack because they can be computed.
TRANSFORMER_OPTIONAL = ("rope.freqs",)
VAE_OPTIONAL = ("shift", "scale")


def _assign(module, state_dict, optional):
    """Check, then put the tensors in place; those a file leaves out keep their computed values."""
    check_keys(module, state_dict, optional)
    module.load_state_dict(state_dict, strict=False, assign=True)
    return module.eval().requires_grad_(False)


def load_transformer(state_dict: Mapping, config: Mapping | None = None, **build):
    """The transformer module for these weights, ready to call.

    Args:
        state_dict: key → tensor by the original's names; tensors are used as they are, not copied.
        config: the original's configuration keys, for what weights cannot tell; what they tell must agree.
        build: `operations`, `attention` as `STDiT3` takes them.

    Raises:
        ValueError: another kind of file, or missing, unexpected or misshapen keys (listed).
    """
    sizes = transformer_config(state_dict, config)
    with torch.device("meta"):  # no memory is touched until the file's own tensors are put in place
        module = STDiT3(sizes, **build)
    module.rope.freqs = rope_frequencies(sizes.hidden_size // sizes.num_heads)
    return _assign(module, state_dict, TRANSFORMER_OPTIONAL)


def load_vae(state_dict: Mapping, config: Mapping | None = None, **build):
    """The video VAE module for these weights, ready to call. Arguments and errors as `load_transformer`.

    `config` keys: spatial_norm_groups, temporal_norm_groups, chunk_frames, shift, scale.
    """
    state_dict = normalise_vae_keys(state_dict)
    sizes = vae_config(state_dict, config)
    with torch.device("meta"):
        module = VideoVAE(sizes, **build)
    for name in VAE_OPTIONAL:
        setattr(module, name, torch.tensor(getattr(sizes, name)).view(1, -1, 1, 1, 1))
    return _assign(module, state_dict, VAE_OPTIONAL)


__all__ = [
    "check_keys", "identify", "load_transformer", "load_vae", "read_file", "refusal", "transformer_config", "vae_config",
]  # fmt: skip
