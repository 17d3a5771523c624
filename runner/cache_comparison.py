"""Compares Open-Sora Cache with ComfyUI's EasyCache and LazyCache, for docs/caching.md: python run.py bench cache.

The bundled model makes clips of held-out captions, as the first template does, without a cache and with each; what is
compared is the decoded clip with that of the run without. Runs on the CPU on one thread, in the prepared environment
with ComfyUI in the same process.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import torch
from PIL import Image

from ..nodes import NODES
from ..nodes.comfy.stock_caches import cached
from ..nodes.comfy.transformer.caching import install, layers
from ..training.contact_sheet import contact_sheet, pictures, save_small
from ..training.tiny.evaluate import Trial, held_out_trials, score
from ..training.tiny.painting import psnr

RESULT, SHEET = "caching.json", "caching.png"
CLIPS, SHOWN, MEASURED = 48, 4, 8
ON_SHEET = ("none 0.0", "Open-Sora Cache 0.5", "Open-Sora Cache 1.0", "EasyCache 0.2", "LazyCache 0.2")
SPEEDS = (0.25, 0.5, 0.75, 1.0)
THRESHOLDS = (0.025, 0.05, 0.1, 0.2, 0.5)
KINDS = {"attn": "attention", "cross_attn": "cross-attention", "mlp": "MLP"}  # a block's layers by their names


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; write the figures and a picture of clips."""
    parser = argparse.ArgumentParser(prog="bench cache", description=__doc__, allow_abbrev=False)
    parser.add_argument("--clips", metavar="N", type=int, default=CLIPS, help="held-out captions")
    parser.add_argument("--json", metavar="FILE", type=Path, default=Path(RESULT), help="where the figures go")
    parser.add_argument("--sheet", metavar="FILE", type=Path, default=Path(SHEET), help="where the picture goes")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    figures, clips = compare(held_out_trials(options.clips))
    options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    save_small(sheet(clips), options.sheet)
    print(f"{changes_table(figures)}\n\n{table(figures)}\n\n{options.json}, {options.sheet}")
    return 0


def sheet(clips: dict[str, list[torch.Tensor]]) -> Image.Image:
    """One picture: a row for each clip, a column for each way of ON_SHEET."""
    ways = [way for way in ON_SHEET if way in clips]
    shown = range(len(clips[ways[0]]))
    rows = [pictures(clips[way][index]) for index in shown for way in ways]
    return contact_sheet(rows, [way for _ in shown for way in ways], columns=len(ways), zoom=1)


class Tiny:
    """The bundled model, and the steps of the first template."""

    def __init__(self) -> None:
        self.nodes = {node.define_schema().node_id: node for node in NODES}
        self.model, self.clip, self.vae = (self.run(f"OpenSoraLoad{part}") for part in ("Model", "TextEncoder", "VAE"))
        self.network = self.model.model.diffusion_model
        self.latent = self.run("OpenSoraEmptyLatent", vae=self.vae)

    def run(self, node_id: str, **values: Any) -> Any:
        """The first output of a node, at its default values where none are given."""
        node = self.nodes[node_id]
        inputs = node.define_schema().inputs
        defaults = {each.id: each.default for each in inputs if getattr(each, "default", None) is not None}
        return node.execute(**{**defaults, **values}).args[0]

    def sample(self, model: Any, trial: Trial) -> dict[str, Any]:
        """LATENT of a trial."""
        positive = self.run("OpenSoraTextEncode", clip=self.clip, prompt=trial.text, model=self.model)
        return self.run("OpenSoraSampler", model=model, positive=positive, latent=self.latent, seed=trial.seed)

    def decode(self, latent: dict[str, Any]) -> torch.Tensor:
        """Frames [T, H, W, 3]."""
        return self.run("OpenSoraVAEDecode", vae=self.vae, samples=latent)


def compare(
    trials: Sequence[Trial], speeds: Sequence[float] = SPEEDS, thresholds: Sequence[float] = THRESHOLDS
) -> tuple[dict[str, Any], dict[str, list[torch.Tensor]]]:
    """(figures, {way: the first clips}); a figure for every setting of every cache, and what interpolates them."""
    tiny = Tiny()
    with changing(tiny.network) as changes:
        for trial in trials[:MEASURED]:
            tiny.sample(tiny.model, trial)
    ways: dict[tuple[str, float], Callable[[], Any]] = {("none", 0.0): lambda: tiny.model}
    saved: list[Any] = []
    for speed in speeds:
        ways["Open-Sora Cache", speed] = lambda speed=speed: install(tiny.model, speed, saved.append)
    for kind in ("EasyCache", "LazyCache"):
        for value in thresholds:
            ways[kind, value] = lambda kind=kind, value=value: cached(kind, tiny.model, value)
    parts, whole, rows, clips = len(list(layers(tiny.network))), [], [], {}
    for (kind, setting), make in ways.items():
        model, found, calls, seconds = make(), [], 0, 0.0
        for trial in trials:
            with computed(tiny.network) as counted:
                began = time.process_time()
                latent = tiny.sample(model, trial)
                seconds += time.process_time() - began
            calls += parts * sum(counted)
            if kind == "Open-Sora Cache":
                calls -= parts * sum(counted) - saved[-1].computed_layers
            found.append(tiny.decode(latent))
        whole = whole or found
        decibels = [psnr(clip[None], other[None], 1) for clip, other in zip(found, whole)]
        rows.append(
            {"kind": kind, "setting": setting, "calls": calls / len(trials), "seconds": seconds / len(trials),
             "psnr": _mean(decibels), "worst": min(decibels), "right": score(found, trials)["all"]}
        )  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
        clips[f"{kind} {setting}"] = found[:SHOWN]
    return {"clips": len(trials), "changes": _changes(changes), "rows": rows}, clips


@contextmanager
def computed(network: torch.nn.Module) -> Iterator[list[int]]:
    """A list of how many prompts each call of the network inside the block computes."""
    counted: list[int] = []
    hook = network.final_layer.register_forward_pre_hook(lambda module, given: counted.append(len(given[0])))
    try:
        yield counted
    finally:
        hook.remove()


@contextmanager
def changing(network: torch.nn.Module) -> Iterator[dict[str, list[list[tuple[float, float]]]]]:
    """{kind of layer: for each layer the relative changes of its output, call by call: (held, along a line)}."""
    found: dict[str, list[list[tuple[float, float]]]] = {}

    def watch(changes):
        before: list[torch.Tensor] = []

        def hook(module, given, out):
            if before and before[-1].shape == out.shape:
                size = float(out.abs().mean())
                line = 2 * before[-1] - before[-2] if len(before) > 1 else before[-1]
                changes.append(tuple(float((out - other).abs().mean()) / size for other in (before[-1], line)))
            before[:] = [*before[-1:], out]

        return hook

    hooks = []
    for block_kind in ("spatial", "temporal"):
        for block in network.get_submodule(f"{block_kind}_blocks"):
            for name, said in KINDS.items():
                changes: list[tuple[float, float]] = []
                found.setdefault(f"{block_kind} {said}", []).append(changes)
                hooks.append(getattr(block, name).register_forward_hook(watch(changes)))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _changes(found, steps=30):
    """{kind: {held, line: the mean change in the first, middle and last third of a run's steps}}."""
    thirds = (slice(2, steps // 3), slice(steps // 3, 2 * steps // 3), slice(2 * steps // 3, steps))
    means = {}
    for kind, of_layers in found.items():
        # Between two runs lies a change of clip: every run begins with one that says nothing.
        runs = numpy.array([[(0.0, 0.0), *changes] for changes in of_layers]).reshape(len(of_layers), -1, steps, 2)
        held, line = numpy.moveaxis(runs.mean((0, 1)), -1, 0)
        means[kind] = {
            name: [float(of[third].mean()) for third in thirds] for name, of in (("held", held), ("line", line))
        }
    return means


def at_equal_calls(figures: dict[str, Any], kind: str, calls: float) -> float | None:
    """The PSNR of a cache at so many block calls, on the line between its settings; None outside of them."""
    points = sorted((row["calls"], row["psnr"]) for row in figures["rows"] if row["kind"] == kind)
    if not points or not points[0][0] <= calls <= points[-1][0]:
        return None
    return float(numpy.interp(calls, *zip(*points)))


def table(figures: dict[str, Any]) -> str:
    """The comparison as Markdown; beside each speed the stock caches at as many block calls."""
    whole = figures["rows"][0]
    lines = [
        "| cache | setting | block calls | CPU time | PSNR | worst clip | clips that show their caption |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in figures["rows"]:
        share, duration = row["calls"] / whole["calls"], row["seconds"] / whole["seconds"]
        dB = ("–", "–") if row is whole else (f"{row['psnr']:.1f} dB", f"{row['worst']:.1f} dB")
        lines.append(
            f"| {row['kind']} | {row['setting']:g} | {share:.0%} | {duration:.0%} | {dB[0]} | {dB[1]} "
            f"| {row['right']:.0%} |"
        )
    lines += [
        "",
        "| speed | block calls | Open-Sora Cache | EasyCache | LazyCache |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in figures["rows"]:
        if row["kind"] == "Open-Sora Cache":
            others = (at_equal_calls(figures, kind, row["calls"]) for kind in ("EasyCache", "LazyCache"))
            said = " | ".join("–" if other is None else f"{other:.1f} dB" for other in others)
            share = row["calls"] / whole["calls"]
            lines.append(f"| {row['setting']:g} | {share:.0%} | {row['psnr']:.1f} dB | {said} |")
    return "\n".join(lines)


def changes_table(figures: dict[str, Any]) -> str:
    """How much each kind of layer changes from step to step, as Markdown."""
    lines = [
        "| layers | begin | middle | end | middle, along a line |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for kind, found in figures["changes"].items():
        values = [*found["held"], found["line"][1]]
        lines.append(f"| {kind} | {' | '.join(f'{value:.1%}' for value in values)} |")
    return "\n".join(lines)


def _mean(values):
    return sum(values) / len(values)


if __name__ == "__main__":
    raise SystemExit(main())
