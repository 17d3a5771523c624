"""From a configuration to a run: what fits together, and what is said where it does not."""

import dataclasses
import json

import pytest
import torch
from opensora_comfy.model.frames import CHUNKS, EACH_FRAME
from opensora_comfy.training import lora
from opensora_comfy.training.config import Config, from_mapping
from opensora_comfy.training.setup import (
    belongs_to,
    default_buckets,
    examples_of,
    make_trainable,
    objective_of,
    open_network,
    refuse_misfits,
    settings_in_file,
    shapes_of,
    write_result,
)
from safetensors import safe_open
from small_runs import clip, mixed_clips, network, prepared


def test_the_bundled_model_is_opened():
    module, about = open_network(Config())
    assert module.family == "stdit3" and about["made_for"]["height"] == 64
    assert {value.dtype for value in module.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize(
    "latents, width, words",
    [
        (16, 32, "model.vae makes latents of 16 channels; this stdit3 reads 4: take the VAE of its generation"),
        (4, 4096, "model.text_encoder makes features of width 4096; this stdit3 reads 32: take the T5"),
    ],
)
def test_parts_of_other_models_are_refused(latents, width, words):
    refuse_misfits(network(), 4, 32)
    with pytest.raises(ValueError, match=words):
        refuse_misfits(network(), latents, width)


@pytest.mark.parametrize(
    "family, masks, words",
    [
        (
            "stdit3",
            {"image_haed": 0.1},
            "objective.masks: the mask strategy is 'image_haed'; .*the nearest is image_head",
        ),
        ("stdit3", {"image_head": 1.5}, "objective.masks: the ratio of image_head is 1.5; .*the nearest is 1"),
        (
            "stdit3",
            {"image_head": 0.6, "random": 0.6},
            "objective.masks: the ratios add up to 1.200; they must add up to 1",
        ),
        (
            "stdit3",
            {"image_head": "often"},
            "objective.masks: image_head is 'often'; it must be a probability within 0 … 1",
        ),
        ("stdit3_v1_3", {"image_head": 0.1}, "objective.masks: the kind of condition is 'image_head'; .*i2v_head"),
        ("stdit3_v1_3", {"i2v_head": 0.9, "i2v_loop": 0.9}, "objective.masks: the ratios add up to 1.800"),
    ],
)
def test_masks_are_those_of_the_generation(family, masks, words):
    with pytest.raises(ValueError, match=words):
        objective_of(from_mapping({"objective": {"masks": masks}}), network(family), {})


@pytest.mark.parametrize("family", ["stdit", "stdit2", "stdit3_v1_3", "pixart"])
def test_only_1_2_is_packed(family):
    objective_of(Config(), network(family), {})
    with pytest.raises(ValueError, match=f"shape.way is 'packing'; {family} can only be trained in buckets"):
        objective_of(from_mapping({"shape": {"way": "packing"}}), network(family), {})
    assert objective_of(from_mapping({"shape": {"way": "packing"}}), network(), {}).way == "packing"


def test_buckets_that_nobody_asked_for_suit_model_and_clips():
    about = {"made_for": {"height": 64, "width": 64, "num_frames": 34}}
    assert default_buckets(about, [clip(0, 20), clip(1, 1)], CHUNKS) == {"64x64": {1: 40, 17: 8}}
    assert default_buckets(about, [clip(0, 60)], CHUNKS) == {"64x64": {34: 4}}
    assert default_buckets({}, [clip(0, 60)], EACH_FRAME) == {"240x426": {51: 1}}
    shapes = shapes_of(Config(), about, [clip(0, 20)], CHUNKS, "1.2")
    assert shapes.assign(20, 32, 32).name == "64x64 · 17 frames · 64x64"


def test_trigger_words_stand_in_front_once():
    config = from_mapping({"data": {"trigger": " zwx style ", "validation": 0}})
    clips = [clip(0), dataclasses.replace(clip(1), caption="a ZWX style wave")]
    examples, _ = examples_of(config, clips, shapes_of(config, {}, clips, CHUNKS, "1.2"))
    assert [each.caption for each in examples.clips] == ["zwx style, wave number 0 runs", "a ZWX style wave"]


def test_what_a_checkpoint_must_agree_with(tmp_path):
    examples = prepared(tmp_path, mixed_clips())
    plain = belongs_to(Config(), examples, network())
    for section, name, value in (("train", "rank", 8), ("train", "seed", 1), ("train", "branches", "look")):
        other = belongs_to(from_mapping({section: {name: value}}), examples, network())
        assert {key for key in plain if plain[key] != other[key]} == {f"{section}.{name}"}
    assert belongs_to(Config(), prepared(tmp_path, mixed_clips()[1:]), network())["data set"] != plain["data set"]
    assert belongs_to(Config(), examples, network("stdit2"))["model"] != plain["model"]
    assert json.loads(json.dumps(plain)) == plain


def test_results_say_how_they_were_made(tmp_path):
    config = from_mapping({"train": {"rank": 2}, "data": {"trigger": "zwx"}})
    examples, module = prepared(tmp_path / "cache", mixed_clips()), make_trainable(network(), config.train)
    told = settings_in_file(config, examples, {"step": 7, "loss": 0.5})
    path = write_result(module, config, {}, tmp_path / "lora.safetensors", **told)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        assert set(file.keys()) == set(lora.state_dict(module))
    about = json.loads(metadata["opensora_lora"])
    assert (about["trigger"], about["clips"], about["step"], about["validation"]) == ("zwx", 9, 7, 0.5)
    assert about["data_fingerprint"] == examples.fingerprint and from_mapping(about["settings"]) == config

    config = from_mapping({"train": {"kind": "full"}})
    whole = write_result(network(), config, {"config": {"num_heads": 2}}, tmp_path / "full.safetensors", x="y")
    with safe_open(whole, "pt") as file:
        assert json.loads(file.metadata()["opensora"]) == {"config": {"num_heads": 2}} and file.metadata()["x"] == "y"
    again, about = open_network(from_mapping({"model": {"transformer": str(whole)}}))
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in network().state_dict().items())
    with pytest.raises(ValueError, match="cannot be written"):
        write_result(network(), config, {}, whole / "x.safetensors")
