"""One step of the largest batch on made-up latents: what a run takes of time and memory, before anything is encoded."""

import time
from typing import Any

import torch

from ..config import TrainConfig
from ..data.batches import Shape
from ..data.examples import Example
from ..objective import draw
from .learner import Learner, says_what_fits

MOST_TOKENS = 32  # of the made-up caption; long ones cost little beside the clip


def trial(
    learner: Learner, shapes: list[Shape], latents: list[tuple[int, int, int]], settings: TrainConfig
) -> tuple[float, int | None]:
    """(seconds of a step forward and back, bytes at most on the graphics card or None) of one batch.

    latents: frames, rows and columns of each clip of the batch. Nothing is learned: gradients are thrown away.
    Raises ValueError where it does not fit.
    """
    network: Any = learner.network
    batch = [
        draw(_example(network, shape, size), learner.objective, network.null_caption.float().cpu(), seed=0, epoch=0)
        for shape, size in zip(shapes, latents)
    ]
    on_card = next(network.parameters()).device.type == "cuda"
    if on_card:
        torch.cuda.reset_peak_memory_stats()
    started = time.monotonic()
    with says_what_fits(batch, settings):
        learner(batch).mean().backward()
    if on_card:
        torch.cuda.synchronize()
    network.zero_grad(set_to_none=True)
    return time.monotonic() - started, torch.cuda.max_memory_allocated() if on_card else None


def _example(network, shape, size):
    frames, rows, columns = size
    clean = torch.randn(network.in_channels, frames, rows, columns)
    length = min(MOST_TOKENS, network.max_caption_length)
    sizes = {"fps": 24.0, "height": float(shape.height), "width": float(shape.width), "num_frames": float(shape.frames)}
    none = torch.zeros(frames, dtype=torch.bool)
    return Example(
        "trial", clean, torch.zeros_like(clean), none, torch.randn(length, network.caption_channels),
        torch.ones(length, dtype=torch.long), sizes,
    )  # fmt: skip


def in_words(seconds: float, memory: int | None, steps: int, per_epoch: int, batch: str) -> list[str]:
    """What a trial says of a run of so many steps: lines for the pre-flight picture."""
    minutes = seconds * steps / 60
    took = f"{minutes / 60:.1f} hours" if minutes > 90 else f"{round(minutes)} minutes" if minutes > 1.5 else "a minute"
    lines = [f"{steps} steps, about {steps / max(1, per_epoch):.0f} epochs; the largest batch is {batch}"]
    room = f", and {memory / 1e9:.1f} GB on the graphics card" if memory else ""
    return [*lines, f"A step of it takes {seconds:.1f} s here, so the run takes {took} at most{room}"]
