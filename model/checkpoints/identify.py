"""What a model file is, from its tell-tale keys: the families this pack loads, and others beside them."""

import re
from collections.abc import Mapping
from typing import NoReturn

from torch import Tensor

from ..files import strip_prefixes
from .known_files import LDM_VAE, LORA, NOT_YET, RESNETS, has_dimensions, known_file

LOAD_MODEL, LOAD_VAE, LOAD_TEXT = "Load Open-Sora Model", "Load Open-Sora VAE", "Load Open-Sora Text Encoder"
TRANSFORMERS = ("stdit", "stdit2", "stdit3", "stdit3_v1_3", "pixart")
VAES = ("vae_v1_2", "vae_2d", "vae_v1_3")

# Family: what it is called, the node that loads it, and regular expressions that a file of it has a key for, each of
# them. From the most to the least specific: the first that fits is it. Every sign stands for many keys, so that a file
# that misses one is still known for what it is.
FAMILIES = {
    "stdit3_v1_3": ("an Open-Sora 1.3 transformer (STDiT3)", LOAD_MODEL, (r"spatial_blocks\.", r"x_embedder_cond")),
    "stdit3": ("an Open-Sora 1.2 transformer (STDiT3)", LOAD_MODEL, (r"spatial_blocks\.", r"temporal_blocks\.")),
    "stdit2": (
        "an Open-Sora 1.1 transformer (STDiT2)",
        LOAD_MODEL,
        (r"blocks\.\d+\.attn_temp\.", r"t_block_temp\.|fps_embedder\.|fl_embedder\.|.*scale_shift_table_temporal$"),
    ),
    "stdit": ("an Open-Sora 1.0 transformer (STDiT)", LOAD_MODEL, (r"blocks\.\d+\.attn_temp\.",)),
    "pixart": (
        "a PixArt transformer",
        LOAD_MODEL,
        (r"blocks\.\d+\.cross_attn\.(q|kv)_linear\.", r"blocks\.\d+\.scale_shift_table$", r"blocks\.\d+\.mlp\.fc\d\."),
    ),
    "vae_v1_2": ("an Open-Sora VAE 1.2", LOAD_VAE, (r"spatial_vae\.|temporal_vae\.",)),
    "vae_v1_3": ("an Open-Sora VAE 1.3", LOAD_VAE, (r"(encoder|decoder)\.\w+\.\d+\.\w+sample\.conv3d\.",)),
    "vae_2d": (
        "a 2D VAE in diffusers' layout (Open-Sora 1.0 and 1.1, Stable Diffusion)",
        LOAD_VAE,
        (r"decoder\.up_blocks\.\d+\.resnets\.\d+\.(norm|conv)\d\.(weight|bias)$", r"(post_)?quant_conv\."),
    ),
    "t5": (
        "a T5 text encoder",
        LOAD_TEXT,
        (r"encoder\.block\.\d+\.layer\.\d\.(SelfAttention|DenseReluDense)\.|shared\.weight$",),
    ),
}

# What VAEs for video have beside that: convolutions in time, and causal ones, which lie in a module of their own.
IN_TIME = RESNETS + r"conv\d\.conv\.|.*\.temp_convs\."
UMT5_VOCABULARY = 256384  # of Wan's text encoder, whose keys are T5's


def family_of(state_dict: Mapping[str, Tensor]) -> str | None:
    """The family whose loader a state dict belongs to, a key of FAMILIES; None for others."""
    state_dict = strip_prefixes(dict(state_dict))
    if any(re.match(LORA, key) for key in state_dict):
        return None
    for family, (_, _, signs) in FAMILIES.items():
        if all(any(re.match(sign, key) for key in state_dict) for sign in signs):
            return None if family == "vae_2d" and _is_in_time(state_dict) else family
    return None


def _is_in_time(state_dict):
    return any(re.match(IN_TIME, key) for key in state_dict) or not has_dimensions(
        state_dict, RESNETS + r"conv\d\.weight$", 4
    )


def identify(state_dict: Mapping[str, Tensor]) -> tuple[str | None, str | None]:
    """(what a file is, the node that loads it, NOT_YET or None) by its keys and shapes; (None, None) if unknown."""
    state_dict = strip_prefixes(dict(state_dict))
    family = family_of(state_dict)
    if family is None:
        return known_file(state_dict)
    what, node, _ = FAMILIES[family]
    if family == "t5" and _rows(state_dict, "shared.weight") == UMT5_VOCABULARY:
        return "a UMT5 text encoder", "Load CLIP"
    return _pixart(state_dict) if family == "pixart" else what, node


def _rows(state_dict, key):
    return getattr(state_dict.get(key), "shape", (0,))[0]


def _pixart(state_dict):
    """PixArt-α and -Σ differ in the length of captions; only α's 1024-pixel model embeds sizes."""
    length = _rows(state_dict, "y_embedder.y_embedding")
    if any(key.startswith(("csize_embedder.", "ar_embedder.")) for key in state_dict) or length == 120:
        return "a PixArt-α transformer"
    return "a PixArt-Σ transformer" if length == 300 else "a PixArt transformer"


def refusal(what: str, node: str | None, wanted: str) -> str:
    """What to tell about a file that `identify` knows, where `wanted` was asked for."""
    if node == NOT_YET:
        return f"this is {what}, which this pack does not run yet: it runs Open-Sora 1.0 to 1.3; {wanted} goes here"
    if node is None:
        return f"this is {what}, which neither this pack nor ComfyUI loads; {wanted} goes here"
    hint = ""
    if what == LDM_VAE and "VAE" in wanted:
        hint = "; for Open-Sora 1.0 and 1.1 get it in diffusers' layout, from stabilityai/sd-vae-ft-ema"
    return f"this is {what}; use {node} for it, {wanted} goes here{hint}"


def refuse(state_dict: Mapping[str, Tensor], wanted: str) -> NoReturn:
    """Raise ValueError that says what a file is where `wanted` was asked for."""
    what, node = identify(state_dict)
    if what is None:
        sample = ", ".join(sorted(state_dict)[:3]) or "none"
        raise ValueError(f"this file is not {wanted}; its keys ({sample}, …) belong to no model this pack knows")
    raise ValueError(refusal(what, node, wanted))
