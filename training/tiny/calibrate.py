"""Second phase of the tiny transformer: its best guidance, moved to the scale that the nodes use by default.

Guidance u + s (c - u) amplifies what the two branches get wrong, so a small model is best at a small scale s. The
student keeps the teacher's unconditional velocity u and learns u + (s / S) (c - u) as its conditional one: at the
larger scale S it then gives what the teacher gives at s. The targets carry no noise, so this takes minutes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ...model.transformers.stdit3 import STDiT3
from ..losses import noised
from ..objective import Drawn, Objective, stacked
from ..trainer.processes import Processes
from ..trainer.trainer import Trainer
from .examples import Rendered, TinyObjective
from .recipe import GUIDANCE, TEACHER_GUIDANCE
from .run import finish, saving, settings, tell


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

    def loss(network: nn.Module, batch: Sequence[Drawn], objective: Objective) -> Tensor:
        return calibration_loss(network, teacher, teacher.null_caption, **stacked(network, batch))

    how = settings(steps, 5e-4, muon_rate=0.004, ema=0.98, seed=1)
    trainer = Trainer(
        student, clips, TinyObjective(), how, saving(folder), loss=loss, processes=processes, on_step=tell
    )
    return finish(trainer)
