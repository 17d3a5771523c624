"""Trains the tiny STDiT3 by rectified flow: caption dropout, frame masks, timesteps shifted toward noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...model.transformers.layers import matmul_attention
from ...model.transformers.stdit3 import STDiT3
from ..objective import Objective, fixed, loss
from ..start import initialise
from ..trainer.processes import Processes
from ..trainer.trainer import Trainer
from .examples import Rendered, TinyObjective
from .recipe import TRANSFORMER
from .run import finish, saving, settings, tell

OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up", "grow": "shrink", "shrink": "grow"}
SIZE_PHRASES = {"grow": "grows", "shrink": "shrinks"}  # the others are moves


def begin(transformer: STDiT3) -> STDiT3:
    """The original's first weights; the prediction, too, begins at zero here."""
    network: Any = transformer
    initialise(transformer, "1.2")
    torch.nn.init.normal_(network.fps_embedder.mlp[0].weight, std=0.02)
    torch.nn.init.zeros_(network.final_layer.linear.weight)
    return transformer


@torch.no_grad()
def motion_gate(transformer: nn.Module, clips: Rendered, count: int = 48, t: float = 900.0) -> tuple[float, float]:
    """How much higher the loss at t is with the opposite motion word: the sign that words steer motion.

    Returns the loss with the right word, and what the opposite word adds to it.
    """
    losses = []
    for word in ({name: name for name in OPPOSITE}, OPPOSITE):
        told: list[Tensor] = []
        for index in range(len(clips)):
            scene = clips.scene(index)
            if scene.num_frames == 17 and scene.motion in word and len(told) < count:
                motion = word[scene.motion]
                does = SIZE_PHRASES.get(motion, f"moves {motion}")
                text = f"a {scene.color} {scene.shape} on a {scene.background} background {does}"
                told.append(loss(transformer, [fixed(clips.told(index, text), t)], Objective()))
        losses.append(torch.cat(told).mean().item())
    return losses[0], losses[1] - losses[0]


def train_transformer(
    folder: Path,
    clips: Rendered,
    held_out: Rendered,
    steps: int = 6000,
    start: dict[str, Tensor] | None = None,
    processes: Processes | None = None,
) -> STDiT3:
    """Train (or go on training) and return the module with the weights that are best on clips that are held out.

    `start`: weights to begin with.
    """
    torch.manual_seed(clips.seed)  # the same weights in every process
    transformer = begin(STDiT3(TRANSFORMER, attention=matmul_attention))
    if start is not None:
        transformer.load_state_dict({key: value.float() for key, value in start.items()})

    def gate(network: nn.Module, step: int) -> None:
        right, added = motion_gate(network, clips)
        tell(trainer.log.add(step=step, motion_gate_loss=round(right, 4), opposite_word_adds=round(added, 4)))

    rates: dict[str, Any] = {"muon_rate": 0.014, "ema": 0.9985, "weight_decay": 0.01}
    trainer = Trainer(
        transformer, clips, TinyObjective(), settings(steps, 1.4e-3, **rates), saving(folder), validation=held_out,
        processes=processes, sample=gate, on_step=tell,
    )  # fmt: skip
    return finish(trainer)
