"""The tiny T5: its training's parts, and the bundled file by itself and in ComfyUI's own T5 class."""

import json
import math
from pathlib import Path

import numpy
import pytest
import safetensors
import safetensors.torch
import torch
from opensora_comfy.training.data import encoders
from opensora_comfy.training.data.encoders import TextEncoder
from opensora_comfy.training.tiny import text_encoder as tiny
from opensora_comfy.training.tiny.__main__ import write
from opensora_comfy.training.tiny.recipe import ABOUT, TEXT_ENCODER

BUNDLED = Path(__file__).resolve().parents[3] / "model" / "bundled" / "text_encoder.safetensors"
SMALL = {**TEXT_ENCODER, "vocab_size": 40, "max_length": 8}


@pytest.fixture(scope="module")
def small_state():
    torch.manual_seed(0)
    state = encoders.t5_module(SMALL).state_dict()
    return {name: value for name, value in state.items() if "embed_tokens" not in name}


@pytest.fixture(scope="module")
def bundled():
    with safetensors.safe_open(BUNDLED, "pt") as file:
        about = json.loads(file.metadata()["opensora"])
    return safetensors.torch.load_file(BUNDLED), about


@pytest.fixture(scope="module")
def tokenizer(comfy):
    return encoders.load_tokenizer(Path(comfy.sd.__file__).parent / "text_encoders" / "t5_tokenizer")


@pytest.fixture(scope="module")
def encoder(tokenizer):
    return TextEncoder("bundled", tokenizer.name_or_path)


def test_codes_are_orthonormal():
    table = torch.cat(list(tiny.codes().values()))
    assert table.shape == (7 + 5 + 4 + 8, 64)
    assert torch.equal(table @ table.T, torch.eye(len(table)))


def test_meanings_are_read_from_ideal_features():
    directions = tiny.codes()
    said = {"color": "blue", "background": "none", "shape": "triangle", "motion": "up"}
    feature = 4 * sum(directions[name][tiny.MEANINGS[name].index(value)] for name, value in said.items())
    assert feature.pow(2).mean().sqrt().item() == pytest.approx(1)
    features = torch.stack([feature, feature, 9 * torch.randn(64)])[None]
    read = tiny.read_meaning(features, torch.tensor([[1, 1, 0]]))
    assert read == {name: [value] for name, value in said.items()}


def test_padding_changes_nothing(small_state):
    """What a batch of the training pads captions with; nobody attends to it."""
    model = encoders.t5_module(SMALL)
    model.load_state_dict({**small_state, "encoder.embed_tokens.weight": small_state["shared.weight"]})
    tokens, mask = tiny.pad([[3, 4, 5, 1], [6, 7, 8, 9, 10, 11, 12, 1]])
    assert tokens[0].tolist() == [3, 4, 5, 1, 0, 0, 0, 0] and mask.tolist() == [[1] * 4 + [0] * 4, [1] * 8]
    with torch.no_grad():
        together = model(input_ids=tokens, attention_mask=mask).last_hidden_state
        alone = model(input_ids=tokens[:1, :4]).last_hidden_state
    assert torch.allclose(together[:1, :4], alone, atol=1e-5) and alone.abs().min() > 0


def test_a_state_dict_that_does_not_fit_is_refused(bundled, tmp_path, tokenizer):
    fewer = {name: value for name, value in bundled[0].items() if "final_layer_norm" not in name}
    write(fewer, tmp_path, "t5", "text_encoder", "t5", "A test", config=SMALL)
    with pytest.raises(ValueError, match="final_layer_norm"):
        TextEncoder(tmp_path / "t5.safetensors", tokenizer.name_or_path)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        encoders.load_tokenizer(tmp_path)


def test_saving_says_what_the_file_is_and_leaves_nothing_else(small_state, tmp_path):
    path = tmp_path / "folder" / "t5.safetensors"
    write(small_state, path.parent, "t5", "text_encoder", "t5", "A test", config=SMALL)
    assert [entry.name for entry in path.parent.iterdir()] == ["t5.safetensors"]
    with safetensors.safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["opensora"])
        assert file.get_tensor("shared.weight").dtype == torch.float16
    assert (about["kind"], about["family"], about["config"]) == ("text_encoder", "t5", SMALL)
    assert ABOUT.items() <= about.items()


def test_disturbing_and_suffixes_keep_every_word_that_matters():
    rng = numpy.random.default_rng(0)
    texts, _ = tiny.draw_captions(300, rng)
    changed = 0
    for text in texts:
        rest = iter(tiny.add_suffixes(tiny.disturb(text, rng), rng).split())
        wanted = [word.rstrip(".") for word in text.split() if word.rstrip(".") not in tiny.DROPPABLE]
        assert all(any(word == other.rstrip(".") for other in rest) for word in wanted), text
        changed += tiny.disturb(text, rng) != text
    assert changed > 200


def test_unknown_words_never_follow_the_end_token():
    rng = numpy.random.default_rng(0)
    for _ in range(200):
        row = tiny._add_unknown([5, 6, 7, 1], 99, rng)
        assert row[-1] == 1 and [token for token in row if token != 99] == [5, 6, 7, 1] and len(row) > 4


def test_training_learns(tokenizer, tmp_path):
    state, config = tiny.train_text_encoder(tmp_path, tokenizer.name_or_path, steps=60, seed=0)
    write(state, tmp_path, "t5", "text_encoder", "t5", "A test", config=config)
    scores = tiny.evaluate(TextEncoder(tmp_path / "t5.safetensors", tokenizer.name_or_path), count=200)
    assert scores["color"] > 0.6 and scores["background"] > 0.6, scores  # by chance 0.14 and 0.2
    assert state["shared.weight"].shape == (32128, 64) and "encoder.embed_tokens.weight" not in state
    unseen = tokenizer("parliament")["input_ids"][0], tokenizer("Rechnung")["input_ids"][0]
    assert torch.equal(state["shared.weight"][unseen[0]], state["shared.weight"][unseen[1]])


@pytest.mark.parametrize("change", [None, tiny.add_suffixes, tiny.disturb])
def test_the_bundled_encoder_understands_new_sentences_about_new_combinations(encoder, change):
    scores = tiny.evaluate(encoder, count=400, change=change)
    assert min(scores[name] for name in tiny.MEANINGS) >= 0.98 + 0.015 * (change is None), scores


def test_comfyui_s_own_t5_gives_the_same_features(comfy, bundled, encoder, tokenizer):
    import comfy.ops
    from comfy.text_encoders.t5 import T5

    state, about = bundled
    sizes = {**about["config"], "dense_act_fn": "gelu_pytorch_tanh", "is_gated_act": True, "model_type": "t5"}
    theirs = T5(sizes, torch.float32, "cpu", comfy.ops.manual_cast)
    theirs.load_state_dict({name: value.float() for name, value in state.items()})
    texts, _ = tiny.draw_captions(30, numpy.random.default_rng(3), "held_out")
    features, mask = (torch.stack(part) for part in zip(*map(encoder, [*texts, "", "great " * 300])))
    tokens = torch.zeros_like(mask)
    for row, text in enumerate([*texts, "", "great " * 300]):
        ids = tokenizer(text, truncation=True, max_length=mask.shape[1])["input_ids"]
        tokens[row, : len(ids)] = torch.tensor(ids)
    with torch.no_grad():
        output, _ = theirs(tokens, mask)
    assert ((output - features) * mask[..., None]).abs().max() < 1e-4


def test_the_bundled_file_is_small_and_finite(bundled):
    state, about = bundled
    assert BUNDLED.stat().st_size < 4_500_000 and about["kind"] == "text_encoder"
    assert all(math.isfinite(value.float().abs().max()) and value.dtype == torch.float16 for value in state.values())
