"""What a run leaves behind, in pictures and in words."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....training import filmstrip
from ....training.report import curve
from ..versions import tells_of_graphs
from .progress import WIDTH, picture

if TYPE_CHECKING:
    from PIL import Image


@dataclasses.dataclass(frozen=True)
class Training:
    """A run: its folder, the lines of its log, the prompts of its samples, the LoRA's file, and how many clips."""

    folder: Path
    lines: list[dict[str, Any]]
    prompts: list[str]
    lora: Path
    clips: int

    @property
    def samples(self) -> list[filmstrip.Sample]:
        """The clips that were made on the way."""
        return filmstrip.samples_in(samples_folder(self.folder, self.prompts))


def samples_folder(folder: Path, prompts: Sequence[str]) -> Path:
    """Where a run keeps its clips of these prompts: those of others stay apart."""
    return folder / "samples" / digest_of(list(prompts))


def digest_of(value: object) -> str:
    """Ten digits that follow from plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:10]


def graph_of(node: Any) -> dict[str, str]:
    """The graph that runs a node, as a saved file carries it: dropped on the page, the file opens it."""
    hidden = node.hidden
    if hidden is None or not tells_of_graphs():
        return {}
    found = {"prompt": hidden.prompt, **(hidden.extra_pnginfo or {})}
    return {key: json.dumps(value) for key, value in found.items() if value}


def pictures_of(training: Training) -> tuple[Image.Image, Image.Image]:
    """The curve, and the strip of samples."""
    return curve(training.lines, WIDTH), filmstrip.strip(training.samples, training.prompts, WIDTH)


def picture_of(training: Training) -> Image.Image:
    """Both in one."""
    samples = training.samples
    return picture(training.lines, filmstrip.strip(samples, training.prompts, WIDTH) if samples else None)


def said(training: Training) -> str:
    """Steps, time, losses, and where the LoRA lies."""
    steps = [line for line in training.lines if "loss" in line]
    judged = [line for line in training.lines if "validation" in line]
    lines = [f"{training.clips} clips, {len(steps)} steps"]
    if steps:
        last = steps[-max(1, len(steps) // 10) :]
        mean = sum(line["loss"] for line in last) / len(last)
        lines[0] += f", {steps[-1].get('seconds', 0):.0f} s"
        lines.append(f"loss of the last {len(last)} steps: {mean:.4f}")
    if judged:
        best = min(judged, key=lambda line: line["validation"])
        lines.append(f"best validation: {best['validation']:.4f} at step {best['step']}; the LoRA is that of this step")
    return "\n".join([*lines, f"LoRA: {training.lora}", f"run: {training.folder}"])
