"""Small random networks and calls of nodes, for the node tests."""

import importlib
import json

import torch
from safetensors.torch import save_file

CAPTION_CHANNELS, CAPTION_LENGTH = 32, 24
FLOW = {"base_resolution": 1024, "base_num_frames": 1, "scale": 1.0}
MADE_FOR = {"height": 64, "width": 64, "num_frames": 17, "fps": 24}
NORM_GROUPS = 4
VAE_CONFIG = {"spatial_norm_groups": NORM_GROUPS, "temporal_norm_groups": NORM_GROUPS}  # 1.2 alone has the second


def pack(name):
    """A module of the pack."""
    return importlib.import_module(f"opensora_comfy.{name}")


def random_weights(module, seed):
    """A state dict of `module` in which nothing is zero: matrices of about unit gain, small vectors, tables."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for key, value in module.state_dict().items():
        if key in ("rope.freqs", "shift", "scale"):
            weights[key] = value.clone()
        elif key.endswith(("norm.weight", "norm1.weight", "norm2.weight")):
            weights[key] = 1 + 0.1 * torch.randn(value.shape, generator=generator)
        elif value.ndim == 1:
            weights[key] = 0.05 * torch.randn(value.shape, generator=generator)
        elif "table" in key:
            weights[key] = 0.2 * torch.randn(value.shape, generator=generator)
        else:
            fan_in = value[0].numel()
            weights[key] = torch.randn(value.shape, generator=generator) / fan_in**0.5
    return weights


def small_transformer():
    """An STDiT3 of 2 x 2 blocks, hidden size 64."""
    stdit3 = pack("model.transformers.stdit3")
    return stdit3.STDiT3(
        stdit3.STDiT3Config(
            depth=2, hidden_size=64, num_heads=4, caption_channels=CAPTION_CHANNELS, model_max_length=CAPTION_LENGTH
        )
    )


def small_vae():
    """A video VAE with 8 filters."""
    vae, spatial, temporal = pack("model.vaes.v1_2"), pack("model.vaes.spatial"), pack("model.vaes.temporal")
    return vae.VideoVAE(
        vae.VideoVAEConfig(
            spatial=spatial.SpatialConfig(block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_groups=NORM_GROUPS),
            temporal=temporal.TemporalConfig(filters=8, num_res_blocks=1, norm_groups=NORM_GROUPS),
        )
    )


def small_image_vae():
    """A 2D VAE of Open-Sora 1.0 and 1.1 with 8 channels a level."""
    vae, spatial = pack("model.vaes.image"), pack("model.vaes.spatial")
    return vae.ImageVAE(
        vae.ImageVAEConfig(
            spatial=spatial.SpatialConfig(block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_groups=NORM_GROUPS)
        )
    )


def small_causal_vae():
    """A 3D VAE of Open-Sora 1.3 with 8 channels a level and its 16 latent channels."""
    vae = pack("model.vaes.v1_3")
    return vae.CausalVAE(vae.CausalVAEConfig(stem=8, widths=(8, 8, 8, 8), num_res_blocks=1, norm_groups=NORM_GROUPS))


def write(path, weights, **opensora):
    """Save `weights` with the pack's metadata."""
    metadata = {"opensora": json.dumps(opensora)} if opensora else None
    save_file({key: value.contiguous() for key, value in weights.items()}, path, metadata)
    return str(path)


def run(node, **inputs):
    """A node's outputs, as ComfyUI calls it."""
    return node.execute(**inputs).result
