"""Loading: full-size key tables, refusals, damaged files."""

import json
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch
from golden import weights
from opensora_comfy.model import load_transformer, load_vae
from opensora_comfy.model.loading import identify, normalise_vae_keys, read_file, transformer_config, vae_config
from opensora_comfy.model.stdit3 import STDiT3
from opensora_comfy.model.vae import VideoVAE

MANIFESTS = Path(__file__).parent.parent / "data" / "manifests"


def manifest(name):
    """A full-size state dict of shapes without memory."""
    shapes = json.loads((MANIFESTS / f"{name}.json").read_text())["state_dict"]
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


@pytest.mark.parametrize(
    ("name", "hidden_size", "num_heads"), [("stdit3_xl2_v1_2", 1152, 16), ("stdit3_3b2_v1_2", 1872, 26)]
)
def test_full_size_transformers_have_exactly_the_originals_keys(name, hidden_size, num_heads):
    shapes = manifest(name)
    config = transformer_config(shapes)
    assert (config.depth, config.hidden_size, config.num_heads) == (28, hidden_size, num_heads)
    with torch.device("meta"):
        own = STDiT3(config).state_dict()
    assert {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in shapes.items()}


def test_full_size_vae_has_exactly_the_originals_keys():
    shapes = manifest("opensora_vae_v1_2")
    with torch.device("meta"):
        own = VideoVAE(vae_config(shapes)).state_dict()
    optional = {"shift", "scale"}
    assert {k: v.shape for k, v in own.items() if k not in optional} == {
        k: v.shape for k, v in shapes.items() if k not in optional
    }


def test_weights_are_used_as_they_are():
    state_dict = weights("stdit3")
    transformer = load_transformer(state_dict)
    key = "spatial_blocks.0.attn.qkv.weight"
    assert transformer.state_dict()[key].data_ptr() == state_dict[key].data_ptr()


def test_a_missing_rope_table_is_computed():
    state_dict = weights("stdit3")
    stored = state_dict.pop("rope.freqs")
    assert torch.allclose(load_transformer(state_dict).rope.freqs, stored, rtol=1e-6)


def test_missing_shift_and_scale_are_the_official_ones():
    state_dict = weights("vae12")
    config = {"spatial_norm_groups": 4, "temporal_norm_groups": 2}
    shift = state_dict.pop("shift")
    assert torch.allclose(load_vae(state_dict, config).shift, shift)


def test_old_diffusers_attention_names_load():
    new = weights("vae12")
    old = {
        key.replace("to_out.0", "proj_attn").replace("to_q", "query").replace("to_k", "key").replace("to_v", "value"): t
        for key, t in new.items()
    }
    assert old.keys() != new.keys()
    assert normalise_vae_keys(old).keys() == new.keys()


def test_missing_unexpected_and_misshapen_keys_are_listed():
    state_dict = weights("stdit3")
    del state_dict["final_layer.linear.bias"]
    state_dict["stranger"] = torch.zeros(1)
    state_dict["t_block.1.bias"] = torch.zeros(3)
    with pytest.raises(ValueError, match="final_layer.linear.bias.*stranger.*t_block.1.bias \\(3,\\)"):
        load_transformer(state_dict)


def test_a_config_that_contradicts_the_weights_is_refused():
    with pytest.raises(ValueError, match="config says depth = 3, but the weights say 2"):
        load_transformer(weights("stdit3"), {"depth": 3})


@pytest.mark.parametrize(
    "key",
    [
        "x_embedder.proj.weight",
        "y_embedder.y_embedding",
        "spatial_blocks.0.mlp.fc1.weight",
        "final_layer.linear.weight",
    ],
)
def test_a_missing_key_that_tells_sizes_is_listed_like_any_other(key):
    state_dict = weights("stdit3")
    del state_dict[key]
    with pytest.raises(ValueError, match=f"1 missing keys: {key}"):
        load_transformer(state_dict)


# Excerpts of what other versions of Open-Sora hold: key to shape.
STDIT2_XL2_V1_1 = {
    "x_embedder.proj.weight": [1152, 4, 1, 2, 2],
    "t_block.1.weight": [6912, 1152],
    "t_block_temp.1.weight": [3456, 1152],
    "y_embedder.y_embedding": [200, 4096],
    "rope.freqs": [36],
    "blocks.0.scale_shift_table": [6, 1152],
    "blocks.0.scale_shift_table_temporal": [3, 1152],
    "blocks.0.attn.qkv.weight": [3456, 1152],
    "blocks.0.attn_temp.qkv.weight": [3456, 1152],
    "final_layer.linear.weight": [32, 1152],
    "fps_embedder.mlp.0.weight": [1152, 256],
}
VAE_V1_3 = {
    "encoder.conv_in.conv.weight": [128, 3, 3, 3, 3],
    "decoder.up.0.block.0.norm1.weight": [256],
    "decoder.up.2.upsample.conv3d.conv1.conv.weight": [512, 512, 3, 3, 3],
    "decoder.conv_in.conv.weight": [512, 16, 3, 3, 3],
}


@pytest.mark.parametrize("load", [load_transformer, load_vae])
@pytest.mark.parametrize(
    ("shapes", "what"),
    [(STDIT2_XL2_V1_1, r"an older Open-Sora transformer \(1.0 or 1.1\)"), (VAE_V1_3, "an Open-Sora VAE 1.3")],
)
def test_other_versions_are_named_and_no_node_is_promised(load, shapes, what):
    with pytest.raises(ValueError, match=f"this is {what}, not .*; this version of the pack loads Open-Sora 1.2$"):
        load({key: torch.empty(shape, device="meta") for key, shape in shapes.items()})


@pytest.mark.parametrize(
    ("load", "state_dict", "message"),
    [
        (load_transformer, {"model.diffusion_model.input_blocks.0.0.weight": 0}, "Stable Diffusion checkpoint.*Load Checkpoint"),
        (load_transformer, {"blocks.0.scale_shift_table": 0}, "PixArt.*Load Diffusion Model"),
        (load_transformer, {"double_blocks.0.img_attn.norm.key_norm.scale": 0}, "Flux.*Load Diffusion Model"),
        (load_transformer, weights("vae12"), "Open-Sora VAE 1.2.*Load Open-Sora VAE"),
        (load_vae, weights("stdit3"), "Open-Sora transformer.*Load Open-Sora Model"),
        (load_vae, {"shared.weight": 0}, "T5 text encoder.*Load Open-Sora Text Encoder"),
        (load_vae, {"what.is.this": 0}, "what.is.this.*no model this pack knows"),
    ],
)  # fmt: skip
def test_other_files_are_named(load, state_dict, message):
    with pytest.raises(ValueError, match=message):
        load(state_dict)


def test_identify_knows_nothing_of_strangers():
    assert identify({"a": 0}) == (None, None)


def test_damaged_files_are_refused(tmp_path):
    good = tmp_path / "good.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(100)}, good, metadata={"opensora": '{"kind": "vae"}'})
    assert read_file(good)[1]["opensora"] == {"kind": "vae"}
    cut, text, huge = (tmp_path / name for name in ("cut.safetensors", "text.safetensors", "huge.safetensors"))
    cut.write_bytes(good.read_bytes()[:-50])
    text.write_text("this is no checkpoint")
    huge.write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    for path in (cut, text, huge):
        with pytest.raises(ValueError, match=f"{path.name} is not a readable safetensors file"):
            read_file(path)


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pth", ".BIN"])
def test_pytorch_files_are_told_apart_from_damaged_ones(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    torch.save({"a": torch.zeros(100)}, path)
    with pytest.raises(ValueError, match=f"model{suffix} is a PyTorch file.*this pack reads safetensors"):
        read_file(path)
