"""`python run.py bench training`: what is counted, and that a small one runs from beginning to end."""

import json

import pytest
import torch
from conftest import COMFYUI
from opensora_comfy.model.frames import CHUNKS
from opensora_comfy.runner import training_ways
from opensora_comfy.runner.training_memory import training_peak
from opensora_comfy.runner.training_ways import BUCKETS, mixed_set, table, tokens
from opensora_comfy.training.data.batches import WAYS, Shapes
from opensora_comfy.training.data.cache import Cache
from opensora_comfy.training.data.dataset import clip_of_images
from opensora_comfy.training.data.examples import Examples


def examples(way, *shapes, tmp_path=""):
    clips = [
        clip_of_images(torch.full((T, H, W, 3), n / 9), "A clip.", name=f"{n}") for n, (T, H, W) in enumerate(shapes)
    ]
    return Examples(clips, Shapes(BUCKETS, CHUNKS, way), Cache(tmp_path))


def test_tokens_of_clips_that_fill_their_buckets():
    """A clip of 17 frames of 64 x 64 pixels is 5 x 4 x 4 tokens."""
    for way in WAYS:
        found = tokens(examples(way, (17, 64, 64), (17, 64, 64)))
        assert found == {"clips_a_call": 2, "padded": 0, "lost": 0, "tokens": 160, "computed": 160}


def test_what_buckets_shorten_and_crop_is_lost():
    """24 frames, of which 21 could be taken (6 latents, 96 tokens), lose 7; a banner loses a quarter of its width."""
    assert tokens(examples("buckets", (24, 64, 64)))["lost"] == pytest.approx(7 / 24)
    assert tokens(examples("packing", (24, 64, 64)))["lost"] == pytest.approx(3 / 24)
    assert tokens(examples("buckets", (17, 32, 128)))["lost"] == pytest.approx(0.25)
    assert tokens(examples("packing", (17, 32, 128)))["lost"] == 0


def test_padding_fills_up_to_the_largest_and_packing_to_nothing():
    """96 tokens beside 80 of the same frame size: a batch of two has 192, of which 16 are filled in."""
    shapes = (21, 64, 64), (17, 64, 64)
    assert tokens(examples("padding", *shapes)) == {
        "clips_a_call": 2, "padded": pytest.approx(16 / 192), "lost": 0, "tokens": 176, "computed": 192,
    }  # fmt: skip
    assert tokens(examples("packing", *shapes)) == {
        "clips_a_call": 2,
        "padded": 0,
        "lost": 0,
        "tokens": 176,
        "computed": 176,
    }


def test_the_set_has_every_shape_and_length():
    clips = mixed_set(18)
    assert {clip.frames for clip in clips} == set(training_ways.LENGTHS)
    assert {(clip.height, clip.width) for clip in clips} == set(training_ways.SIZES)
    assert len({clip.key for clip in clips}) == 18 and all(clip.caption for clip in clips)
    assert [clip.key for clip in mixed_set(18)] == [clip.key for clip in clips]


def test_recomputing_keeps_the_blocks_inputs_alone():
    """Without it a block keeps all that it computed; both grow with the clip."""
    few, many, clip = (training_peak(256, 144, frames, ck) for frames, ck in ((17, True), (17, False), (34, True)))
    assert 10 * few < many and 1.5 * few < clip < 2 * few  # captions do not grow


def test_a_small_one_from_beginning_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training_ways, "training_table", lambda: "the table of memory")
    monkeypatch.setattr(training_ways, "LENGTHS", (17, 1, 18))
    monkeypatch.setattr(training_ways, "SIZES", ((48, 48), (32, 64)))
    threads = torch.get_num_threads()
    tokenizer = COMFYUI / "comfy" / "text_encoders" / "t5_tokenizer"
    try:
        path = tmp_path / "ways.json"
        training_ways.main(
            ["--tokenizer", str(tokenizer), "--clips", "7", "--epochs", "2", "--seeds", "1", "--json", str(path)]
        )
    finally:
        torch.set_num_threads(threads)
    found = json.loads(path.read_text())
    said = capsys.readouterr().out
    assert table(found) in said and "the table of memory" in said
    assert (
        found["clips"] + found["held_back"] == 7
        and found["shown"] == 2 * found["clips"]
        and list(found["ways"]) == list(WAYS)
    )
    for way, figures in found["ways"].items():
        assert figures["memory"] > 1e6 and figures["speed"] > 0 and figures["steps"] >= 2
        assert figures["padded"] == 0 or way == "padding"
        for name, before in found["before"].items():  # it learns, by however little
            assert figures[name] != before and figures[name] == pytest.approx(before, rel=0.1)
