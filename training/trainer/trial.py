"""A step of which nothing is kept: what a run takes of time and memory, before it begins."""

import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ...model.frames import Counting
from ..config import TrainConfig
from ..data.batches import Shape
from ..data.examples import Example
from ..objective import Drawn, draw
from ..optimizers import MEMORY
from .learner import Learner, says_what_fits

MOST_TOKENS = 32  # of a made-up caption; long ones cost little beside the clip


def try_step(
    learner: Learner, batch: Sequence[Drawn], settings: TrainConfig, *, optimizer_is_there: bool = False
) -> float:
    """Seconds of one step forward and back on a batch, with as much memory taken as the optimizer will keep.

    Nothing is learned: gradients are thrown away. Raises ValueError where it does not fit.
    """
    device = next(learner.parameters()).device
    started = time.monotonic()
    try:
        with says_what_fits(batch, settings):
            kept = torch.empty(_numbers_to_come(learner, settings, optimizer_is_there), device=device)
            learner(batch).sum().backward()
            del kept
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    finally:
        learner.zero_grad(set_to_none=True)
    return time.monotonic() - started


def _numbers_to_come(learner, settings, optimizer_is_there):
    """Of the optimizer, and of gradients that wait for further batches: there from the second batch on."""
    of_a_weight = 0.0 if optimizer_is_there else MEMORY[settings.optimizer]
    return round((of_a_weight + (settings.accumulate > 1)) * sum(map(_size, learner.parameters())))


def _size(parameter: nn.Parameter) -> int:
    return parameter.numel() if parameter.requires_grad else 0


def trial(
    learner: Learner, shapes: Sequence[Shape], counting: Counting, settings: TrainConfig
) -> tuple[float, int | None]:
    """(seconds, bytes at most on the graphics card or None) of a step on made-up latents of one batch of clips."""
    on_card = next(learner.parameters()).device.type == "cuda"
    if on_card:
        torch.cuda.reset_peak_memory_stats()
    seconds = try_step(learner, made_up(learner, shapes, counting), settings)
    return seconds, torch.cuda.max_memory_allocated() if on_card else None


def made_up(learner: Learner, shapes: Sequence[Shape], counting: Counting) -> list[Drawn]:
    """A batch of these shapes as it is drawn, of random latents and captions."""
    network: Any = learner.network
    nothing = network.null_caption.float().cpu()
    return [draw(_example(network, shape, counting), learner.objective, nothing, seed=0, epoch=0) for shape in shapes]


def _example(network, shape, counting):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(network.in_channels, *_latent_size(shape, counting), generator=generator)
    length = min(MOST_TOKENS, network.max_caption_length)
    sizes = {"fps": 24.0, "height": float(shape.height), "width": float(shape.width), "num_frames": float(shape.frames)}
    return Example(
        "trial", latents, torch.zeros_like(latents), torch.zeros(latents.shape[1], dtype=torch.bool),
        torch.randn(length, network.caption_channels, generator=generator), torch.ones(length, dtype=torch.long), sizes,
    )  # fmt: skip


def _latent_size(shape, counting):
    return counting.latent_frames(shape.frames), counting.latent_side(shape.height), counting.latent_side(shape.width)


def named(shapes: Sequence[Shape], counting: Counting) -> str:
    """A batch as reports call it, by its largest clip: "8 of 240p · 17 frames · 426x240"."""
    return f"{len(shapes)} of {max(shapes, key=lambda shape: math.prod(_latent_size(shape, counting))).name}"


def in_words(seconds: float, memory: int | None, steps: int, per_epoch: int, batch: str) -> list[str]:
    """What a trial says of a run of so many steps: lines for the pre-flight picture."""
    lines = [f"{steps} steps, about {steps / max(1, per_epoch):.0f} epochs; the largest batch is {batch}"]
    room = f", and {memory / 1e9:.1f} GB on the graphics card" if memory else ""
    took = duration(seconds * steps)
    return [*lines, f"A step of it takes {seconds:.1f} s here, so the run takes {took} at most{room}"]


def duration(seconds: float) -> str:
    """ "a minute", "12 minutes", "2.5 hours"."""
    minutes = seconds / 60
    return f"{minutes / 60:.1f} hours" if minutes > 90 else f"{round(minutes)} minutes" if minutes > 1.5 else "a minute"
