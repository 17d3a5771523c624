"""Training batches of the tiny transformer: clips with captions, frame masks, timesteps and noise."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy
import torch
from torch import Tensor

from ...model import flow
from ...model.frames import CHUNKS, IMAGE_FPS
from .. import masks
from ..timesteps import stratified
from .captions import caption, partial_caption
from .recipe import FLOW, LONG_RATIOS, RATIOS
from .t5 import TextEncoder

if TYPE_CHECKING:
    from .latents import Bucket

EVEN = 0.25  # of the samples draw t evenly instead: outlines are finished below t = 0.5, which the shift makes rare
CAPTION_DROPOUT = 0.1
PARTIAL_CAPTIONS = 0.06
STILLS = 0.7  # of one or two kept frames are replaced by a lone image's encoding, where there is one
FPS = (8.0, 12.0, 16.0, 24.0, 30.0)
# How often each bucket (height, width, frames) is drawn, relative to the others' 0.012: mostly the default size.
SHARES = {(64, 64, 17): 0.68, (64, 64, 34): 0.13, (64, 64, 51): 0.05, (64, 64, 1): 0.04}
# Colours on backgrounds that are drawn more often than the others: they are equally bright, so the decoders show every
# error of a latent as a ragged outline, and the loss does not know it.
EMPHASIS = {("purple", "gray"): 4.0}


def draw_mask(num_latents: int, rng: numpy.random.Generator) -> Tensor:
    """Bool [T] of a strategy of the recipe."""
    ratios = LONG_RATIOS if num_latents > CHUNKS.chunk_latents else RATIOS
    return masks.draw(ratios, num_latents, 1, version=None, rng=random.Random(int(rng.integers(2**63))))[0]


def with_stills(
    bucket: Bucket, rows: Sequence[int] | numpy.ndarray | Tensor, frame_mask: Tensor, rng: numpy.random.Generator
) -> Tensor:
    """Latents [B, 4, T, h, w] of these clips; kept frames (False in frame_mask [B, T]) are partly lone images'."""
    lone = (~frame_mask).sum(1, keepdim=True) <= 2
    use_still = ~frame_mask & lone & bucket.has_still[rows] & torch.from_numpy(rng.random(frame_mask.shape) < STILLS)
    return torch.where(use_still[:, None, :, None, None], bucket.stills[rows], bucket.latents[rows])


class BatchSampler:
    """Draws training batches: a bucket, clips of it, captions, masks, timesteps and noise."""

    def __init__(self, buckets: Sequence[Bucket], text_encoder: TextEncoder, null_caption: Tensor) -> None:
        self.buckets, self.text_encoder, self.null_caption = buckets, text_encoder, null_caption
        shares = numpy.array([SHARES.get((b.height, b.width, b.num_frames), 0.012) for b in buckets])
        self.shares = shares / shares.sum()
        emphasis = [[EMPHASIS.get((s.color, s.background), 1.0) for s in b.scenes] for b in buckets]
        self.row_shares = [numpy.array(factors) / sum(factors) for factors in emphasis]

    def draw(self, rng: numpy.random.Generator, batch: int) -> dict[str, Tensor]:
        index = rng.choice(len(self.buckets), p=self.shares)
        bucket = self.buckets[index]
        # About equal cost a step: images are cheap, long clips dear.
        batch = 2 * batch if bucket.num_frames == 1 else max(batch * 17 // bucket.num_frames, 1)
        rows = torch.from_numpy(rng.choice(len(bucket.scenes), size=batch, p=self.row_shares[index]))
        B, T = len(rows), bucket.latents.shape[2]

        texts = []
        for row in rows.tolist():
            scene = bucket.scenes[row]
            partial = rng.random() < PARTIAL_CAPTIONS
            texts.append(partial_caption(scene, rng)[0] if partial else caption(scene, rng))
        features, mask = self.text_encoder.captions(texts)
        dropped = torch.from_numpy(rng.random(B) < CAPTION_DROPOUT)
        features = torch.where(dropped[:, None, None], self.null_caption[: features.shape[1]], features)

        frame_mask = torch.stack([draw_mask(T, rng) for _ in range(B)])
        clean = with_stills(bucket, rows, frame_mask, rng)

        t = stratified(B, flow.shift_ratio(bucket.height, bucket.width, bucket.num_frames, **FLOW), EVEN)
        fps = torch.from_numpy(rng.choice(FPS, size=B)).float() if T > 1 else torch.full((B,), IMAGE_FPS)
        return {
            "clean": clean,
            "noise": torch.randn_like(clean),
            "t": t,
            "frame_mask": frame_mask,
            "caption": features,
            "caption_mask": mask,
            "fps": fps,
            "height": torch.full((B,), float(bucket.height)),
            "width": torch.full((B,), float(bucket.width)),
        }
