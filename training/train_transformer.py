"""Trains the tiny STDiT3 by rectified flow: caption dropout, frame masks, timesteps shifted toward noise."""

import numpy
import torch

from ..model import flow
from ..model.frames import IMAGE_FPS
from ..model.layers import matmul_attention
from ..model.stdit3 import STDiT3, STDiT3Config
from .captions import caption, partial_caption
from .loop import Run, rank
from .masks import draw_frame_mask
from .text_encoder import encode

TINY = STDiT3Config(depth=4, hidden_size=160, num_heads=4, caption_channels=64, model_max_length=120)
# What the shift is relative to. At 64×64 it gives 4.5 for 17 frames: half of all steps are spent above t = 0.8, where
# the direction of a motion is decided; below, it shows in the noised latents anyway.
FLOW = {"base_resolution": 32 * 32, "base_num_frames": 1, "scale": 1.0}
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
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up", "grow": "shrink", "shrink": "grow"}


def initialise(transformer):
    """The original's initialisation: Xavier for Linear layers, temporal and size branches start at zero."""
    for _, module in transformer.named_modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.xavier_uniform_(module.weight)
            torch.nn.init.zeros_(module.bias)
    for name, parameter in transformer.named_parameters():
        if name.endswith("scale_shift_table"):
            torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    torch.nn.init.normal_(transformer.fps_embedder.mlp[0].weight, std=0.02)
    torch.nn.init.zeros_(transformer.fps_embedder.mlp[2].weight)
    for block in transformer.temporal_blocks:
        for layer in (block.attn.proj, block.cross_attn.proj, block.mlp.fc2):
            torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(transformer.final_layer.linear.weight)
    return transformer


def with_stills(bucket, rows, frame_mask, rng):
    """Latents [B, 4, T, h, w] of these clips; kept frames (False in frame_mask [B, T]) are partly lone images' encodings."""
    lone = (~frame_mask).sum(1, keepdim=True) <= 2
    use_still = ~frame_mask & lone & bucket.has_still[rows] & torch.from_numpy(rng.random(frame_mask.shape) < STILLS)
    return torch.where(use_still[:, None, :, None, None], bucket.stills[rows], bucket.latents[rows])


class Sampler:
    """Draws training batches: a bucket, clips of it, captions, masks, timesteps and noise."""

    def __init__(self, buckets, text_encoder, tokenizer, null_caption):
        self.buckets, self.text_encoder, self.tokenizer = buckets, text_encoder, tokenizer
        self.null_caption = null_caption
        shares = numpy.array([SHARES.get((b.height, b.width, b.num_frames), 0.012) for b in buckets])
        self.shares = shares / shares.sum()
        emphasis = [[EMPHASIS.get((s.color, s.background), 1.0) for s in b.scenes] for b in buckets]
        self.row_shares = [numpy.array(factors) / sum(factors) for factors in emphasis]

    def captions(self, texts):
        """Features and mask of captions, cut to the longest of them."""
        features, mask = encode(self.text_encoder, self.tokenizer, texts)
        length = int(mask.sum(1).max())
        return features[:, :length], mask[:, :length]

    def draw(self, rng, batch):
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
        features, mask = self.captions(texts)
        dropped = torch.from_numpy(rng.random(B) < CAPTION_DROPOUT)
        features = torch.where(dropped[:, None, None], self.null_caption[: features.shape[1]], features)

        frame_mask = torch.stack([draw_frame_mask(T, rng) for _ in range(B)])
        clean = with_stills(bucket, rows, frame_mask, rng)

        # Stratified over the batch: every step sees the whole range.
        uniform = (torch.randperm(B) + torch.rand(B)) / B * flow.NUM_TIMESTEPS
        ratio = flow.shift_ratio(bucket.height, bucket.width, bucket.num_frames, **FLOW)
        t = torch.where(torch.rand(B) < EVEN, uniform, flow.shift_timesteps(uniform, ratio))
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


def flow_loss(transformer, clean, noise, t, frame_mask, **conditions):
    """Mean squared error of the velocity over the generated frames, per sample [B]."""
    generated = frame_mask[:, None, :, None, None]
    noisy = torch.where(generated, flow.add_noise(clean, noise, t), clean)
    velocity = transformer(noisy, t, frame_mask=frame_mask, **conditions)[:, : clean.shape[1]]
    error = (velocity - (clean - noise)).square().mean((1, 3, 4))
    return (error * frame_mask).sum(1) / frame_mask.sum(1)


def _loss_at(transformer, sampler, bucket, rows, texts, t):
    """Mean loss at timestep t of these clips with these captions, every frame generated, always the same noise."""
    clean = bucket.latents[rows]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    features, mask = sampler.captions(texts)
    B, _, T = clean.shape[:3]
    loss = flow_loss(
        transformer, clean, noise, torch.full((B,), t), torch.ones(B, T, dtype=torch.bool),
        caption=features, caption_mask=mask, fps=torch.full((B,), 24.0),
        height=torch.full((B,), float(bucket.height)), width=torch.full((B,), float(bucket.width)),
    )  # fmt: skip
    return loss.mean().item()


@torch.no_grad()
def motion_gate(transformer, sampler, count=48, t=900.0):
    """How much higher the loss at t is with the opposite motion word: the sign that words steer motion.

    Returns the loss with the right word, and what the opposite word adds to it.
    """
    bucket = next(b for b in sampler.buckets if b.num_frames == 17)
    scenes = [(row, s) for row, s in enumerate(bucket.scenes) if s.motion in OPPOSITE][:count]
    losses = []
    for motions in ([s.motion for _, s in scenes], [OPPOSITE[s.motion] for _, s in scenes]):
        texts = [
            f"a {s.color} {s.shape} on a {s.background} background {MOTION_PHRASE[motion]}"
            for (_, s), motion in zip(scenes, motions)
        ]
        losses.append(_loss_at(transformer, sampler, bucket, [row for row, _ in scenes], texts, t))
    return losses[0], losses[1] - losses[0]


@torch.no_grad()
def losses_at(transformer, sampler, times=(200.0, 500.0, 700.0, 900.0), count=48):
    """The loss at each of `times`: outlines are drawn at 500 and below, colour and motion are decided above."""
    bucket = next(b for b in sampler.buckets if b.num_frames == 17)
    texts = [caption(scene, numpy.random.default_rng(0)) for scene in bucket.scenes[:count]]
    return [_loss_at(transformer, sampler, bucket, list(range(len(texts))), texts, t) for t in times]


MOTION_PHRASE = {
    "left": "moves left",
    "right": "moves right",
    "up": "moves up",
    "down": "moves down",
    "grow": "grows",
    "shrink": "shrinks",
}


def train_transformer(folder, buckets, text_encoder, tokenizer, steps=6000, batch=24, seed=0, start=None):
    """Train (or go on training) and return the module with its averaged weights; `start`: weights to begin with."""
    torch.manual_seed(seed)  # the same weights in every process
    transformer = initialise(STDiT3(TINY, attention=matmul_attention))
    if start is not None:
        transformer.load_state_dict({key: value.float() for key, value in start.items()})
    rates = {"learning_rate": 1.4e-3, "matrix_rate": 0.014}
    run = Run(folder, transformer, steps=steps, ema=0.9985, weight_decay=0.01, save_every=250, **rates)
    sampler = Sampler(buckets, text_encoder, tokenizer, transformer.null_caption)
    torch.manual_seed(1_000_003 * seed + 1_009 * run.step + rank())  # but noise of its own for each
    for step in run:
        rng = numpy.random.default_rng((seed, step, rank()))
        run.update(flow_loss(transformer, **sampler.draw(rng, batch)).mean())
        if rank() == 0 and (step + 1) % 250 == 0:
            right, gap = motion_gate(transformer, sampler)
            at = [round(loss, 4) for loss in losses_at(transformer, sampler)]
            run.note(step=step + 1, motion_gate_loss=round(right, 4), opposite_word_adds=round(gap, 4), losses=at)
    transformer.load_state_dict(run.average)
    return transformer.eval().requires_grad_(False)
