"""The two stages of the tiny STDiT3: it learns by rectified flow; its best guidance is moved to the nodes' default.

Guidance u + s (c - u) amplifies what the two branches get wrong, so a small model is best at a small scale s. The
student keeps the teacher's unconditional velocity u and learns u + (s / S) (c - u) as its conditional one: at the
larger scale S it then gives what the teacher gives at s. The targets carry no noise, so this takes minutes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...model.transformers.layers import matmul_attention
from ...model.transformers.stdit3 import STDiT3
from ..checkpoints import Log
from ..losses import noised
from ..objective import Drawn, Objective, fixed, loss, stacked
from ..start import initialise
from ..trainer.processes import Processes
from ..trainer.trainer import Trainer
from .examples import Rendered, TinyObjective
from .recipe import GUIDANCE, TEACHER_GUIDANCE, TRANSFORMER
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
        tell(Log(folder).add(step=step, motion_gate_loss=round(right, 4), opposite_word_adds=round(added, 4)))

    how = settings(steps, 1.4e-3, muon_rate=0.014, ema=0.9985, weight_decay=0.01)
    return _learn(folder, transformer, clips, how, validation=held_out, processes=processes, sample=gate)


def calibration_loss(
    student: nn.Module,
    teacher: nn.Module,
    null_caption: Tensor,
    clean: Tensor,
    noise: Tensor,
    t: Tensor,
    frame_mask: Tensor,
    caption: Tensor,
    **conditions: Tensor,
) -> Tensor:
    """Mean squared error of the guided velocity at GUIDANCE, plus that of the unconditional one, per sample [B]."""
    noisy = noised(clean, t, noise, frame_mask)
    null = null_caption[: caption.shape[1]].expand_as(caption)
    both = {name: torch.cat([value, value]) for name, value in conditions.items()}
    batch = torch.cat([noisy, noisy]), torch.cat([t, t]), torch.cat([caption, null])
    both["frame_mask"] = torch.cat([frame_mask, frame_mask])

    def guided(transformer: nn.Module, scale: float) -> tuple[Tensor, Tensor]:
        c, u = transformer(*batch, **both)[:, : clean.shape[1]].chunk(2)
        return u + scale * (c - u), u

    with torch.no_grad():
        wanted, wanted_u = guided(teacher, TEACHER_GUIDANCE)
    found, u = guided(student, GUIDANCE)
    error = ((found - wanted).square() + (u - wanted_u).square()).mean((1, 3, 4))
    return (error * frame_mask).sum(1) / frame_mask.sum(1)


def calibrate(
    folder: Path, teacher: STDiT3, clips: Rendered, steps: int = 800, processes: Processes | None = None
) -> STDiT3:
    """The transformer whose result at GUIDANCE is the teacher's at TEACHER_GUIDANCE, with averaged weights."""
    student = copy.deepcopy(teacher).train().requires_grad_(True)
    teacher = teacher.eval().requires_grad_(False)

    def to_teacher(network: nn.Module, batch: Sequence[Drawn], objective: Objective) -> Tensor:
        return calibration_loss(network, teacher, teacher.null_caption, **stacked(network, batch))

    how = settings(steps, 5e-4, muon_rate=0.004, ema=0.98, seed=1)
    return _learn(folder, student, clips, how, loss=to_teacher, processes=processes)


def _learn(folder, network, clips, how, **options):
    return finish(Trainer(network, clips, TinyObjective(), how, saving(folder), on_step=tell, **options))
