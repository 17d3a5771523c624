"""ModelSave, CLIPSave and VAESave: what they write loads again, with everything that the file said of itself."""

import json

import pytest
import torch
from families import SMALL, clip, ours, small_family
from golden import difference
from small import FLOW, MADE_FOR, pack, write
from stock import stock

MERGING = "comfy_extras.nodes_model_merging"


@pytest.fixture
def save(comfy, tmp_path, monkeypatch):
    """Runs one of ComfyUI's Save nodes and gives the paths of what it wrote."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))

    def run(node, **inputs):
        before = set(tmp_path.rglob("*.safetensors"))
        stock(MERGING, node, filename_prefix=f"saved/{node}", **inputs)
        return sorted(set(tmp_path.rglob("*.safetensors")) - before)

    return run


@pytest.mark.parametrize("name", SMALL)
def test_a_saved_model_loads_again(comfy, tmp_path, positive, save, name):
    factors = [[0.01 * (row + color) for color in range(3)] for row in range(16 if name == "stdit3_v1_3" else 4)]
    told = {
        "latent_rgb_factors": factors,
        "latent_rgb_factors_bias": [0.1, 0.2, 0.3],
        "flow": FLOW,
        "made_for": MADE_FOR,
    }
    load = pack("nodes.comfy.loading").load_model
    model = load(write(tmp_path / "first.safetensors", small_family(name)[1], config=SMALL[name][3], **told))
    (path,) = save("ModelSave", model=model)
    again = load(str(path))
    weights = again.model.diffusion_model.state_dict()
    assert weights.keys() == small_family(name)[1].keys()
    assert all(torch.equal(weights[key], value) for key, value in small_family(name)[1].items())
    assert again.model.metadata == model.model.metadata and again.model.metadata["made_for"] == MADE_FOR
    assert again.model.diffusion_model.config == model.model.diffusion_model.config
    assert again.model.latent_format.latent_rgb_factors == factors
    latent = clip(name)
    assert torch.equal(ours(again, positive, latent, steps=2), ours(model, positive, latent, steps=2))


def test_a_saved_lora_is_part_of_the_weights(comfy, checkpoints, positive, save):
    import comfy.sd

    load = pack("nodes.comfy.loading").load_model
    model, generator = load(checkpoints["transformer"]), torch.Generator().manual_seed(0)
    lora = {
        "diffusion_model.final_layer.linear.lora_A.weight": torch.randn(2, 64, generator=generator),
        "diffusion_model.final_layer.linear.lora_B.weight": torch.randn(32, 2, generator=generator),
    }
    changed, _ = comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0)
    (path,) = save("ModelSave", model=changed)
    latent = clip("stdit3")
    expected, plain = (ours(each, positive, latent, steps=2) for each in (changed, model))
    assert difference(ours(load(str(path)), positive, latent, steps=2), expected) <= 1e-5 < difference(expected, plain)


def test_a_saved_text_encoder_loads_again(tiny, save):
    paths = save("CLIPSave", clip=tiny.clip)
    (path,) = (path for path in paths if "t5xxl" in path.name)
    assert paths == [path]
    again = pack("nodes.comfy.loading").load_text_encoder(str(path))
    tokens = tiny.clip.tokenize("a red circle moves right")
    assert again.tokenize("a red circle moves right") == tokens  # as long as the encoder's own file says
    assert torch.equal(again.encode_from_tokens(tokens), tiny.clip.encode_from_tokens(tokens))


def test_a_saved_vae_loads_again(tiny, vaes, save):
    load = pack("nodes.comfy.loading").load_vae
    for vae in (tiny.vae, *vaes.values()):
        (path,) = save("VAESave", vae=vae)
        again = load(str(path))
        own, other = (each.first_stage_model for each in (vae, again))
        assert other.config == own.config and other.opensora == own.opensora
        video = torch.rand(17, 32, 32, 3, generator=torch.Generator().manual_seed(0))
        assert torch.equal(again.encode(video), vae.encode(video))
    assert json.dumps(other.opensora)


def test_damaged_metadata_in_a_tensor_is_refused(comfy, tmp_path):
    weights = {**small_family("stdit3")[1], "opensora_metadata": torch.tensor([1, 2, 3], dtype=torch.uint8)}
    with pytest.raises(ValueError, match="holds a damaged opensora_metadata"):
        pack("nodes.comfy.loading").load_model(write(tmp_path / "bad.safetensors", weights))
