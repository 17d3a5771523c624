"""What a file is: every pair of families and loaders, and the files of other models."""

import re

import pytest
import torch
from golden import manifest, weights
from opensora_comfy.model import load_transformer, load_vae
from opensora_comfy.model.checkpoints.identify import (
    FAMILIES,
    NOT_YET,
    TRANSFORMERS,
    VAES,
    family_of,
    identify,
    refusal,
)
from opensora_comfy.model.transformers.pixart import PixArt, PixArtConfig


def pixart(**changes):
    with torch.device("meta"):
        return PixArt(PixArtConfig(depth=2, hidden_size=72, num_heads=1, **changes)).state_dict()


def keys(*names, **shapes):
    """Weights of one number by these names; `shapes` of others, with __ for the dots in their names."""
    others = {name.replace("__", "."): torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return dict.fromkeys(names, torch.zeros(1)) | others


T5 = keys("shared.weight", "encoder.block.0.layer.0.SelfAttention.q.weight", "encoder.final_layer_norm.weight")

# Label: a file of it, its family, what it is called.
OURS = {
    "STDiT 256": (manifest("stdit_xl2_v1_0_16x256x256"), "stdit", "an Open-Sora 1.0 transformer (STDiT)"),
    "STDiT 512": (manifest("stdit_xl2_v1_0_16x512x512"), "stdit", "an Open-Sora 1.0 transformer (STDiT)"),
    "STDiT2": (manifest("stdit2_xl2_v1_1"), "stdit2", "an Open-Sora 1.1 transformer (STDiT2)"),
    "STDiT3 XL/2": (manifest("stdit3_xl2_v1_2"), "stdit3", "an Open-Sora 1.2 transformer (STDiT3)"),
    "STDiT3 3B/2": (manifest("stdit3_3b2_v1_2"), "stdit3", "an Open-Sora 1.2 transformer (STDiT3)"),
    "STDiT3 1.3": (manifest("stdit3_xl2_v1_3"), "stdit3_v1_3", "an Open-Sora 1.3 transformer (STDiT3)"),
    "PixArt alpha 1024": (pixart(model_max_length=120, size_embedders=True), "pixart", "a PixArt-α transformer"),
    "PixArt alpha 512": (pixart(model_max_length=120, stored_positions=1024), "pixart", "a PixArt-α transformer"),
    "PixArt sigma": (pixart(model_max_length=300), "pixart", "a PixArt-Σ transformer"),
    "VAE 1.2": (manifest("opensora_vae_v1_2"), "vae_v1_2", "an Open-Sora VAE 1.2"),
    "2D VAE": (manifest("vae2d_v1_0_v1_1"), "vae_2d", FAMILIES["vae_2d"][0]),
    "VAE 1.3": (manifest("opensora_vae_v1_3"), "vae_v1_3", "an Open-Sora VAE 1.3"),
    "VAE 1.3 tiled": (manifest("opensora_vae_v1_3_tiled"), "vae_v1_3", "an Open-Sora VAE 1.3"),
    "T5": (T5, "t5", "a T5 text encoder"),
}
NODES = {
    **dict.fromkeys(TRANSFORMERS, "Load Open-Sora Model"),
    **dict.fromkeys(VAES, "Load Open-Sora VAE"),
    "t5": "Load Open-Sora Text Encoder",
}
LOADERS = {
    "model": (load_transformer, "an Open-Sora transformer", TRANSFORMERS),
    "VAE": (load_vae, "an Open-Sora VAE", VAES),
}


@pytest.mark.parametrize("label", OURS)
@pytest.mark.parametrize("prefix", ["", "module.", "model.diffusion_model."])
def test_families_are_told_by_their_keys(label, prefix):
    state_dict, family, what = OURS[label]
    state_dict = {prefix + key: value for key, value in state_dict.items()}
    assert family_of(state_dict) == family
    assert identify(state_dict) == (what, NODES[family])


@pytest.mark.parametrize("label", [label for label in OURS if label != "T5"])
def test_a_file_that_misses_any_one_key_is_still_known(label):
    state_dict, family, _ = OURS[label]
    for key in list(state_dict)[::7]:
        assert family_of({name: value for name, value in state_dict.items() if name != key}) == family


@pytest.mark.parametrize(
    ("loader", "label"),
    [(loader, label) for loader in LOADERS for label in OURS if OURS[label][1] not in LOADERS[loader][2]],
)
def test_the_wrong_loader_says_what_a_file_is_and_which_node_loads_it(loader, label):
    load, wanted, _ = LOADERS[loader]
    state_dict, family, what = OURS[label]
    message = f"this is {what}; use {NODES[family]} for it, {wanted} goes here"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load(state_dict)


@pytest.mark.parametrize("label", [label for label, (_, family, _) in OURS.items() if family != "t5"])
def test_the_text_encoder_loader_can_say_so_too(label):
    what, node = identify(OURS[label][0])
    assert refusal(what, node, "a T5 text encoder").startswith(f"this is {what}; use {node} for it")


# One line a file: keys as published, what it is, the node.
OTHERS = [
    (["model.diffusion_model.input_blocks.0.0.weight", "cond_stage_model.transformer.text_model.embeddings.position_ids",
      "first_stage_model.decoder.up.0.block.0.norm1.weight"], "a Stable Diffusion 1.5 checkpoint", "Load Checkpoint"),
    (["model.diffusion_model.input_blocks.0.0.weight", "cond_stage_model.model.transformer.resblocks.0.ln_1.weight"],
     "a Stable Diffusion 2 checkpoint", "Load Checkpoint"),
    (["model.diffusion_model.input_blocks.0.0.weight", "model.diffusion_model.label_emb.0.0.weight",
      "conditioner.embedders.1.model.ln_final.weight"], "a Stable Diffusion XL checkpoint", "Load Checkpoint"),
    (["model.diffusion_model.input_blocks.0.0.weight", "model.diffusion_model.out.0.weight"],
     "a Stable Diffusion checkpoint", "Load Checkpoint"),
    (["input_blocks.0.0.weight", "out.0.weight"], "a Stable Diffusion checkpoint", "Load Checkpoint"),
    (["down_blocks.0.resnets.0.norm1.weight", "time_embedding.linear_1.weight"],
     "a Stable Diffusion U-Net in diffusers' layout", "Load Diffusion Model"),
    (["down_blocks.0.resnets.0.norm1.weight", "time_embedding.linear_1.weight", "add_embedding.linear_1.weight"],
     "a Stable Diffusion XL U-Net in diffusers' layout", "Load Diffusion Model"),
    (["model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight", "first_stage_model.decoder.conv_in.weight"],
     "a Stable Diffusion 3 checkpoint", "Load Checkpoint"),
    (["pos_embed.proj.weight", "transformer_blocks.0.attn.add_q_proj.weight"],
     "a Stable Diffusion 3 transformer in diffusers' layout", "Load Diffusion Model"),
    (["double_blocks.0.img_attn.norm.key_norm.scale", "img_in.weight"], "a Flux transformer", "Load Diffusion Model"),
    (["model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale", "vae.decoder.conv_in.weight"],
     "a Flux transformer", "Load Diffusion Model"),
    (["single_transformer_blocks.0.proj_mlp.weight", "transformer_blocks.0.attn.add_q_proj.weight"],
     "a Flux transformer in diffusers' layout", "Load Diffusion Model"),
    (["model.diffusion_model.patchify_proj.weight", "model.diffusion_model.adaln_single.linear.weight",
      "vae.decoder.conv_in.conv.weight"], "an LTX-Video transformer", "Load Diffusion Model"),
    (["blocks.0.cross_attn.q.weight", "blocks.0.modulation", "head.modulation"], "a Wan transformer",
     "Load Diffusion Model"),
    (["txt_in.individual_token_refiner.blocks.0.norm1.weight", "double_blocks.0.img_attn.qkv.weight"],
     "a HunyuanVideo or HunyuanImage transformer", "Load Diffusion Model"),
    (["blocks.0.cross_attn.q_linear.weight", "blocks.0.scale_shift_table", "blocks.0.mlp.inverted_conv.conv.weight"],
     "a Sana transformer", "Load Diffusion Model"),
    (["adaln_single.emb.timestep_embedder.linear_1.bias", "pos_embed.proj.bias", "transformer_blocks.0.attn1.to_q.weight",
      "transformer_blocks.0.scale_shift_table"], "a PixArt transformer in diffusers' layout", "Load Diffusion Model"),
    (["text_model.encoder.layers.0.layer_norm1.weight"], "a CLIP text encoder", "Load CLIP"),
    (["encoder.conv_in.weight", "decoder.up.0.block.0.norm1.weight", "decoder.mid.block_1.norm1.weight"],
     "a Stable Diffusion VAE in the ldm layout", "Load VAE"),
    (["decoder.middle.0.residual.0.gamma"], "a Wan or Qwen-Image VAE", "Load VAE"),
    (["decoder.up_blocks.0.res_blocks.0.conv1.conv.weight"], "an LTX-Video VAE", "Load VAE"),
    (["spatial_blocks_0_attn_qkv.lora_down.weight"], "a LoRA", "Load LoRA (Model)"),
    (["transformer.blocks.0.attn.lora_A.weight"], "a LoRA", "Load LoRA (Model)"),
    (["diffusion_model.spatial_blocks.0.attn.qkv.lora_A.weight", "diffusion_model.temporal_blocks.0.attn.qkv.lora_B.weight"],
     "a LoRA", "Load LoRA (Model)"),
    (["blocks.0.attn_temp.qkv.lora_up.weight"], "a LoRA", "Load LoRA (Model)"),
]  # fmt: skip


@pytest.mark.parametrize(("names", "what", "node"), OTHERS)
def test_files_of_other_models_are_named(names, what, node):
    state_dict = keys(*names)
    assert family_of(state_dict) is None
    assert identify(state_dict) == (what, node)
    for load, wanted, _ in LOADERS.values():
        with pytest.raises(ValueError, match=f"^this is {re.escape(f'{what}; use {node} for it, {wanted} goes here')}"):
            load(state_dict)


# Files of Open-Sora that this pack does not run yet, and a neighbour that is made of the same blocks.
OPEN_SORA_2 = "an Open-Sora 2.0 transformer"
HUNYUAN = "a HunyuanVideo VAE, which Open-Sora 2.0 uses too"
LATER = {
    "mmdit_v2_0": OPEN_SORA_2,
    "mmdit_v2_0_fused": OPEN_SORA_2,
    "mmdit_v2_0_dc_ae": OPEN_SORA_2 + " for its DC-AE",
    "hunyuan_vae_v2_0": HUNYUAN,
    "dc_ae_f32t4c128": "a DC-AE, a video VAE of Open-Sora 2.0",
}
COMFY_HUNYUAN = keys(
    "decoder.up.0.block.0.conv1.conv.weight", "encoder.conv_in.conv.weight",
    decoder__conv_in__conv__weight=(512, 16, 3, 3, 3),
)  # fmt: skip


@pytest.mark.parametrize("prefix", ["", "module.", "model.diffusion_model."])
@pytest.mark.parametrize("name", LATER)
def test_files_of_open_sora_2_are_named_and_not_promised(name, prefix):
    state_dict = {prefix + key: value for key, value in manifest(name).items()}
    assert family_of(state_dict) is None
    assert identify(state_dict) == (LATER[name], NOT_YET)
    for load, wanted, _ in LOADERS.values():
        message = (
            f"^this is {LATER[name]}, which this pack does not run yet: it runs Open-Sora 1.0 to 1.3; {wanted} goes"
        )
        with pytest.raises(ValueError, match=message):
            load(state_dict)


@pytest.mark.parametrize("name", LATER)
def test_a_file_of_open_sora_2_that_misses_any_one_key_is_still_known(name):
    state_dict = manifest(name)
    for key in state_dict:
        what, node = identify({other: value for other, value in state_dict.items() if other != key})
        assert node == NOT_YET and what in (LATER[name], OPEN_SORA_2), key


def test_the_fused_version_for_the_dc_ae_is_known_too():
    state_dict = manifest("mmdit_v2_0_fused") | keys(cond_in__weight=(3072, 129))
    assert identify(state_dict) == (LATER["mmdit_v2_0_dc_ae"], NOT_YET)


def test_hunyuanvideos_vae_is_known_in_the_layout_of_comfyui_too():
    assert identify(COMFY_HUNYUAN) == ("a HunyuanVideo VAE", NOT_YET)


def test_flux_is_still_flux():
    flux = manifest("flux1_dev_in_original")
    schnell = {key: value for key, value in flux.items() if not key.startswith("guidance_in.")}
    checkpoint = {f"model.diffusion_model.{key}": value for key, value in flux.items()} | keys(
        "vae.decoder.conv_in.weight"
    )
    for state_dict in (
        flux,
        schnell,
        checkpoint,
        flux | keys("scaled_fp8", "double_blocks.0.img_attn.qkv.scale_weight"),
    ):
        assert identify(state_dict) == ("a Flux transformer", "Load Diffusion Model")


LDM = ("encoder.down.0.block.0.conv1.weight", "decoder.up.0.block.0.norm1.weight", "decoder.mid.block_1.norm1.weight")
DIFFUSERS_VAE = ("encoder.down_blocks.0.resnets.0.norm1.weight", "decoder.up_blocks.0.resnets.0.norm1.weight")
CONV_2D, CONV_3D = (512, 512, 3, 3), (512, 512, 3, 3, 3)

# Files that resemble one that is known, and what is said about them instead.
NEIGHBOURS = {
    "Chroma": (keys("distilled_guidance_layer.norms.0.scale", "double_blocks.0.img_attn.norm.key_norm.scale", "img_in.weight"),
               "a Chroma transformer"),
    "Flux 2": (keys("double_stream_modulation_img.lin.weight", "double_blocks.0.img_attn.qkv.weight", "img_in.weight"),
               "a Flux 2 transformer"),
    "Hunyuan3D 2": (keys("latent_in.weight", "cond_in.weight", "time_in.in_layer.weight",
                         "double_blocks.0.img_attn.qkv.weight", "single_blocks.0.linear1.weight"), None),
    "Flux's blocks and another part": (manifest("flux1_dev_in_original") | keys("pulid_ca.0.norm1.weight"), None),
    "LTX-2": (keys("patchify_proj.weight", "audio_patchify_proj.weight", "audio_adaln_single.linear.weight"),
              "an LTX-2 transformer"),
    "HunyuanVideo in diffusers' layout": (
        keys("context_embedder.token_refiner.refiner_blocks.0.norm1.weight", "single_transformer_blocks.0.proj_mlp.weight",
             "transformer_blocks.0.attn.add_q_proj.weight", "x_embedder.proj.weight"),
        "a HunyuanVideo transformer in diffusers' layout"),
    "Qwen-Image": (keys("img_in.weight", "txt_in.weight", "transformer_blocks.0.attn.add_q_proj.weight",
                        txt_norm__weight=(3584,)), "a Qwen-Image transformer"),
    "Qwen-Image's blocks at another width": (
        keys("img_in.weight", "transformer_blocks.0.attn.add_q_proj.weight", txt_norm__weight=(2560,)), None),
    "Mochi": (keys("t5_yproj.weight", "t5_y_embedder.to_q.weight", "blocks.0.attn.qkv_x.weight"), "a Mochi transformer"),
    "Allegro": (keys("adaln_single.linear.weight", "transformer_blocks.0.attn1.to_q.weight", "caption_projection.linear_1.weight",
                     pos_embed__proj__weight=(2304, 4, 2, 2)), None),
    "CogVideoX in diffusers' layout": (
        keys("patch_embed.proj.weight", "patch_embed.text_proj.weight", "time_embedding.linear_1.weight",
             "transformer_blocks.0.norm1.linear.weight"), "a CogVideoX transformer in diffusers' layout"),
    "a ControlNet in diffusers' layout": (
        keys("controlnet_cond_embedding.conv_in.weight", "time_embedding.linear_1.weight",
             "down_blocks.0.resnets.0.norm1.weight"), None),
    "Stable Video Diffusion": (
        keys("model.diffusion_model.input_blocks.0.0.weight", "conditioner.embedders.0.open_clip.model.ln_final.weight",
             "model.diffusion_model.input_blocks.1.1.time_stack.0.attn1.to_q.weight",
             "model.diffusion_model.label_emb.0.0.weight"), "a Stable Video Diffusion checkpoint"),
    "VideoCrafter": (
        keys("model.diffusion_model.input_blocks.0.0.weight", "cond_stage_model.model.ln_final.weight",
             "model.diffusion_model.input_blocks.1.0.temopral_conv.conv1.0.weight"),
        "a U-Net for video (ModelScope, VideoCrafter or DynamiCrafter)"),
    "UMT5": (keys("encoder.block.0.layer.0.SelfAttention.q.weight", shared__weight=(256384, 4096)), "a UMT5 text encoder"),
    "Flux's VAE": (keys(*LDM, decoder__conv_in__weight=(512, 16, 3, 3)),
                   "a 2D VAE in the ldm layout with 16 channels (Stable Diffusion 3, Flux)"),
    "Flux's VAE in diffusers' layout": (
        keys(*DIFFUSERS_VAE, decoder__up_blocks__0__resnets__0__conv1__weight=CONV_2D,
             decoder__conv_in__weight=(512, 16, 3, 3)),
        "a 2D VAE in diffusers' layout with 16 channels (Stable Diffusion 3, Flux)"),
    "Stable Video Diffusion's VAE": (
        keys(*LDM, "decoder.mid.block_1.mix_factor", "decoder.up.0.block.0.time_stack.in_layers.0.weight",
             decoder__conv_in__weight=(512, 4, 3, 3)), "a Stable Video Diffusion VAE"),
    "Open-Sora Plan's VAE": (keys("decoder.up.0.block.0.conv1.conv.weight", "encoder.conv_in.conv.weight",
                                  decoder__conv_in__conv__weight=(512, 4, 3, 3, 3)), None),
    "CogVideoX's VAE": (
        keys("decoder.up_blocks.0.resnets.0.norm1.conv_y.conv.weight", "decoder.up_blocks.0.resnets.0.norm1.norm_layer.weight",
             "decoder.up_blocks.0.resnets.0.conv1.conv.weight", decoder__conv_in__conv__weight=(512, 16, 3, 3, 3)),
        "a CogVideoX VAE in diffusers' layout"),
    "LTX-Video's VAE in diffusers' layout": (keys("decoder.up_blocks.0.resnets.0.conv1.conv.weight"), None),
    "Wan's VAE in diffusers' layout": (
        keys("decoder.up_blocks.0.resnets.0.norm1.gamma", "quant_conv.weight", "post_quant_conv.weight",
             decoder__up_blocks__0__resnets__0__conv1__weight=CONV_3D, decoder__conv_in__weight=(384, 16, 3, 3, 3)), None),
    "Allegro's VAE": (
        keys(*DIFFUSERS_VAE, "decoder.up_blocks.0.temp_convs.0.conv1.1.weight", "quant_conv.weight",
             decoder__up_blocks__0__resnets__0__conv1__weight=CONV_2D, decoder__conv_in__weight=(512, 4, 3, 3)), None),
    "a DC-AE for pictures": (keys(encoder__stages__0__op_list__0__main__conv1__conv__weight=CONV_2D), "a DC-AE for pictures"),
}  # fmt: skip


@pytest.mark.parametrize("label", NEIGHBOURS)
def test_neighbours_are_not_mistaken_for_what_they_resemble(label):
    state_dict, what = NEIGHBOURS[label]
    assert identify(state_dict)[0] == what
    for load, wanted, _ in LOADERS.values():
        with pytest.raises(ValueError, match="^this is " if what else f"^this file is not {wanted}"):
            load(state_dict)


def test_the_vae_that_many_have_in_another_layout_comes_with_advice():
    with pytest.raises(ValueError, match="Open-Sora 1.0 and 1.1 get it in diffusers' layout, from stabilityai/sd-vae"):
        load_vae(keys("decoder.up.0.block.0.norm1.weight"))
    with pytest.raises(ValueError, match="an Open-Sora transformer goes here$"):
        load_transformer(keys("decoder.up.0.block.0.norm1.weight"))


def test_what_nothing_loads_is_named_without_a_promise():
    message = "^this is a Latte or Open-Sora Plan transformer, which neither this pack nor ComfyUI loads; "
    with pytest.raises(ValueError, match=message):
        load_transformer(keys("temporal_transformer_blocks.0.attn1.to_q.weight", "adaln_single.linear.weight"))


@pytest.mark.parametrize("load", [load_transformer, load_vae])
@pytest.mark.parametrize(("state_dict", "sample"), [(keys("what.is.this"), "what.is.this"), ({}, "none")])
def test_strangers_are_quoted(load, state_dict, sample):
    assert identify(state_dict) == (None, None)
    with pytest.raises(ValueError, match=f"its keys \\({sample}, …\\) belong to no model this pack knows"):
        load(state_dict)


def test_pixart_and_stdit2_are_not_mistaken_for_each_other():
    alpha = pixart(model_max_length=120, size_embedders=True)
    shared = {key for key in alpha if key.startswith(("csize_embedder", "ar_embedder", "t_block", "blocks.0"))}
    stdit2 = manifest("stdit2_xl2_v1_1")
    assert shared <= set(stdit2)  # what makes them look alike
    assert (family_of(alpha), family_of(stdit2)) == ("pixart", "stdit2")


def test_recorded_weights_are_what_they_are():
    names = {"stdit": "stdit", "stdit2": "stdit2", "stdit3": "stdit3", "vae12": "vae_v1_2", "vae2d": "vae_2d"}
    assert {name: family_of(weights(name)) for name in names} == names
