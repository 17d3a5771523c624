"""Validation: the loss of files that are not trained on, at the original's ten timesteps, by noise band."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ..data.examples import Examples
from ..objective import BANDS, VALIDATION_TIMESTEPS, fixed
from .learner import Learner


@torch.no_grad()
def judged(learner: Learner, validation: Examples) -> dict[str, float]:
    """{"validation": mean loss of all clips, "low", "middle", "high": those of BANDS}."""
    by_time = [_loss_at(learner, validation, float(t)) for t in VALIDATION_TIMESTEPS]
    bands = {
        name: mean([value for t, value in zip(VALIDATION_TIMESTEPS, by_time) if low <= t < high])
        for name, (low, high) in BANDS.items()
    }
    return {"validation": mean(by_time), **bands}


def _loss_at(learner, validation, t):
    t = t if learner.objective.is_flow else float(round(t))
    return mean([learner([fixed(validation.middle(index), t)]).item() for index in range(len(validation))])


def mean(values: Sequence[float]) -> float:
    """Of numbers; NaN where there are none."""
    return sum(values) / len(values) if values else math.nan
