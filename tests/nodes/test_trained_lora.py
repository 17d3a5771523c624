"""A LoRA from the trainer in ComfyUI: its loader knows every key, and the picture is that of the merged weights."""

import logging

import pytest
import torch
from families import SMALL, clip, ours, small_family
from golden import difference
from opensora_comfy.training import lora
from safetensors.torch import save_file
from small import pack, write
from stock import stock


@pytest.mark.parametrize("name", SMALL)
def test_the_stock_loader_gives_what_was_trained(comfy, models, positive, tmp_path, monkeypatch, caplog, name):
    import folder_paths

    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(tmp_path)], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    network, weights = small_family(name)
    network.load_state_dict(weights)
    lora.inject(network, 3, 6.0)
    generator = torch.Generator().manual_seed(1)
    for layer in lora.layers(network).values():
        layer.up.data = 0.1 * torch.randn(layer.up.shape, generator=generator)
    saved = {key: value.contiguous() for key, value in lora.state_dict(network).items()}
    save_file(saved, tmp_path / "trained.safetensors")

    known = comfy.lora.model_lora_keys_unet(models[name].model, {})
    stems = {key.removesuffix(".lora_A.weight") for key in saved if key.endswith(".lora_A.weight")}
    assert len(stems) == len(lora.layers(network)) and stems <= set(known)
    with caplog.at_level(logging.WARNING):
        loaded = stock(
            "nodes", "LoraLoaderModelOnly", model=models[name], lora_name="trained.safetensors", strength_model=1.0
        )[0]
    assert "lora key not loaded" not in caplog.text and set(loaded.patches) == {f"{stem}.weight" for stem in stems}

    lora.merge(network)
    merged = pack("nodes.comfy.loading").load_model(
        write(tmp_path / "merged", network.state_dict(), config=SMALL[name][3])
    )
    latent = clip(name)
    expected = ours(merged, positive, latent, steps=2)
    assert difference(ours(loaded, positive, latent, steps=2), expected) <= 1e-5
    assert difference(ours(models[name], positive, latent, steps=2), expected) > 1e-3
