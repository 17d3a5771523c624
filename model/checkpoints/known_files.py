"""Other models' files that lie in the same folders, by their tell-tale keys: what each is, and what loads it.

A name has to be certain: a file that only resembles one of these is left unknown.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

NOT_YET = "not yet"  # in the place of a node: files of Open-Sora that this pack does not run

LORA = r".*\.lora_(down|up|A|B)\b"  # its keys begin with those of the model that it is for
LDM_VAE = "a Stable Diffusion VAE in the ldm layout"
DIFFUSION, CHECKPOINT, VAE = "Load Diffusion Model", "Load Checkpoint", "Load VAE"
NEWER = " of a newer ComfyUI"  # than the oldest that this pack runs in

# The parts of networks that others took over and added to: Flux as published, and in diffusers' layout.
FLUX = "img_in|time_in|vector_in|guidance_in|txt_in|double_blocks|single_blocks|final_layer"
DIFFUSERS = "pos_embed|time_text_embed|context_embedder|transformer_blocks|norm_out|proj_out"
U_NET = "conv_in|conv_norm_out|conv_out|time_embedding|add_embedding|down_blocks|mid_block|up_blocks"

# What stands before the keys of a network in a checkpoint, and what stands beside it there.
NETWORK = r"(?:model\.diffusion_model\.|diffusion_model\.|model\.|net\.)?"
BESIDE = r"(vae|first_stage_model|text_encoders|cond_stage_model|conditioner|model_ema)\."


class Known(NamedTuple):
    """A kind of file: what it is called, the node of ComfyUI that loads it, and how it is told.

    node: None where nothing loads it, NOT_YET for what this pack is to run one day.
    signs: regular expressions that a key fits, each of them.
    parts: where given, the only parts that the network has: a regular expression of what comes before the first dot.
    shape: where given, (key, sizes) of a weight, None for any size; a file without that key is told by the rest.
    """

    what: str
    node: str | None
    signs: tuple
    parts: str = ""
    shape: tuple | None = None

    def fits(self, state_dict: Mapping[str, Tensor]) -> bool:
        """Whether these weights, without prefixes that all keys share, are of this kind."""
        found = all(any(re.match(f"{NETWORK}(?:{sign})", key) for key in state_dict) for sign in self.signs)
        return found and self._has_no_other_parts(state_dict) and self._has_the_shape(state_dict)

    def _has_no_other_parts(self, state_dict):
        keys = [re.sub(f"^{NETWORK}", "", key) for key in state_dict if not re.match(BESIDE, key)]
        return not self.parts or all(re.match(rf"({self.parts})\.", key) for key in keys if "." in key)

    def _has_the_shape(self, state_dict):
        if self.shape is None:
            return True
        key, sizes = self.shape
        return all(
            len(value.shape) == len(sizes) and all(size in (None, found) for size, found in zip(sizes, value.shape))
            for name, value in state_dict.items()
            if re.match(f"{NETWORK}(?:{key})$", name)
        )


def has_dimensions(state_dict: Mapping[str, Tensor], sign: str, count: int) -> bool:
    """Whether all weights whose keys fit `sign` have `count` dimensions."""
    return all(len(value.shape) == count for key, value in state_dict.items() if re.match(sign, key))


LATENTS = r"decoder\.conv_in\.weight"
OF_4_CHANNELS, OF_16_CHANNELS = ((LATENTS, (None, channels, None, None)) for channels in (4, 16))
OF_16_CHANNELS_3D = (r"decoder\.conv_in\.conv\.weight", (None, 16, None, None, None))
SPLIT_ATTENTION = r"double_blocks\.\d+\.(img|txt)_attn\.[qkv]_proj\.|single_blocks\.\d+\.(q_proj|k_proj|v_mlp)\."
CONDITIONED = (r"cond_in\.", r"(img_in|txt_in|vector_in)\.", r"(double|single)_blocks\.\d+\.")
FUSED_PARTS = f"{FLUX}|cond_in"
OF_DC_AE = (r"cond_in\.weight", (None, 129))  # a mask beside 128 channels, in patches of one
OPEN_SORA_2, OPEN_SORA_2_DC_AE = "an Open-Sora 2.0 transformer", "an Open-Sora 2.0 transformer for its DC-AE"
STAGES = r"(encoder|decoder)\.stages\.\d+\.op_list\.\d+\."
RESNETS = r"(encoder|decoder)\.(down|up)_blocks\.\d+\.resnets\.\d+\."

# The first that fits counts: from the most to the least specific.
KNOWN_FILES = (
    Known("a LoRA", "Load LoRA (Model)", (LORA,)),
    # Open-Sora 2.0: Flux's blocks with the pinned frames as a second input; a file has q, k and v apart or in one.
    Known(OPEN_SORA_2_DC_AE, NOT_YET, (SPLIT_ATTENTION, r"cond_in\.weight"), shape=OF_DC_AE),
    Known(OPEN_SORA_2, NOT_YET, (SPLIT_ATTENTION,)),
    Known(OPEN_SORA_2_DC_AE, NOT_YET, (*CONDITIONED, r"cond_in\.weight"), FUSED_PARTS, OF_DC_AE),
    Known(OPEN_SORA_2, NOT_YET, CONDITIONED, FUSED_PARTS),
    Known("a HunyuanVideo VAE, which Open-Sora 2.0 uses too", NOT_YET,
          (RESNETS + r"conv1\.conv\.", RESNETS + r"norm\d\.(weight|bias)$"), shape=OF_16_CHANNELS_3D),
    # Transformers of other families.
    Known("a Latte or Open-Sora Plan transformer", None, (r"temporal_transformer_blocks\.",)),
    Known("an LTX-2 transformer", DIFFUSION + NEWER, (r"patchify_proj\.", r"audio_(adaln_single|patchify_proj)\.")),
    Known("an LTX-Video transformer", DIFFUSION, (r"patchify_proj\.",)),
    Known("a PixArt transformer in diffusers' layout", DIFFUSION,
          (r"adaln_single\.", r"pos_embed\.proj\.", r"transformer_blocks\.\d+\.attn1\."),
          "adaln_single|pos_embed|transformer_blocks|caption_projection|scale_shift_table|proj_out",
          (r"pos_embed\.proj\.weight", (1152, None, None, None))),
    Known("a Sana transformer", DIFFUSION, (r"blocks\.0\.mlp\.inverted_conv\.",)),
    Known("a Wan transformer", DIFFUSION, (r"head\.modulation$",)),
    Known("a Mochi transformer", DIFFUSION, (r"t5_yproj\.", r"blocks\.\d+\.")),
    Known("a HunyuanVideo or HunyuanImage transformer", DIFFUSION, (r"txt_in\.individual_token_refiner\.",)),
    Known("a Flux 2 transformer", DIFFUSION, (r"double_stream_modulation_img\.lin\.", r"double_blocks\.\d+\.")),
    Known("a Chroma transformer", DIFFUSION, (r"distilled_guidance_layer\.", r"double_blocks\.\d+\.")),
    Known("a Flux transformer", DIFFUSION, (r"double_blocks\.\d+\.img_attn\.(qkv|norm)\.",), FLUX),
    Known("a HunyuanVideo transformer in diffusers' layout", None,
          (r"context_embedder\.token_refiner\.", r"single_transformer_blocks\.\d+\.")),
    Known("a Flux transformer in diffusers' layout", DIFFUSION, (r"single_transformer_blocks\.\d+\.proj_mlp\.",),
          f"{DIFFUSERS}|x_embedder|single_transformer_blocks"),
    Known("a Stable Diffusion 3 checkpoint", CHECKPOINT, (r"joint_blocks\.0\.(x_block|context_block)\.",)),
    Known("a Stable Diffusion 3 transformer in diffusers' layout", DIFFUSION,
          (r"pos_embed\.", r"transformer_blocks\.\d+\.attn\.add_q_proj\."), DIFFUSERS),
    Known("a Qwen-Image transformer", DIFFUSION, (r"txt_norm\.weight$", r"transformer_blocks\.\d+\.attn\.add_q_proj\."),
          "img_in|txt_in|txt_norm|time_text_embed|transformer_blocks|norm_out|proj_out",
          (r"txt_norm\.weight", (3584,))),
    Known("a CogVideoX transformer in diffusers' layout", None,
          (r"transformer_blocks\.\d+\.norm1\.linear\.", r"patch_embed\.text_proj\.", r"time_embedding\.linear_1\.")),
    # U-Nets and checkpoints with one.
    Known("a Stable Video Diffusion checkpoint", "Image Only Checkpoint Loader (img2vid model)",
          (r"(input|output)_blocks\.\d+\.\d+\.(time_stack|time_mix)", r"input_blocks\.0\.0\.")),
    Known("a U-Net for video (ModelScope, VideoCrafter or DynamiCrafter)", None,
          (r"(input|output)_blocks\.\d+\.\d+\.temopral_conv\.",)),  # spelt like this in all of them
    Known("a Stable Diffusion XL checkpoint", CHECKPOINT,
          (r"conditioner\.embedders\.|label_emb\.0\.0\.", r"input_blocks\.0\.0\.")),
    Known("a Stable Diffusion XL U-Net in diffusers' layout", DIFFUSION,
          (r"add_embedding\.linear_1\.", r"down_blocks\.\d+\.resnets\.\d+\.(norm|conv)\d\."), U_NET),
    Known("a Stable Diffusion 2 checkpoint", CHECKPOINT, (r"cond_stage_model\.model\.", r"input_blocks\.0\.0\.")),
    Known("a Stable Diffusion 1.5 checkpoint", CHECKPOINT,
          (r"cond_stage_model\.transformer\.", r"input_blocks\.0\.0\.")),
    Known("a Stable Diffusion checkpoint", CHECKPOINT, (r"input_blocks\.0\.0\.",)),
    Known("a Stable Diffusion U-Net in diffusers' layout", DIFFUSION,
          (r"time_embedding\.linear_1\.", r"down_blocks\.\d+\.resnets\.\d+\.(norm|conv)\d\."), U_NET),
    Known("a CLIP text encoder", "Load CLIP", (r"text_model\.encoder\.layers\.0\.",)),
    # VAEs.
    Known("a Wan or Qwen-Image VAE", VAE, (r"decoder\.middle\.0\.residual\.",)),
    Known("an LTX-Video VAE", VAE, (r"decoder\.up_blocks\.\d+\.res_blocks\.",)),
    Known("a CogVideoX VAE in diffusers' layout", VAE + NEWER,
          (r"decoder\.up_blocks\.\d+\.resnets\.\d+\.norm\d\.conv_y\.",)),
    Known("a HunyuanVideo VAE", NOT_YET,
          (r"decoder\.conv_in\.conv\.weight$", r"decoder\.up\.\d+\.block\.\d+\.conv\d\.conv\."),
          shape=OF_16_CHANNELS_3D),
    Known("a Stable Video Diffusion VAE", VAE, (r"decoder\.mid\.block_1\.mix_factor$",)),
    Known("a 2D VAE in diffusers' layout with 16 channels (Stable Diffusion 3, Flux)", VAE,
          (RESNETS + r"conv1\.weight$", r"decoder\.conv_in\.weight$"), shape=OF_16_CHANNELS),
    Known("a 2D VAE in the ldm layout with 16 channels (Stable Diffusion 3, Flux)", VAE,
          (r"decoder\.up\.\d+\.block\.\d+\.(norm|conv)\d\.(weight|bias)$", r"decoder\.conv_in\.weight$"),
          shape=OF_16_CHANNELS),
    Known(LDM_VAE, VAE, (r"decoder\.up\.\d+\.block\.\d+\.(norm|conv)\d\.(weight|bias)$",),
          "encoder|decoder|quant_conv|post_quant_conv|loss", OF_4_CHANNELS),
)  # fmt: skip


def dc_ae(state_dict: Mapping[str, Tensor]) -> tuple[str, str | None] | None:
    """(what, node) of a DC-AE, for video or for pictures; None for other files."""
    if not any(re.match(STAGES, key) for key in state_dict):
        return None
    if has_dimensions(state_dict, STAGES + r".*conv\.weight$", 5):
        return "a DC-AE, a video VAE of Open-Sora 2.0", NOT_YET
    return "a DC-AE for pictures", None


def known_file(state_dict: Mapping[str, Tensor]) -> tuple[str | None, str | None]:
    """(what a file is, the node that loads it or None) for the first of KNOWN_FILES that fits, else (None, None)."""
    found = next((kind for kind in KNOWN_FILES if kind.fits(state_dict)), None)
    if found is not None:
        return found.what, found.node
    return dc_ae(state_dict) or (None, None)
