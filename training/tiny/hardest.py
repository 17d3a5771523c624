"""Which clips a VAE should see next: those of the kinds that it painted worst lately."""

import numpy


class Hardest:
    """Draws clips in proportion to the error with which scenes of their kind were painted lately.

    Kinds differ widely: purple on gray, of equal brightness, begins with five times the error of orange on white, and
    shapes are largest where they grow or shrink.
    """

    def __init__(self, memory=0.9):
        self.errors, self.memory = {}, memory

    @staticmethod
    def _kind(scene):
        return scene.color, scene.background, scene.shape, scene.motion in ("grow", "shrink")

    def choose(self, scenes, count, rng):
        """`count` different indices into `scenes`. Kinds not met yet count as the worst ones do."""
        worst = max(self.errors.values(), default=1.0)
        weights = numpy.array([self.errors.get(self._kind(scene), worst) for scene in scenes])
        return rng.choice(len(scenes), count, replace=False, p=weights / weights.sum())

    def saw(self, scenes, errors):
        """Remember the errors of these scenes."""
        for scene, error in zip(scenes, errors.tolist()):
            kind = self._kind(scene)
            self.errors[kind] = self.memory * self.errors.get(kind, error) + (1 - self.memory) * error
