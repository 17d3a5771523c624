"""Which clips a VAE should see next: those of the kinds that it painted worst lately."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy
import torch

if TYPE_CHECKING:
    from .shapes import Scene


class Hardest:
    """Draws clips in proportion to the error with which scenes of their kind were painted lately.

    Kinds differ widely: purple on gray, of equal brightness, begins with five times the error of orange on white, and
    shapes are largest where they grow or shrink.
    """

    def __init__(self, memory: float = 0.9) -> None:
        self.errors: dict[str, float] = {}
        self.memory = memory

    @staticmethod
    def _kind(scene):
        sized = "sized" if scene.motion in ("grow", "shrink") else "moved"
        return f"{scene.color} {scene.shape} on {scene.background}, {sized}"

    def choose(self, scenes: Sequence[Scene], count: int, rng: numpy.random.Generator) -> numpy.ndarray:
        """`count` different indices into `scenes`. Kinds not met yet count as the worst ones do."""
        worst = max(self.errors.values(), default=1.0)
        weights = numpy.array([self.errors.get(self._kind(scene), worst) for scene in scenes])
        return rng.choice(len(scenes), count, replace=False, p=weights / weights.sum())

    def saw(self, scenes: Sequence[Scene], errors: torch.Tensor) -> None:
        """Remember the errors of these scenes."""
        for scene, error in zip(scenes, errors.tolist()):
            kind = self._kind(scene)
            self.errors[kind] = self.memory * self.errors.get(kind, error) + (1 - self.memory) * error
