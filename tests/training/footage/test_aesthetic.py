"""The aesthetic score: a linear head on the features of a CLIP."""

import pickle
import re

import numpy
import pytest
import torch
import transformers
from moved import scored
from opensora_comfy.training.data.footage.measures.aesthetic import Aesthetic, linear
from opensora_comfy.training.data.footage.measures.clip_vision import ClipVision, prepared
from PIL import Image
from safetensors.torch import save_file
from small import random_weights
from torch import nn

SIZES = (768, 1024, 128, 64, 16, 1)


def frames(count=3, height=60, width=80):
    return [*numpy.random.default_rng(0).integers(0, 255, (count, height, width, 3), dtype=numpy.uint8)]


def head_weights(sizes=SIZES):
    torch.manual_seed(0)
    places = (0, 2, 4, 6, 7)  # dropouts stand between
    maps = {place: nn.Linear(a, b) for place, a, b in zip(places, sizes, sizes[1:])}
    return {
        f"layers.{place}.{name}": value for place, layer in maps.items() for name, value in layer.state_dict().items()
    }


def by_hand(weights, features):
    x = nn.functional.normalize(features, dim=-1)
    for place in (0, 2, 4, 6, 7):
        x = nn.functional.linear(x, weights[f"layers.{place}.weight"], weights[f"layers.{place}.bias"])
    return x[:, 0]


class Features:
    """A CLIP that gives these features, one call after the other."""

    def __init__(self, features):
        self.left = list(features)

    def __call__(self, frames):
        assert len(frames) == 1
        return self.left.pop(0)[None]


def save(weights, path):
    if path.suffix == ".pth":
        torch.save(weights, path)
    else:
        save_file({key: value.contiguous() for key, value in weights.items()}, path)
    return path


@pytest.mark.parametrize("name", ["head.pth", "head.safetensors"])
def test_the_head_is_one_linear_map(tmp_path, name):
    weights, features = head_weights(), torch.randn(3, 768)
    aesthetic = Aesthetic(save(weights, tmp_path / name), Features(features))
    found = scored(aesthetic, frames())
    assert found == {"aes": pytest.approx(by_hand(weights, features).mean().item(), abs=1e-5)}
    plain = {"weight": torch.randn(1, 768), "bias": torch.tensor([5.0])}
    aesthetic = Aesthetic(save(plain, tmp_path / f"plain_{name}"), Features((features / 3).numpy()))
    wanted = (nn.functional.normalize(features, dim=-1) @ plain["weight"][0] + 5).mean().item()
    assert scored(aesthetic, frames())["aes"] == pytest.approx(wanted, abs=1e-5)


def test_frames_are_three_of_a_shot_and_one_of_a_picture(tmp_path):
    aesthetic = Aesthetic(save(head_weights(), tmp_path / "head.pth"), lambda given: torch.ones(len(given), 768))
    assert aesthetic.frames(200, 25) == [20, 100, 180] and aesthetic.frames(1, 120) == [0]
    assert aesthetic.score([], 25) == {"aes": None} and aesthetic.columns == ("aes",)


def test_wrong_shapes_are_said_by_name(tmp_path):
    weights = head_weights()
    for name, value, message in (
        ("layers.4.weight", torch.zeros(64, 127), r"layers.4.weight is \[64, 127\] and should be \[any, 128\]"),
        ("layers.0.weight", torch.zeros(1024, 512), r"layers.0.weight is \[1024, 512\] and should be \[any, 768\]"),
        ("layers.7.weight", torch.zeros(2, 16), r"layers.7.weight"),
    ):
        with pytest.raises(ValueError, match=message):
            linear({**weights, name: value})
    with pytest.raises(ValueError, match="makes 16 numbers and should make 1"):
        linear({key: value for key, value in weights.items() if ".7." not in key})
    with pytest.raises(ValueError, match="head: it has no weight of a linear map"):
        linear({"bias": torch.zeros(1)})
    aesthetic = Aesthetic(save(weights, tmp_path / "head.pth"), lambda given: torch.ones(len(given), 512))
    with pytest.raises(ValueError, match=r"features of a frame are \[1, 512\] and should be \[1, 768\]; choose CLIP"):
        scored(aesthetic, frames())
    with pytest.raises(ValueError, match="none.pth"):
        Aesthetic(tmp_path / "none.pth", lambda given: given)
    with pytest.raises(ValueError, match="none.safetensors: it cannot be read"):
        Aesthetic(tmp_path / "head.pth", tmp_path / "none.safetensors")


@pytest.fixture(scope="module")
def clip():
    """A small CLIP's vision part with random weights: two layers, 28 pixels, 768 features as in ViT-L/14."""
    config = transformers.CLIPVisionConfig(
        hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=2, patch_size=14,
        image_size=28, projection_dim=768, hidden_act="quick_gelu",
    )  # fmt: skip
    network = transformers.CLIPVisionModelWithProjection(config).eval()
    network.load_state_dict(random_weights(network, 0), strict=False)
    return network


def published(clip):
    """The names that CLIP's files have: those that transformers reads and writes."""
    state = {key: value for key, value in clip.state_dict().items() if not key.endswith("position_ids")}
    return {key if key.startswith("vis") else f"vision_model.{key}": value for key, value in state.items()}


def openai_names(weights):
    found = {}
    for key, value in weights.items():
        place = re.match(r"vision_model\.encoder\.layers\.(\d+)\.(.*)", key)
        if place:
            number, rest = place.groups()
            rest = rest.replace("layer_norm", "ln_").replace("mlp.fc1", "mlp.c_fc").replace("mlp.fc2", "mlp.c_proj")
            found[f"visual.transformer.resblocks.{number}.{rest.replace('self_attn', 'attn')}"] = value
        elif key == "visual_projection.weight":
            found["visual.proj"] = value.T
        else:
            renamed = key.replace("vision_model.embeddings.", "visual.").replace("patch_embedding", "conv1")
            renamed = renamed.replace("position_embedding.weight", "positional_embedding")
            renamed = renamed.replace("vision_model.pre_layrnorm", "visual.ln_pre")
            found[renamed.replace("vision_model.post_layernorm", "visual.ln_post")] = value
    for key in [key for key in found if ".attn.q_proj." in key]:
        parts = [found.pop(key.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        found[key.replace("q_proj.", "in_proj_")] = torch.cat(parts)
    return found


def test_features_are_clips(clip, tmp_path):
    weights = published(clip)
    whole = {**weights, "text_model.final_layer_norm.bias": torch.zeros(4), "logit_scale": torch.ones(1)}
    given = frames()
    with torch.no_grad():
        wanted = clip(pixel_values=torch.stack([prepared(frame, 28) for frame in given])).image_embeds
    for name, state in (("hf", whole), ("openai", {**openai_names(weights), "token_embedding.weight": torch.ones(2)})):
        found = ClipVision(save(state, tmp_path / f"{name}.safetensors"))(given)
        assert found.shape == (3, 768) and torch.allclose(found, wanted, atol=1e-5)


def test_a_file_of_clip_gives_scores(clip, tmp_path):
    weights = head_weights()
    head, path = save(weights, tmp_path / "head.pth"), save(published(clip), tmp_path / "clip.safetensors")
    aesthetic = Aesthetic(head, path)
    score = scored(aesthetic, frames())
    assert score["aes"] == pytest.approx(by_hand(weights, ClipVision(path)(frames())).mean().item(), abs=1e-5)
    copy = pickle.loads(pickle.dumps(aesthetic))
    assert len(pickle.dumps(aesthetic)) < 10_000 and copy.key == aesthetic.key and scored(copy, frames()) == score
    other = Aesthetic(save({**weights, "layers.7.bias": torch.ones(1)}, tmp_path / "other.pth"), path)
    assert other.key != aesthetic.key


def test_other_files_are_told(clip, tmp_path):
    with pytest.raises(ValueError, match="other.pth: this is no CLIP with a vision part, it lacks vision_model.embedd"):
        ClipVision(save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pth"))
    weights = published(clip)
    weights["vision_model.encoder.layers.1.mlp.fc2.weight"] = torch.zeros(128, 255)
    with pytest.raises(ValueError, match=r"layers.1.mlp.fc2.weight is \[128, 255\] and should be \[128, 256\]"):
        ClipVision(save(weights, tmp_path / "bent.safetensors"))
    del weights["vision_model.encoder.layers.1.mlp.fc2.weight"]
    with pytest.raises(ValueError, match="layers.1.mlp.fc2.weight is missing and should be"):
        ClipVision(save(weights, tmp_path / "short.safetensors"))


def test_pictures_reach_clip_as_it_was_trained():
    grey = prepared(numpy.full((300, 500, 3), 128, numpy.uint8), 224)
    assert grey.shape == (3, 224, 224)
    wanted = [
        (128 / 255 - m) / s for m, s in ((0.48145466, 0.26862954), (0.4578275, 0.26130258), (0.40821073, 0.27577711))
    ]
    assert torch.allclose(grey[:, 0, 0], torch.tensor(wanted), atol=1e-5)
    halves = numpy.asarray(Image.new("RGB", (448, 224), "white")).copy()
    halves[:, :112] = halves[:, -112:] = 0  # outside of the middle square
    assert (prepared(halves, 224) > 1).all()
