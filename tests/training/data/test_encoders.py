"""The command line's encoders give what the pack's own loaders and nodes give."""

import json
import sys
from pathlib import Path

import pytest
import torch
import transformers
from opensora_comfy.model import load_vae
from opensora_comfy.model.files import read_model
from opensora_comfy.training.data.cache import Cache, Cut, read_latents, read_text
from opensora_comfy.training.data.dataset import clip_of_images
from opensora_comfy.training.data.encoders import BUNDLED_FOLDER, TextEncoder, VideoEncoder, find_tokenizer
from safetensors.torch import load_file, save_file
from tiny import run

CAPTIONS = (
    "A large red circle moves left on a blue background.",
    "A (Red:1.3) CIRCLE!! https://example.com 1920x1080 </s> [moves] 圆 left —",
    "",
    "slowly " * 200,
)


@pytest.fixture(scope="module")
def tokenizer(comfy):
    import comfy.sd

    return Path(comfy.sd.__file__).parent / "text_encoders" / "t5_tokenizer"


@pytest.fixture(scope="module")
def video():
    return torch.rand(1, 3, 20, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_the_bundled_vae(video):
    encoder = VideoEncoder()
    state_dict, _, config = read_model(BUNDLED_FOLDER / "vae.safetensors")
    vae = load_vae({key: tensor.float() for key, tensor in state_dict.items()}, config)
    latents = encoder(video)
    with torch.no_grad():  # another way through the network than with gradients, so other last bits
        expected = vae.encode(video)
    assert torch.equal(latents, expected) and latents.dtype == torch.float32
    assert encoder.counting == vae.counting and not latents.requires_grad
    assert (VideoEncoder(dtype=torch.bfloat16)(video) - latents).abs().max() < 0.2


def test_a_vae_has_a_key_of_its_own(tmp_path):
    source = BUNDLED_FOLDER / "vae.safetensors"
    key = VideoEncoder().key
    (tmp_path / "renamed.safetensors").write_bytes(source.read_bytes())
    assert VideoEncoder(tmp_path / "renamed.safetensors").key == key
    assert VideoEncoder(dtype=torch.bfloat16).key != key
    state_dict, metadata, config = read_model(source)
    state_dict = {name: tensor.clone() for name, tensor in state_dict.items()}
    other = {**config, "spatial_norm_groups": config["spatial_norm_groups"] // 2}
    save_file(state_dict, tmp_path / "groups.safetensors", {"opensora": json.dumps({"config": other})})
    next(iter(state_dict.values())).view(-1)[0] += 1
    save_file(state_dict, tmp_path / "changed.safetensors", {"opensora": json.dumps(metadata["opensora"])})
    keys = {key, *(VideoEncoder(tmp_path / f"{name}.safetensors").key for name in ("groups", "changed"))}
    assert len(keys) == 3


def test_files_that_are_no_vae_are_refused(tmp_path):
    with pytest.raises(ValueError, match="VAE: .*none.safetensors cannot be read"):
        VideoEncoder(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="VAE: .*transformer.safetensors: .*transformer"):
        VideoEncoder(BUNDLED_FOLDER / "transformer.safetensors")


@pytest.mark.parametrize("caption", CAPTIONS)
def test_captions_as_the_text_encode_node_reads_them(tiny, tokenizer, caption):
    """Weights of words aside: they are a prompt's, not a caption's."""
    features, mask = TextEncoder(tokenizer=tokenizer)(caption)
    prompt = caption.replace("(Red:1.3)", "Red")
    plain = TextEncoder(tokenizer=tokenizer)(prompt)
    [[known, extra]] = run("OpenSoraTextEncode", clip=tiny.clip, prompt=prompt, model=tiny.model)[0]
    known_mask = extra["attention_mask"].reshape(-1)
    assert torch.equal(plain[1], known_mask.long()) and len(mask) == 120
    real = plain[1].bool()
    assert (plain[0][real] - known[0][real]).abs().max() < 1e-4 * known[0][real].abs().max()
    assert not features[~mask.bool()].any() and not features.requires_grad


def t5_file(path, **config):
    """A random T5 of two layers, in fp16."""
    torch.manual_seed(0)
    sizes = dict(d_model=32, num_layers=2, num_heads=2, d_kv=8, d_ff=48, vocab_size=32128)
    module = transformers.T5EncoderModel(transformers.T5Config(**sizes, feed_forward_proj="gated-gelu"))
    weights = {
        key: value.half().contiguous() for key, value in module.state_dict().items() if "embed_tokens" not in key
    }
    save_file(weights, path, {"opensora": json.dumps({"config": config})} if config else None)
    return path


def test_the_length_is_asked_for_or_the_files_or_the_generations(tmp_path, tokenizer):
    plain, own = t5_file(tmp_path / "plain.safetensors"), t5_file(tmp_path / "own.safetensors", max_length=40)
    lengths = [
        len(TextEncoder(path, tokenizer, **asked)("A cat.")[1])
        for path, asked in ((plain, {}), (plain, {"version": "1.1"}), (own, {}), (own, {"max_length": 7}))
    ]
    assert lengths == [300, 200, 40, 7]
    assert TextEncoder(own, tokenizer, max_length=7).tokens("one two three four five six seven eight")[-1] == 1
    with pytest.raises(ValueError, match="version is '2.0'; it must be one of 1.0, 1.1, 1.2, 1.3"):
        TextEncoder(own, tokenizer, version="2.0")


def test_a_text_encoder_has_a_key_of_its_own(tmp_path, tokenizer):
    path = t5_file(tmp_path / "t5.safetensors")
    other_tokens = tmp_path / "tokens"
    other_tokens.mkdir()
    (other_tokens / "tokenizer.json").write_text("{}")
    encoders = [
        TextEncoder(path, tokenizer),
        TextEncoder(path, tokenizer, max_length=7),
        TextEncoder(path, tokenizer, dtype=torch.bfloat16),
        TextEncoder(path, other_tokens),
        TextEncoder(tokenizer=tokenizer),
    ]
    assert len({encoder.key for encoder in encoders}) == 5
    assert TextEncoder(path, tokenizer).key == encoders[0].key


def test_a_whole_t5_and_the_tables_other_name(tmp_path, tokenizer):
    path = t5_file(tmp_path / "t5.safetensors")
    weights = load_file(path)
    table = weights.pop("shared.weight")
    whole = {
        **weights,
        "encoder.embed_tokens.weight": table,
        "decoder.x.weight": torch.ones(2),
        "lm_head.weight": table.clone(),
    }
    save_file(whole, tmp_path / "whole.safetensors")
    first, second = (TextEncoder(name, tokenizer) for name in (path, tmp_path / "whole.safetensors"))
    assert first.key == second.key and torch.equal(first("A cat.")[0], second("A cat.")[0])


def test_files_that_are_no_t5_are_refused(tmp_path, tokenizer):
    with pytest.raises(ValueError, match="text encoder: .*vae.safetensors: "):
        TextEncoder(BUNDLED_FOLDER / "vae.safetensors", tokenizer)
    weights = load_file(t5_file(tmp_path / "t5.safetensors"))
    name = "encoder.block.0.layer.0.SelfAttention.q"
    save_file({**weights, f"{name}.scale_weight": torch.ones(1)}, tmp_path / "fp8.safetensors")
    with pytest.raises(ValueError, match="fp8.safetensors: it is quantised .*; use t5xxl_fp16.safetensors"):
        TextEncoder(tmp_path / "fp8.safetensors", tokenizer)


def test_where_the_tokenizer_is_looked_for(tmp_path, tokenizer, monkeypatch):
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    path = t5_file(tmp_path / "t5.safetensors")
    with pytest.raises(ValueError, match="tokenizer is None; it must be a folder that holds tokenizer.json; looked in"):
        TextEncoder(path)
    with pytest.raises(ValueError, match="tokenizer is '.*nowhere'; it must be a folder"):
        TextEncoder(path, tmp_path / "nowhere")
    comfyui = tokenizer.parents[2]
    monkeypatch.setenv("COMFYUI_PATH", str(comfyui))
    assert find_tokenizer(None, path).resolve() == tokenizer.resolve()
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{}")
    assert find_tokenizer(None, path) == tmp_path / "tokenizer"


def test_transformers_is_imported_when_text_is_encoded(tokenizer, monkeypatch):
    encoder = TextEncoder(tokenizer=tokenizer)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match="with the package transformers: pip install transformers"):
        encoder("A cat.")


def test_what_the_cache_keeps_of_them(tmp_path, tokenizer):
    clip = clip_of_images(torch.rand(20, 40, 60, 3, generator=torch.Generator().manual_seed(0)), CAPTIONS[0])
    cache, vae, t5 = Cache(tmp_path), VideoEncoder(), TextEncoder(tokenizer=tokenizer)
    found = read_latents(cache.latents(clip, Cut(tuple(range(20)), 32, 48), vae))
    assert found["latents"].shape == (4, vae.counting.latent_frames(20), 4, 6) and found["has_still"].sum() == 3
    text = read_text(cache.text(clip.caption, t5))
    assert all(torch.equal(text[name], known) for name, known in zip(("features", "mask"), t5(clip.caption)))
