"""Second phase of the tiny transformer: its best guidance, moved to the scale that the nodes use by default.

Guidance u + s (c - u) amplifies what the two branches get wrong, so a small model is best at a small scale s. The
student keeps the teacher's unconditional velocity u and learns u + (s / S) (c - u) as its conditional one: at the
larger scale S it then gives what the teacher gives at s. The targets carry no noise, so this takes minutes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy
import torch

from ...model import flow
from ...model.transformers.stdit3 import STDiT3
from .batches import BatchSampler
from .latents import Bucket
from .recipe import GUIDANCE, TEACHER_GUIDANCE
from .run import Run, rank
from .t5 import TextEncoder


def calibration_loss(
    student: STDiT3,
    teacher: STDiT3,
    null_caption: torch.Tensor,
    clean: torch.Tensor,
    noise: torch.Tensor,
    t: torch.Tensor,
    frame_mask: torch.Tensor,
    caption: torch.Tensor,
    **conditions: torch.Tensor,
) -> torch.Tensor:
    """Mean squared error of the guided velocity at GUIDANCE, plus that of the unconditional one, per sample [B]."""
    generated = frame_mask[:, None, :, None, None]
    noisy = torch.where(generated, flow.add_noise(clean, noise, t), clean)
    null = null_caption[: caption.shape[1]].expand_as(caption)
    both = {name: torch.cat([value, value]) for name, value in conditions.items()}
    batch = torch.cat([noisy, noisy]), torch.cat([t, t]), torch.cat([caption, null])
    both["frame_mask"] = torch.cat([frame_mask, frame_mask])

    def guided(transformer: STDiT3, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        c, u = transformer(*batch, **both)[:, : clean.shape[1]].chunk(2)
        return u + scale * (c - u), u

    with torch.no_grad():
        wanted, wanted_u = guided(teacher, TEACHER_GUIDANCE)
    found, u = guided(student, GUIDANCE)
    error = ((found - wanted).square() + (u - wanted_u).square()).mean((1, 3, 4))
    return (error * frame_mask).sum(1) / frame_mask.sum(1)


def calibrate(
    folder: Path,
    teacher: STDiT3,
    buckets: Sequence[Bucket],
    text_encoder: TextEncoder,
    steps: int = 800,
    batch: int = 12,
    seed: int = 1,
) -> STDiT3:
    """The transformer whose result at GUIDANCE is the teacher's at TEACHER_GUIDANCE, with averaged weights."""
    student = copy.deepcopy(teacher).train().requires_grad_(True)
    teacher = teacher.eval().requires_grad_(False)
    torch.manual_seed(seed)
    run = Run(folder, student, steps=steps, ema=0.98, learning_rate=5e-4, matrix_rate=0.004, save_every=100)
    sampler = BatchSampler(buckets, text_encoder, teacher.null_caption)
    torch.manual_seed(1_000_003 * seed + 1_009 * run.step + rank())
    for step in run:
        draw = sampler.draw(numpy.random.default_rng((seed, step, rank())), batch)
        run.update(calibration_loss(student, teacher, teacher.null_caption, **draw).mean())
    return run.settle().eval().requires_grad_(False)
