"""Time and memory of a step, told from two shallow networks."""

import dataclasses
import time

import pytest
import torch
from opensora_comfy.training import estimate as module
from opensora_comfy.training.config import TrainConfig
from opensora_comfy.training.data.batches import Shape
from opensora_comfy.training.estimate import estimate
from opensora_comfy.training.live_bytes import LiveBytes
from opensora_comfy.training.setup import make_trainable
from opensora_comfy.training.trainer.learner import learner_of
from opensora_comfy.training.trainer.stopping import Stopped
from opensora_comfy.training.trainer.trial import made_up, named, try_step
from small_runs import COUNTING, VERSIONS, network, objective

SETTINGS = {"rank": 4, "ema": 0.9, "precision": "fp32"}


def deep(family, depth=5):
    """A network that no memory is lost on before it is asked for."""
    small = network(family)
    return type(small)(dataclasses.replace(small.config, depth=depth))


def shapes_for(family, count=2):
    length = {4: 17, 1: 4}.get(COUNTING[family].factor, 17)
    return [Shape(length, 64, 64, "64x64", count)] * count


@pytest.mark.parametrize("family", VERSIONS)
@pytest.mark.parametrize("kind, spare", [("lora", False), ("lora", True), ("full", False)])
def test_memory_is_that_of_the_whole_network(family, kind, spare):
    settings = TrainConfig(kind=kind, gradient_checkpointing=spare, **SETTINGS)
    shapes, counting = shapes_for(family), COUNTING[family]
    given = deep(family).requires_grad_(False)
    before, state = {name: id(value) for name, value in given.named_parameters()}, torch.get_rng_state()
    found = estimate(given, objective(family), settings, shapes, counting)
    assert {name: id(value) for name, value in given.named_parameters()} == before  # nothing is put into it
    assert torch.equal(torch.get_rng_state(), state)
    learner = learner_of(make_trainable(given, settings), objective(family), settings)
    batch = made_up(learner, shapes, counting)
    with LiveBytes() as counted:
        try_step(learner, batch, settings)
    learning = sum(value.numel() for value in learner.parameters() if value.requires_grad)
    there = sum(value.nbytes for value in (*learner.parameters(), *learner.buffers()))
    assert found.memory == pytest.approx(counted.peak + there + 4 * learning, rel=0.05)
    assert 0 < found.seconds < 60


def test_further_blocks_take_as_long_as_one_more(monkeypatch):
    taken = iter([9.0, 0.5, 0.4, 9.0, 0.7, 0.9])  # each network: the first one warms up
    monkeypatch.setattr(module, "try_step", lambda *given: next(taken))
    monkeypatch.setattr(module, "QUICK", 10.0)

    def seconds():
        given = deep("stdit3", 6), objective(), TrainConfig(**SETTINGS), shapes_for("stdit3"), COUNTING["stdit3"]
        return estimate(*given).seconds

    assert seconds() == pytest.approx(0.4 + 5 * 0.3)
    taken = iter([0.1, 0.1, 0.1, 0.4, 0.4, 0.4])  # a busy computer: what is no block's cannot take less than nothing
    assert seconds() == pytest.approx(6 * 0.2)


def test_it_stops_where_it_is_asked_for():
    began = time.monotonic()
    with pytest.raises(Stopped):
        estimate(
            deep("stdit3"), objective(), TrainConfig(**SETTINGS), shapes_for("stdit3"), COUNTING["stdit3"],
            asked=lambda: True,
        )  # fmt: skip
    assert time.monotonic() - began < 20


def test_what_does_not_fit_even_so_is_said(monkeypatch):
    def full(*given):
        raise MemoryError

    monkeypatch.setattr("opensora_comfy.training.trainer.learner.loss", full)
    with pytest.raises(ValueError, match="out of memory at 2 clips of 17 frames, 64x64"):
        estimate(deep("stdit3"), objective(), TrainConfig(**SETTINGS), shapes_for("stdit3"), COUNTING["stdit3"])


def test_a_batch_is_named_by_its_largest_clip():
    shapes = [Shape(1, 64, 64, "64x64", 3), Shape(17, 32, 64, "a", 3), Shape(1, 64, 64, "64x64", 3)]
    assert named(shapes, COUNTING["stdit3"]) == "3 of a · 17 frames · 64x32"
