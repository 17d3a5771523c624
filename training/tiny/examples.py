"""The clips of the transformer's training as the trainer reads them, and what is drawn for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor

from ...model.frames import CHUNKS, IMAGE_FPS
from ..data.cache import EncodesText
from ..data.examples import Example
from ..objective import Objective
from .captions import caption, partial_caption
from .recipe import FLOW, LONG_RATIOS, RATIOS

if TYPE_CHECKING:
    from .latents import Bucket
    from .shapes import Scene

EVEN = 0.25  # of the samples draw t evenly instead: outlines are finished below t = 0.5, which the shift makes rare
PARTIAL_CAPTIONS = 0.06
FPS = (8.0, 12.0, 16.0, 24.0, 30.0)
# How often each bucket (height, width, frames) is drawn, relative to the others' 0.012: mostly the default size.
SHARES = {(64, 64, 17): 0.68, (64, 64, 34): 0.13, (64, 64, 51): 0.05, (64, 64, 1): 0.04}
# Colours on backgrounds that are drawn more often than the others: they are equally bright, so the decoders show every
# error of a latent as a ragged outline, and the loss does not know it.
EMPHASIS = {("purple", "gray"): 4.0}


@dataclass(frozen=True)
class TinyObjective(Objective):
    """What is drawn for a clip; those of several chunks of the VAE have ratios of their own."""

    ratios: Mapping[str, float] = field(default_factory=lambda: RATIOS)
    stills: float = 0.7
    method: str = "uniform"
    transform: float = 1 - EVEN
    flow: Mapping[str, float] = field(default_factory=lambda: FLOW)
    stratified: bool = True

    def ratios_of(self, num_latents: int) -> Mapping[str, float]:
        """As long as a chunk: RATIOS; longer: LONG_RATIOS."""
        return LONG_RATIOS if num_latents > CHUNKS.chunk_latents else self.ratios


class Rendered:
    """Encoded scenes by number, bucket after bucket, with captions that are drawn anew whenever they are read.

    An epoch is a step: of one bucket, drawn by its share, so many clips as cost about as much as those of any other.

    Args:
        batch: clips of 17 frames in a step.
        partial: how often a caption leaves something out.
    """

    def __init__(
        self,
        buckets: Sequence[Bucket],
        text_encoder: EncodesText,
        batch: int = 24,
        seed: int = 0,
        partial: float = PARTIAL_CAPTIONS,
    ) -> None:
        self.buckets, self.text_encoder, self.batch = buckets, text_encoder, batch
        self.seed, self.partial = seed, partial
        self.places = [(bucket, row) for bucket in buckets for row in range(len(bucket.scenes))]
        self.first = numpy.cumsum([0, *(len(bucket.scenes) for bucket in buckets)])
        shares = numpy.array([SHARES.get((b.height, b.width, b.num_frames), 0.012) for b in buckets])
        self.shares = shares / shares.sum()
        emphasis = [[EMPHASIS.get((s.color, s.background), 1.0) for s in b.scenes] for b in buckets]
        self.row_shares = [numpy.array(factors) / sum(factors) for factors in emphasis]

    def __len__(self) -> int:
        return len(self.places)

    def scene(self, index: int) -> Scene:
        """What a clip shows."""
        bucket, row = self.places[index]
        return bucket.scenes[row]

    def latents(self, indices: Sequence[int]) -> Tensor:
        """Latents [B, C, T, h, w] of clips of one size and length."""
        return torch.stack([bucket.latents[row] for bucket, row in map(self.places.__getitem__, indices)])

    def name(self, index: int) -> str:
        """Size and length of a clip, and its row among those."""
        bucket, row = self.places[index]
        return f"{bucket.num_frames}x{bucket.height}x{bucket.width}:{row}"

    def steps(self, number: int, ranks: int = 1, accumulate: int = 1, **options: Any) -> list[list[list[list[int]]]]:
        """The one step of epoch `number`; every process takes a batch."""
        rng = numpy.random.default_rng((self.seed, number))
        return [[self._batch(rng, ranks) for _ in range(accumulate)]]

    def _batch(self, rng, ranks):
        place = rng.choice(len(self.buckets), p=self.shares)
        shares = self.row_shares[place]
        count = min(ranks * self._room(self.buckets[place]), len(shares))
        # Shuffled: those that are chosen first are those of a larger share, and a place in a batch is a range of t.
        rows = self.first[place] + rng.permutation(rng.choice(len(shares), count, replace=False, p=shares))
        return [rows[rank::ranks].tolist() for rank in range(ranks)]

    def _room(self, bucket):
        """Clips of a step: images are cheap, long clips dear."""
        return 2 * self.batch if bucket.num_frames == 1 else max(self.batch * 17 // bucket.num_frames, 1)

    def read(self, index: int, number: int) -> Example:
        """A clip with a caption and a frame rate of epoch `number`."""
        rng, scene = numpy.random.default_rng((self.seed, number, index)), self.scene(index)
        text = partial_caption(scene, rng)[0] if rng.random() < self.partial else caption(scene, rng)
        return self.told(index, text, float(rng.choice(FPS)))

    def middle(self, index: int) -> Example:
        """A clip with a caption that is always the same."""
        return self.told(index, caption(self.scene(index), numpy.random.default_rng(index)))

    def told(self, index: int, text: str, fps: float = 24.0) -> Example:
        """A clip with this caption."""
        (bucket, row), (features, mask) = self.places[index], self.text_encoder(text)
        fps = fps if bucket.num_frames > 1 else IMAGE_FPS
        sizes = {"fps": fps, "height": float(bucket.height), "width": float(bucket.width)}
        return Example(
            self.name(index), bucket.latents[row], bucket.stills[row], bucket.has_still[row], features, mask,
            sizes | {"num_frames": float(bucket.num_frames)},
        )  # fmt: skip

    def read_largest(self, budget: int = 0) -> list[Example]:
        """A batch of the bucket that has most latents at once."""
        place = max(range(len(self.buckets)), key=lambda at: self._room(self.buckets[at]) * self._size(at))
        count = min(self._room(self.buckets[place]), len(self.row_shares[place]))
        return [self.middle(int(self.first[place]) + row) for row in range(count)]

    def _size(self, place):
        return self.buckets[place].latents[0].numel()
