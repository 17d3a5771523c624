"""What a model file is, from its tell-tale keys: the families this pack loads, and others that lie in the same folders."""

import re

from .files import strip_prefixes

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
        (r"decoder\.up_blocks\.\d+\.resnets\.\d+\.(norm|conv)\d\.(weight|bias)$",),
    ),
    "t5": (
        "a T5 text encoder",
        LOAD_TEXT,
        (r"encoder\.block\.\d+\.layer\.\d\.(SelfAttention|DenseReluDense)\.|shared\.weight$",),
    ),
}

LORA = r".*\.lora_(down|up|A|B)\b"  # its keys begin with those of the model that it is for
LDM_VAE = "a Stable Diffusion VAE in the ldm layout"

# Other files that artists keep in the same folders: a regular expression that one of their keys fits, what the file is,
# and the node of ComfyUI that loads it (None: there is none). The first that fits counts.
KNOWN_FILES = (
    (LORA, "a LoRA", "Load LoRA (Model)"),
    (r"temporal_transformer_blocks\.", "a Latte or Open-Sora Plan transformer", None),
    (r"patchify_proj\.", "an LTX-Video transformer", "Load Diffusion Model"),
    (r"adaln_single\.", "a PixArt transformer in diffusers' layout",
     "Load Diffusion Model"),
    (r"blocks\.0\.mlp\.inverted_conv\.", "a Sana transformer", "Load Diffusion Model"),
    (r"head\.modulation$", "a Wan transformer", "Load Diffusion Model"),
    (r"txt_in\.individual_token_refiner\.", "a HunyuanVideo transformer", "Load Diffusion Model"),
    (r"double_blocks\.0\.img_attn\.|single_blocks\.0\.linear1\.", "a Flux transformer", "Load Diffusion Model"),
    (r"single_transformer_blocks\.0\.proj_mlp\.", "a Flux transformer in diffusers' layout", "Load Diffusion Model"),
    (r"joint_blocks\.0\.(x_block|context_block)\.", "a Stable Diffusion 3 checkpoint", "Load Checkpoint"),
    (r"transformer_blocks\.0\.attn\.add_q_proj\.", "a Stable Diffusion 3 transformer in diffusers' layout",
     "Load Diffusion Model"),
    (r"conditioner\.embedders\.|label_emb\.0\.0\.", "a Stable Diffusion XL checkpoint", "Load Checkpoint"),
    (r"add_embedding\.linear_1\.", "a Stable Diffusion XL U-Net in diffusers' layout", "Load Diffusion Model"),
    (r"cond_stage_model\.model\.", "a Stable Diffusion 2 checkpoint", "Load Checkpoint"),
    (r"cond_stage_model\.transformer\.", "a Stable Diffusion 1.5 checkpoint", "Load Checkpoint"),
    (r"input_blocks\.0\.0\.", "a Stable Diffusion checkpoint", "Load Checkpoint"),
    (r"time_embedding\.linear_1\.", "a Stable Diffusion U-Net in diffusers' layout", "Load Diffusion Model"),
    (r"text_model\.encoder\.layers\.0\.", "a CLIP text encoder", "Load CLIP"),
    (r"decoder\.middle\.0\.residual\.", "a Wan VAE", "Load VAE"),
    (r"decoder\.up_blocks\.0\.res_blocks\.", "an LTX-Video VAE", "Load VAE"),
    (r"(encoder|decoder)\.(down|up)_blocks\.\d+\.resnets\.\d+\.conv1\.conv\.|(encoder|decoder)\.conv_in\.conv\.",
     "a HunyuanVideo VAE", "Load VAE"),
    (r"decoder\.up\.\d+\.block\.\d+\.|decoder\.mid\.block_1\.", LDM_VAE, "Load VAE"),
)  # fmt: skip

UNET_PREFIXES = r"(?:model\.diffusion_model\.|diffusion_model\.|model\.|net\.)?"


def family_of(state_dict):
    """The family whose loader a state dict belongs to, a key of FAMILIES, told by its keys alone; None for others."""
    keys = list(strip_prefixes(dict.fromkeys(state_dict)))
    if any(re.match(LORA, key) for key in keys):
        return None
    for family, (_, _, signs) in FAMILIES.items():
        if all(any(re.match(sign, key) for key in keys) for sign in signs):
            return family
    return None


def identify(state_dict):
    """(what a file is, the node that loads it or None) from its tell-tale keys; (None, None) for an unknown one."""
    family = family_of(state_dict)
    if family is not None:
        what, node, _ = FAMILIES[family]
        return _pixart(state_dict) if family == "pixart" else what, node
    keys = list(strip_prefixes(dict.fromkeys(state_dict)))
    for sign, what, node in KNOWN_FILES:
        if any(re.match(UNET_PREFIXES + f"(?:{sign})", key) for key in keys):
            return what, node
    return None, None


def _pixart(state_dict):
    """PixArt-α and -Σ differ in the length of captions; only α's 1024-pixel model embeds sizes."""
    state_dict = strip_prefixes(state_dict)
    length = getattr(state_dict.get("y_embedder.y_embedding"), "shape", (0,))[0]
    if any(key.startswith(("csize_embedder.", "ar_embedder.")) for key in state_dict) or length == 120:
        return "a PixArt-α transformer"
    return "a PixArt-Σ transformer" if length == 300 else "a PixArt transformer"


def refusal(what, node, wanted):
    """What to tell about a file that `identify` knows, where `wanted` was asked for."""
    if node is None:
        return f"this is {what}, which neither this pack nor ComfyUI loads; {wanted} goes here"
    hint = ""
    if what == LDM_VAE and "VAE" in wanted:
        hint = "; for Open-Sora 1.0 and 1.1 get it in diffusers' layout, from stabilityai/sd-vae-ft-ema"
    return f"this is {what}; use {node} for it, {wanted} goes here{hint}"


def refuse(state_dict, wanted):
    """Raise ValueError that says what a file is where `wanted` was asked for."""
    what, node = identify(state_dict)
    if what is None:
        sample = ", ".join(sorted(state_dict)[:3]) or "none"
        raise ValueError(f"this file is not {wanted}; its keys ({sample}, …) belong to no model this pack knows")
    raise ValueError(refusal(what, node, wanted))
