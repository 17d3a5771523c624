"""Trains the tiny STDiT3 by rectified flow: caption dropout, frame masks, timesteps shifted toward noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from ...model.transformers.layers import matmul_attention
from ...model.transformers.stdit3 import STDiT3
from ..losses import rectified_flow
from ..start import initialise
from .batches import BatchSampler
from .captions import caption
from .latents import Bucket
from .recipe import TRANSFORMER
from .run import Run, rank
from .t5 import TextEncoder

OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up", "grow": "shrink", "shrink": "grow"}
SIZE_PHRASES = {"grow": "grows", "shrink": "shrinks"}  # the others are moves


def begin(transformer: STDiT3) -> STDiT3:
    """The original's first weights; the prediction, too, begins at zero here."""
    network: Any = transformer
    initialise(transformer, "1.2")
    torch.nn.init.normal_(network.fps_embedder.mlp[0].weight, std=0.02)
    torch.nn.init.zeros_(network.final_layer.linear.weight)
    return transformer


def loss_of(
    transformer: STDiT3, clean: Tensor, noise: Tensor, t: Tensor, frame_mask: Tensor, **conditions: Tensor
) -> Tensor:
    """The loss [B] of these latents, whose kept frames the network is told of."""

    def predict(noisy: Tensor, t: Tensor) -> Tensor:
        return transformer(noisy, t, frame_mask=frame_mask, **conditions)

    return rectified_flow(predict, clean, t, noise, frame_mask=frame_mask)


def _loss_at(transformer, sampler, bucket, rows, texts, t):
    """Mean loss at timestep t of these clips with these captions, every frame generated, always the same noise."""
    clean = bucket.latents[rows]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    features, mask = sampler.text_encoder.captions(texts)
    B, _, T = clean.shape[:3]
    loss = loss_of(
        transformer, clean, noise, torch.full((B,), t), torch.ones(B, T, dtype=torch.bool),
        caption=features, caption_mask=mask, fps=torch.full((B,), 24.0),
        height=torch.full((B,), float(bucket.height)), width=torch.full((B,), float(bucket.width)),
    )  # fmt: skip
    return loss.mean().item()


@torch.no_grad()
def motion_gate(transformer: STDiT3, sampler: BatchSampler, count: int = 48, t: float = 900.0) -> tuple[float, float]:
    """How much higher the loss at t is with the opposite motion word: the sign that words steer motion.

    Returns the loss with the right word, and what the opposite word adds to it.
    """
    bucket = next(b for b in sampler.buckets if b.num_frames == 17)
    scenes = [(row, s) for row, s in enumerate(bucket.scenes) if s.motion in OPPOSITE][:count]
    losses = []
    for motions in ([s.motion for _, s in scenes], [OPPOSITE[s.motion] for _, s in scenes]):
        texts = [
            f"a {s.color} {s.shape} on a {s.background} background {SIZE_PHRASES.get(motion, f'moves {motion}')}"
            for (_, s), motion in zip(scenes, motions)
        ]
        losses.append(_loss_at(transformer, sampler, bucket, [row for row, _ in scenes], texts, t))
    return losses[0], losses[1] - losses[0]


@torch.no_grad()
def losses_at(
    transformer: STDiT3, sampler: BatchSampler, times: Sequence[float] = (200.0, 500.0, 700.0, 900.0), count: int = 48
) -> list[float]:
    """The loss at each of `times`: outlines are drawn at 500 and below, colour and motion are decided above."""
    bucket = next(b for b in sampler.buckets if b.num_frames == 17)
    texts = [caption(scene, numpy.random.default_rng(0)) for scene in bucket.scenes[:count]]
    return [_loss_at(transformer, sampler, bucket, list(range(len(texts))), texts, t) for t in times]


def train_transformer(
    folder: Path,
    buckets: Sequence[Bucket],
    text_encoder: TextEncoder,
    steps: int = 6000,
    batch: int = 24,
    seed: int = 0,
    start: dict[str, Tensor] | None = None,
) -> STDiT3:
    """Train (or go on training) and return the module with its averaged weights; `start`: weights to begin with."""
    torch.manual_seed(seed)  # the same weights in every process
    transformer = begin(STDiT3(TRANSFORMER, attention=matmul_attention))
    if start is not None:
        transformer.load_state_dict({key: value.float() for key, value in start.items()})
    rates: dict[str, Any] = {"learning_rate": 1.4e-3, "matrix_rate": 0.014}
    run = Run(folder, transformer, steps=steps, ema=0.9985, weight_decay=0.01, save_every=250, **rates)
    sampler = BatchSampler(buckets, text_encoder, transformer.null_caption)
    torch.manual_seed(1_000_003 * seed + 1_009 * run.step + rank())  # but noise of its own for each
    for step in run:
        rng = numpy.random.default_rng((seed, step, rank()))
        run.update(loss_of(transformer, **sampler.draw(rng, batch)).mean())
        if rank() == 0 and (step + 1) % 250 == 0:
            right, gap = motion_gate(transformer, sampler)
            at = [round(loss, 4) for loss in losses_at(transformer, sampler)]
            run.note(step=step + 1, motion_gate_loss=round(right, 4), opposite_word_adds=round(gap, 4), losses=at)
    return run.settle().eval().requires_grad_(False)
