"""LoRA: every way of naming its weights, merging, extracting, and taking it off again."""

import logging

import pytest
import torch
from families import SMALL, clip, ours, small_family
from golden import difference
from small import pack
from stock import stock

RANK = 2


def targets(name):
    """Two matrices of a family's network: of a first block's self-attention and of the last layer."""
    keys = small_family(name)[1]
    block = next(key for key in keys if key.endswith("attn.qkv.weight")).removesuffix(".weight")
    return {key: keys[f"{key}.weight"].shape for key in (block, "final_layer.linear")}


def factors(name):
    """key: (down [RANK, in], up [out, RANK]) of a LoRA that is large enough to see."""
    generator = torch.Generator().manual_seed(0)
    return {
        key: (torch.randn(RANK, shape[1], generator=generator), torch.randn(shape[0], RANK, generator=generator) * 0.1)
        for key, shape in targets(name).items()
    }


def kohya(name):
    """Underscores and an alpha."""
    return {
        f"lora_unet_{key.replace('.', '_')}.{part}": value
        for key, (down, up) in factors(name).items()
        for part, value in {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(float(RANK))}.items()
    }


def diffusers(name):
    """A and B, as PEFT has them."""
    return {
        f"diffusion_model.{key}.{part}.weight": value
        for key, (down, up) in factors(name).items()
        for part, value in {"lora_A": down, "lora_B": up}.items()
    }


def own(name):
    """What ComfyUI extracts and trains: the checkpoint's own names."""
    return {
        f"diffusion_model.{key}.{part}.weight": value
        for key, (down, up) in factors(name).items()
        for part, value in {"lora_down": down, "lora_up": up}.items()
    }


NAMINGS = {"kohya": kohya, "diffusers": diffusers, "own": own}


@pytest.fixture
def lora_file(comfy, tmp_path, monkeypatch):
    """Puts a LoRA into models/loras and gives its name."""
    import folder_paths
    from safetensors.torch import save_file

    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(tmp_path)], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})

    def write(weights):
        save_file(weights, tmp_path / "lora.safetensors")
        return "lora.safetensors"

    return write


def loaded(model, file, strength=1.0):
    return stock("nodes", "LoraLoaderModelOnly", model=model, lora_name=file, strength_model=strength)[0]


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("name", SMALL)
def test_a_lora_is_the_merged_weights(comfy, models, positive, lora_file, tmp_path, name, naming):
    file, latent = lora_file(NAMINGS[naming](name)), clip(name)
    plain = ours(models[name], positive, latent, steps=2)
    weights = {key: value.clone() for key, value in small_family(name)[1].items()}
    for key, (down, up) in factors(name).items():
        weights[f"{key}.weight"] += up @ down
    from small import write

    merged = pack("nodes.comfy.loading").load_model(write(tmp_path / "merged", weights, config=SMALL[name][3]))
    expected = ours(merged, positive, latent, steps=2)
    assert difference(expected, plain) > 1e-2
    assert difference(ours(loaded(models[name], file), positive, latent, steps=2), expected) <= 1e-5
    # At strength 0, and after it was taken off again, nothing is left of it.
    assert torch.equal(ours(loaded(models[name], file, 0.0), positive, latent, steps=2), plain)
    assert torch.equal(ours(models[name], positive, latent, steps=2), plain)
    stored = models[name].model.diffusion_model.state_dict()
    assert all(torch.equal(stored[key], value) for key, value in small_family(name)[1].items())


def test_pixart_knows_the_names_of_diffusers(comfy, models, positive, lora_file):
    """There q, k and v are matrices of their own."""
    size, generator = SMALL["pixart"][2]["hidden_size"], torch.Generator().manual_seed(0)
    results = {}
    for prefix in ("transformer.", "base_model.model."):
        weights = {}
        for part in ("to_q", "to_v"):
            stem = f"{prefix}transformer_blocks.0.attn1.{part}"
            weights[f"{stem}.lora_A.weight"] = torch.randn(RANK, size, generator=generator.manual_seed(1))
            weights[f"{stem}.lora_B.weight"] = torch.randn(size, RANK, generator=generator.manual_seed(2))
        model = loaded(models["pixart"], lora_file(weights))
        results[prefix] = ours(model, positive, clip("pixart"), steps=2)
        patched = model.patches["diffusion_model.blocks.0.attn.qkv.weight"]
        assert sorted(patch[3] for patch in patched) == [(0, 0, size), (0, 2 * size, size)]
    plain = ours(models["pixart"], positive, clip("pixart"), steps=2)
    assert torch.equal(*results.values()) and difference(results["transformer."], plain) > 1e-3


@pytest.mark.parametrize("dtype", ["fp8_e4m3fn", "bf16", "fp16"])
def test_a_lora_on_small_weights(comfy, checkpoints, positive, lora_file, dtype):
    """The picture moves as it does in fp32, as far as the dtype allows, and the weights are restored to the bit."""
    load = pack("nodes.comfy.loading").load_model
    generator = torch.Generator().manual_seed(0)
    stem = "diffusion_model.final_layer.linear"
    file = lora_file({
        f"{stem}.lora_down.weight": torch.randn(RANK, 64, generator=generator),
        f"{stem}.lora_up.weight": torch.randn(32, RANK, generator=generator),
    })  # fmt: skip
    latent = clip("stdit3")
    moved = {}
    for kind in ("fp32", dtype):
        model = load(checkpoints["transformer"], kind)
        before = {key: value.clone() for key, value in model.model.diffusion_model.state_dict().items()}
        plain, patched = (ours(each, positive, latent, steps=2) for each in (model, loaded(model, file)))
        moved[kind] = patched - plain
        assert torch.isfinite(patched).all() and difference(patched, plain) > 1e-2
        ours(model, positive, latent, steps=1)
        after = model.model.diffusion_model.state_dict()
        assert all(torch.equal(after[key].float(), value.float()) for key, value in before.items())
    limit = {"fp8_e4m3fn": 0.5, "bf16": 0.15, "fp16": 0.05}[dtype]
    assert (moved[dtype] - moved["fp32"]).norm() <= limit * moved["fp32"].norm()


def test_merging_and_extracting(comfy, models, positive, lora_file, tmp_path, monkeypatch):
    """ModelMergeSimple halves a change; ModelSubtract and LoraSave give it back as a LoRA."""
    import folder_paths
    from safetensors.torch import load_file

    latent, merging = clip("stdit3"), "comfy_extras.nodes_model_merging"
    changed = loaded(models["stdit3"], lora_file(own("stdit3")))
    half = stock(merging, "ModelMergeSimple", model1=changed, model2=models["stdit3"], ratio=0.5)[0]
    expected = ours(loaded(models["stdit3"], lora_file(own("stdit3")), 0.5), positive, latent, steps=2)
    assert difference(ours(half, positive, latent, steps=2), expected) <= 1e-4

    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    diff = stock(merging, "ModelSubtract", model1=changed, model2=models["stdit3"], multiplier=1.0)[0]
    stock(
        "comfy_extras.nodes_lora_extract", "LoraSave", filename_prefix="extracted", rank=RANK, lora_type="standard",
        bias_diff=False, model_diff=diff,
    )  # fmt: skip
    weights = load_file(next(tmp_path.glob("extracted*")))
    assert all(f"diffusion_model.{key}.lora_up.weight" in weights for key in targets("stdit3"))
    again = ours(loaded(models["stdit3"], lora_file(weights)), positive, latent, steps=2)
    whole = ours(changed, positive, latent, steps=2)
    plain = ours(models["stdit3"], positive, latent, steps=2)
    # LoraSave keeps halves and cuts the largest percent off.
    assert (again - whole).norm() <= 0.2 * (whole - plain).norm()


def test_the_lora_of_another_model_is_reported(comfy, models, lora_file, caplog):
    foreign = {
        "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": torch.ones(2, 4),
        "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": torch.ones(4, 2),
    }
    with caplog.at_level(logging.WARNING):
        model = loaded(models["stdit3"], lora_file(foreign))
    assert not model.patches
    assert "lora key not loaded: lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight" in caplog.text


@pytest.mark.parametrize(
    "stem",
    [
        "lora_te1_encoder_block_0_layer_0_SelfAttention_q",
        "text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q",
    ],
)
def test_text_encoders_take_loras_too(tiny, lora_file, stem):
    weight = tiny.clip.cond_stage_model.t5xxl.transformer.encoder.block[0].layer[0].SelfAttention.q.weight
    generator = torch.Generator().manual_seed(0)
    file = lora_file({
        f"{stem}.lora_down.weight": torch.randn(RANK, weight.shape[1], generator=generator),
        f"{stem}.lora_up.weight": torch.randn(weight.shape[0], RANK, generator=generator),
    })  # fmt: skip
    model, clip_of = stock(
        "nodes", "LoraLoader", model=tiny.model, clip=tiny.clip, lora_name=file, strength_model=1.0, strength_clip=1.0
    )
    tokens = tiny.clip.tokenize("a red circle moves right")
    plain = tiny.clip.encode_from_tokens(tokens)
    assert not model.patches and clip_of.patcher.patches
    changed = clip_of.encode_from_tokens(tokens)
    assert difference(changed, plain) > 1e-3
    assert torch.equal(tiny.clip.encode_from_tokens(tokens), plain)
