"""What a step takes of time and memory, told from networks of the same width that are one and two blocks deep.

Every further block takes the same again. So nothing of a large network is moved or built, and what would not fit is
known without running out of memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from ..model.checkpoints.loading import CLASSES
from ..model.frames import Counting
from .config import TrainConfig
from .data.batches import Shape
from .live_bytes import LiveBytes
from .objective import Objective
from .setup import make_trainable
from .trainer.learner import learner_of
from .trainer.stopping import stoppable
from .trainer.trial import made_up, try_step

DEPTHS = 1, 2
QUICK = 1.0  # seconds: what takes longer is not timed twice


class Estimate(NamedTuple):
    """Seconds of a step, and the bytes that weights, gradients and all between them take at most."""

    seconds: float
    memory: int


def estimate(
    network: Any,
    objective: Objective,
    settings: TrainConfig,
    shapes: Sequence[Shape],
    counting: Counting,
    device: torch.device | str = "cpu",
    asked: Callable[[], bool] = lambda: False,
) -> Estimate:
    """Of a step on one batch of clips of these shapes.

    Args:
        network: only its family and configuration are looked at.
        asked: whether someone wants it to stop; then it raises `trainer.stopping.Stopped`.

    Raises ValueError where not even two blocks fit.
    """
    few, more = (_measured(network, depth, objective, settings, shapes, counting, device, asked) for depth in DEPTHS)
    further = (network.config.depth - DEPTHS[0]) / (DEPTHS[1] - DEPTHS[0])

    def of_all(one: float, two: float) -> float:
        return one + max(0.0, two - one) * further

    most = more.seconds * network.config.depth / DEPTHS[1]  # what is not of the blocks cannot take less than nothing
    return Estimate(min(most, of_all(few.seconds, more.seconds)), round(of_all(few.memory, more.memory)))


def _measured(network, depth, objective, settings, shapes, counting, device, asked):
    module = make_trainable(_of_depth(network, depth, device), settings)
    learner = learner_of(module.to(device), objective, settings)
    batch = made_up(learner, shapes, counting)
    with stoppable(module, asked):
        with LiveBytes() as counted:
            seconds = try_step(learner, batch, settings)
        if seconds < QUICK:  # the first one also warms up
            seconds = min(try_step(learner, batch, settings) for _ in range(2))
    averages = sum(p.numel() for p in module.parameters() if p.requires_grad) if settings.ema else 0
    weights = sum(value.nbytes for value in (*module.parameters(), *module.buffers()))
    return Estimate(seconds, counted.peak + weights + 4 * averages)


def _of_depth(network, depth, device) -> nn.Module:
    """A network of the same family and width, of random weights."""
    kind, _ = CLASSES[network.family]
    device = torch.device(device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []), device:
        module = kind(dataclasses.replace(network.config, depth=depth))
        for value in module.parameters():
            value.data.normal_(std=0.02)
    return module.requires_grad_(False)
