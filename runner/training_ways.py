"""Compares the ways to train on clips of mixed shapes, as docs/training.md shows it: python run.py bench training.

A set of the bundled model's world (pictures and clips of 17 to 102 frames, upright, wide and square) is trained on in
buckets, padded and packed: from the same weights, by as many samples, in steps of about as many clips. Runs on the CPU
on one thread, in the prepared environment, without ComfyUI; seconds are CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch

from ..training.config import Config, SaveConfig, TrainConfig
from ..training.data.batches import WAYS, Shapes
from ..training.data.cache import Cache
from ..training.data.dataset import Clip, clip_of_images
from ..training.data.encoders import TextEncoder, VideoEncoder
from ..training.data.examples import Examples, split_by_source
from ..training.data.packing import grid_of, padded_tokens, tokens_of
from ..training.data.preflight import crop_of
from ..training.live_bytes import LiveBytes
from ..training.objective import VALIDATION_TIMESTEPS, Objective, fixed, loss
from ..training.setup import MASKS, open_network
from ..training.tiny.captions import caption
from ..training.tiny.shapes import render, sample_scene
from ..training.trainer.steps import Place
from ..training.trainer.trainer import Trainer
from .training_memory import training_table

RESULT = "training_ways.json"
CLIPS, EPOCHS = 48, 6
SIZES = ((64, 64), (48, 80), (80, 48), (48, 96), (96, 48), (56, 72), (80, 56))  # height, width
LENGTHS = (1, 17, 24, 34, 45, 51, 64, 80, 102)  # frames
BUCKETS = {"64x64": {1: 16, 17: 8, 34: 4, 51: 3, 102: 2}}  # about equally many tokens in each batch
A_STEP = 8  # clips, of every way
SHARE_HELD_BACK = 0.2
LEARNING_RATE, EMA = 1e-4, 0.9
COLUMNS = {
    "padded": "tokens filled in, then thrown away",
    "lost": "tokens of the clips cut off or left out",
    "clips_a_call": "clips in a call",
    "speed": "clips a CPU second",
    "token_speed": "tokens a CPU second",
    "memory": "most memory of a call, MB",
    "memory_tokens": "tokens of that call",
    "whole": "validation, whole clips",
    "bucketed": "validation, bucketed clips",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and write the figures beside it."""
    parser = argparse.ArgumentParser(prog="bench training", description=__doc__, allow_abbrev=False)
    parser.add_argument("--tokenizer", metavar="DIR", help="folder of the T5 tokenizer")
    parser.add_argument("--clips", metavar="N", type=int, default=CLIPS, help="pictures and clips of the set")
    parser.add_argument("--epochs", metavar="N", type=int, default=EPOCHS, help="how often each is shown")
    parser.add_argument("--seeds", metavar="N", type=int, default=2, help="how often all is done anew")
    parser.add_argument("--json", metavar="FILE", type=Path, default=Path(RESULT), help="where the figures go")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    figures = compare(options.clips, options.epochs, options.seeds, options.tokenizer)
    print(table(figures))
    options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(f"\nA step of a LoRA of Open-Sora 1.2 beside the weights, GB\n\n{training_table()}")
    print(f"\n{options.json}; {figures['cpu_seconds']:.0f} CPU seconds")
    return 0


def compare(clips: int, epochs: int, seeds: int, tokenizer: str | None = None) -> dict[str, Any]:
    """{"before": validation of the weights as they are, "ways": {way: its figures}, …}; memory in bytes."""
    began = time.process_time()
    made = mixed_set(clips)
    network, _ = open_network(Config())
    encoders = VideoEncoder(), TextEncoder("bundled", tokenizer, network.max_caption_length, "1.2")
    ways: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        sets = {way: _examples(made, way, encoders, Path(folder) / "cache") for way in WAYS}
        judged = {"whole": sets["packing"][1], "bucketed": sets["buckets"][1]}
        before = {name: validation(network, examples) for name, examples in judged.items()}
        for way in WAYS:
            ways[way] = {**tokens(sets[way][0]), **_memory(sets[way][0], Path(folder) / way)}
            runs = [_train(sets[way][0], epochs, seed, judged, Path(folder) / f"{way}-{seed}") for seed in range(seeds)]
            ways[way] |= {name: _mean([run[name] for run in runs]) for name in runs[0]}
            ways[way]["token_speed"] = ways[way]["tokens"] / len(sets[way][0]) * ways[way]["speed"]
            ways[way]["validations"] = {name: [run[name] for run in runs] for name in judged}
    examples = sets["packing"][0]
    return {
        "clips": len(examples), "held_back": len(judged["whole"]), "shown": epochs * len(examples), "seeds": seeds,
        "before": before, "ways": ways, "cpu_seconds": time.process_time() - began,
    }  # fmt: skip


def mixed_set(count: int, seed: int = 0) -> list[Clip]:
    """Pictures and clips of the tiny model's world, each with a caption: all sizes and lengths in turn."""
    rng = numpy.random.default_rng(seed)
    found = []
    for number in range(count):
        frames = LENGTHS[number % len(LENGTHS)]
        scene = sample_scene(rng, *SIZES[number % len(SIZES)], frames)
        found.append(clip_of_images(render(scene), caption(scene, rng), 24, f"{number:03d}"))
    return found


def _examples(clips, way, encoders, folder):
    """(trained on, held back), encoded; the same clips are held back in every way."""
    shapes = Shapes(BUCKETS, encoders[0].counting, way)
    parts = [Examples(part, shapes, Cache(folder)) for part in split_by_source(clips, SHARE_HELD_BACK)]
    for part in parts:
        part.prepare(*encoders)
    return parts


def _objective(way):
    return Objective(version="1.2", ratios=MASKS, way=way, flow={"base_resolution": 1024, "base_num_frames": 1})


def _trainer(examples, folder, seed=0, accumulate=1, steps=1):
    settings = TrainConfig(
        kind="full", learning_rate=LEARNING_RATE, schedule="cosine", ema=EMA, accumulate=accumulate, seed=seed,
        steps=steps, warmup=5,
    )  # fmt: skip
    network, _ = open_network(Config())
    objective, saving = _objective(examples.shapes.way), SaveConfig(folder=str(folder))
    return Trainer(network.requires_grad_(True), examples, objective, settings, saving)


def tokens(examples: Examples) -> dict[str, float]:
    """Of an epoch: clips in a call, tokens, the share of them that is padding, and the share of the clips that is lost.

    A clip's own tokens are those of its whole length and ratio, at the resolution that it is trained in.
    """
    calls = [batch[0] for step in examples.steps(0) for batch in step]
    own = sum(math.prod(_grid(examples, index)) for index in range(len(examples)))
    computed = sum(_computed(examples, batch) for batch in calls)
    whole, lost = 0.0, 0.0
    free = Shapes(BUCKETS, examples.shapes.counting, "packing")
    for index, clip in enumerate(examples.clips):
        unbounded = free.assign(clip.frames, clip.height, clip.width)
        of_clip = tokens_of(unbounded.frames, unbounded.height, unbounded.width, free.counting)
        whole += of_clip
        lost += of_clip * (1 - _kept(clip, examples.cuts(index, examples.shape(index, 0))[0]))
    return {
        "clips_a_call": len(examples) / len(calls), "padded": 1 - own / computed, "lost": lost / whole,
        "tokens": own, "computed": computed,
    }  # fmt: skip


def _grid(examples, index):
    shape = examples.shape(index, 0)
    return grid_of(shape.frames, shape.height, shape.width, examples.shapes.counting)


def _computed(examples, batch):
    """Tokens of a call."""
    grids = [_grid(examples, index) for index in batch]
    return padded_tokens(grids) if examples.shapes.way == "padding" else sum(map(math.prod, grids))


def _kept(clip, cut):
    """The share of a clip's frames and pixels that is in a cut."""
    left, top, right, bottom = crop_of(clip.height, clip.width, cut, single=clip.frames == 1)
    return len(cut.frames) / clip.frames * (right - left) * (bottom - top) / (clip.height * clip.width)


def _memory(examples, folder):
    """Bytes of the tensors that are alive at once in the call that needs most, forwards and backwards."""
    trainer, found = _trainer(examples, folder), []
    for step in trainer.schedule.steps(Place(), len(examples.steps(0))):
        batches = trainer.draws.of(step)
        with LiveBytes() as counted:
            trainer.learner(batches[0]).sum().backward()
        trainer.optimizer.zero_grad(set_to_none=True)
        found.append((counted.peak, _computed(examples, step.batches[0])))
    most, of_tokens = max(found)
    return {"memory": most, "memory_tokens": of_tokens}


def _train(examples, epochs, seed, judged, folder):
    """Every clip shown `epochs` times: clips a CPU second, and validation with the averaged weights."""
    accumulate = max(1, round(A_STEP / (len(examples) / len(examples.steps(0)))))
    count = sum(len(examples.steps(number, accumulate=accumulate)) for number in range(epochs))
    trainer = _trainer(examples, folder, seed, accumulate, count)
    shown, seconds = 0, 0.0
    for step, batches in trainer.schedule.read(Place(), count):
        began = time.process_time()
        trainer.update(step, batches)
        seconds += time.process_time() - began
        shown += step.count
    assert shown == epochs * len(examples)
    with trainer.averaged():
        found = {name: validation(trainer.network, held_back) for name, held_back in judged.items()}
    return {**found, "speed": shown / seconds, "steps": count}


@torch.no_grad()
def validation(network: torch.nn.Module, examples: Examples) -> float:
    """The mean loss of examples at fixed timesteps and noise, one by one, each whole."""
    objective = _objective("buckets")
    values = [
        float(loss(network, [fixed(examples.middle(index), float(t))], objective))
        for index in range(len(examples))
        for t in VALIDATION_TIMESTEPS
    ]
    return _mean(values)


def table(figures: dict[str, Any]) -> str:
    """The figures as Markdown, a row for each way."""
    lines = [f"| way | {' | '.join(COLUMNS.values())} |", f"| --- |{' ---: |' * len(COLUMNS)}"]
    for way, found in figures["ways"].items():
        lines.append(f"| {way} | {' | '.join(_said(name, found) for name in COLUMNS)} |")
    return "\n".join(lines)


def _said(name, found):
    value = found[name]
    if name in found.get("validations", {}):
        spread = max(found["validations"][name]) - min(found["validations"][name])
        return f"{value:.4f} ± {spread / 2:.4f}"
    if name in ("padded", "lost"):
        return f"{value:.0%}"
    return f"{value:.1f}" if name in ("clips_a_call", "speed") else f"{value / (1e6 if name == 'memory' else 1):,.0f}"


def _mean(values):
    return sum(values) / len(values)


if __name__ == "__main__":
    raise SystemExit(main())
