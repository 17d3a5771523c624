"""Last phase of the tiny VAE: its decoders learn to paint what the transformer means.

What a small transformer samples lies a little off the latents of every clip, and a decoder that knows nothing but
encodings shows that as ragged outlines. Here it sees clips whose latents were noised half-way and sampled again, and
has to paint the clip. The encoders stay, so latents mean what they meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy
import torch

from ...model import flow
from ...model.transformers.stdit3 import STDiT3
from ...model.vaes.v1_2 import VideoVAE
from ..masks import frame_mask
from .batches import draw_mask, with_stills
from .captions import caption
from .hardest import Hardest
from .latents import Bucket
from .painting import NOISE, decibels, paint, painting_loss
from .recipe import FLOW, TEACHER_GUIDANCE
from .run import Run
from .shapes import render_all
from .t5 import TextEncoder

STEPS = 30  # of the whole schedule, as the nodes have it
START = (300.0, 850.0)  # the timestep to which a clip is noised: place and shape stay, outlines are drawn anew
SAMPLED = 0.7  # of the clips of a step are sampled again, the others encodings
PAINTED = 0.25  # of the steps have encodings of their clips as the VAE painted them: what was decoded is encoded again
BOTH_ENDS = 0.5  # of the sampled clips have their first and last frame pinned
CANDIDATES = 4  # clips for each that is sampled again: those of the kinds that are painted worst


@torch.no_grad()
def sample_again(
    transformer: STDiT3,
    text_encoder: TextEncoder,
    bucket: Bucket,
    rows: numpy.ndarray,
    start: float,
    rng: numpy.random.Generator,
) -> torch.Tensor:
    """Latents [B, 4, T, h, w] of these clips, noised to the first timestep below `start` and sampled from there.

    Frames are kept as in training, so that decoding also meets pinned frames between generated ones.
    """
    texts = [caption(bucket.scenes[row], rng) for row in rows]
    features, mask = text_encoder.captions(texts)
    size = bucket.height, bucket.width, bucket.num_frames
    timesteps = flow.timesteps(STEPS, *size, **FLOW)
    timesteps = timesteps[timesteps <= start]
    ones = torch.ones(len(rows))
    T = bucket.latents.shape[2]
    masks = [
        frame_mask("image_head_tail", T, rng)  # type: ignore[arg-type]
        if rng.random() < BOTH_ENDS
        else draw_mask(T, rng)
        for _ in rows
    ]
    generated = torch.stack(masks)
    clean = with_stills(bucket, rows, generated, rng)
    noisy = flow.add_noise(clean, torch.randn_like(clean), ones * timesteps[0])
    return flow.sample(
        transformer,
        torch.where(generated[:, None, :, None, None], noisy, clean),
        features,
        transformer.null_caption[: features.shape[1]],
        caption_mask=mask,
        timesteps=timesteps,
        guidance=TEACHER_GUIDANCE,
        frame_mask=generated.float(),
        fps=24.0 * ones,
        height=bucket.height * ones,
        width=bucket.width * ones,
    )


def draw_rows(buckets: Sequence[Bucket], count: int, rng: numpy.random.Generator) -> tuple[Bucket, numpy.ndarray]:
    """A bucket of moving clips, and `count` of its rows."""
    moving = [bucket for bucket in buckets if bucket.num_frames == 17]
    shares = numpy.array([len(bucket.scenes) for bucket in moving], float)
    bucket = moving[rng.choice(len(moving), p=shares / shares.sum())]
    return bucket, rng.integers(len(bucket.scenes), size=count)


@torch.no_grad()
def look_around(
    vae: VideoVAE, buckets: Sequence[Bucket], rng: numpy.random.Generator, count: int = 320, batch: int = 8
) -> Hardest:
    """A Hardest that has seen how `vae` paints so many encodings."""
    hardest = Hardest()
    for _ in range(count // batch):
        bucket, rows = draw_rows(buckets, batch, rng)
        scenes = [bucket.scenes[row] for row in rows]
        hardest.saw(scenes, painting_loss(vae, bucket.latents[rows], render_all(scenes))[1])
    return hardest


def make_pairs(
    transformer: STDiT3,
    text_encoder: TextEncoder,
    buckets: Sequence[Bucket],
    count: int,
    hardest: Hardest,
    rng: numpy.random.Generator,
    batch: int = 24,
) -> list[tuple[Bucket, numpy.ndarray, torch.Tensor]]:
    """A list of (bucket, rows, latents): `count` clips, mostly of the hardest kinds, sampled again."""
    pairs = []
    for _ in range(count // batch):
        bucket, rows = draw_rows(buckets, CANDIDATES * batch, rng)
        rows = rows[hardest.choose([bucket.scenes[row] for row in rows], batch, rng)]
        pairs.append((bucket, rows, sample_again(transformer, text_encoder, bucket, rows, rng.uniform(*START), rng)))
    return pairs


def polish(
    folder: Path,
    vae: VideoVAE,
    transformer: STDiT3,
    buckets: Sequence[Bucket],
    text_encoder: TextEncoder,
    steps: int = 1200,
    batch: int = 4,
    count: int = 1440,
    seed: int = 0,
) -> VideoVAE:
    """The VAE with its two decoders trained on; the rest of it unchanged, averaged weights."""
    torch.manual_seed(seed)
    rng = numpy.random.default_rng((seed, 5))
    hardest = look_around(vae, buckets, rng)
    pairs = make_pairs(transformer.eval(), text_encoder, buckets, count, hardest, rng)
    vae.requires_grad_(False)
    for part in (vae.temporal_vae.decoder, vae.temporal_vae.post_quant_conv, vae.spatial_vae["module"].decoder):
        part.requires_grad_(True)
    run = Run(folder, vae, steps=steps, learning_rate=5e-4, matrix_rate=0.002)
    for step in run:
        rng = numpy.random.default_rng((seed, 6, step))
        bucket, rows, sampled = pairs[rng.integers(len(pairs))]
        chosen = hardest.choose([bucket.scenes[row] for row in rows], batch, rng)
        scenes = [bucket.scenes[row] for row in rows[chosen]]
        encoded = bucket.latents[rows[chosen]]
        if rng.random() < PAINTED:
            with torch.no_grad():
                encoded = vae.encode(paint(vae, encoded, bucket.num_frames, rng))
        encoded = encoded + NOISE * torch.randn_like(encoded)
        again = torch.from_numpy(rng.random(batch) < SAMPLED).view(-1, 1, 1, 1, 1)
        loss, errors = painting_loss(vae, torch.where(again, sampled[chosen], encoded), render_all(scenes))
        hardest.saw(scenes, errors)
        run.update(loss, psnr=decibels(errors).mean())
    return run.settle().eval().requires_grad_(False)
