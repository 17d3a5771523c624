"""What ComfyUI shows while a run goes on: its bar, and the curve of the loss over the samples so far."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.model_management as management
import comfy.utils

from ....training import filmstrip
from ....training.report import curve

if TYPE_CHECKING:
    from PIL import Image

SECONDS = 2.0  # between two pictures
WIDTH, CURVE_HEIGHT, LARGEST = 960, 400, 960


class Progress:
    """The progress of a run of so many steps, with the folder of its samples and their prompts."""

    def __init__(self, samples: Path, steps: int, prompts: Sequence[str]) -> None:
        self.samples, self.steps, self.prompts = samples, steps, prompts
        self.bar = comfy.utils.ProgressBar(steps)
        self.lines: list[Mapping[str, Any]] = []
        self.last, self.strip = 0.0, None

    def begin(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Show what a run that goes on has done already."""
        self.lines = list(lines)
        self.sampled()

    def step(self, entry: Mapping[str, Any]) -> bool:
        """Take a line of the log; whether the artist has stopped the run."""
        self.lines.append(entry)
        if management.processing_interrupted():
            return True
        due = time.monotonic() - self.last > SECONDS or entry["step"] >= self.steps
        try:
            self.bar.update_absolute(int(entry["step"]), self.steps, self._preview() if due else None)
        except management.InterruptProcessingException:
            # The bar ends the node at once. Here the run saves first, and then asks again whether it was stopped.
            management.interrupt_current_processing()
            return True
        return False

    def sampled(self) -> None:
        """A sample has been written: it is in the next picture."""
        found = filmstrip.samples_in(self.samples)
        self.strip = filmstrip.strip(found, self.prompts, WIDTH) if found else None
        self.last = 0.0

    def has(self, step: int) -> bool:
        """Whether there are samples of this step."""
        return any(sample.step == step for sample in filmstrip.samples_in(self.samples))

    def say(self, message: str) -> None:
        """A line for ComfyUI's console."""
        logging.info("Open-Sora training: %s", message)

    def _preview(self):
        self.last = time.monotonic()
        return "JPEG", picture(self.lines, self.strip), LARGEST


def picture(lines: Sequence[Mapping[str, Any]], strip: Image.Image | None) -> Image.Image:
    """The curve, and below it the samples, where there are any."""
    upper = curve(lines, WIDTH, CURVE_HEIGHT)
    return upper if strip is None else filmstrip.below(upper, strip)
