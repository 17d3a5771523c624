"""Last phase of the tiny VAE: its decoders learn to paint what the transformer means.

What a small transformer samples lies a little off the latents of every clip, and a decoder that knows nothing but
encodings shows that as ragged outlines. Here it sees clips whose latents were noised half-way and sampled again, and
has to paint the clip. The encoders stay, so latents mean what they meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch

from ...model import flow
from ...model.transformers.stdit3 import STDiT3
from ...model.vaes.v1_2 import VideoVAE
from ..losses import noised
from ..objective import draw, stacked
from .examples import Rendered, TinyObjective
from .hardest import Hardest
from .painting import NOISE, decibels, paint, painting_loss
from .recipe import FLOW, TEACHER_GUIDANCE
from .run import fit, kept
from .shapes import render_all

STEPS = 30  # of the whole schedule, as the nodes have it
START = (300.0, 850.0)  # the timestep to which a clip is noised: place and shape stay, outlines are drawn anew
SAMPLED = 0.7  # of the clips of a step are sampled again, the others encodings
PAINTED = 0.25  # of the steps have encodings of their clips as the VAE painted them: what was decoded is encoded again
BOTH_ENDS = 0.5  # of the sampled clips have their first and last frame pinned
CANDIDATES = 4  # clips for each that is sampled again: those of the kinds that are painted worst


class Pinned(TinyObjective):
    """Frames are kept as in training, and both ends more often: decoding is to meet pinned frames between others."""

    def ratios_of(self, num_latents: int) -> dict[str, float]:
        """In BOTH_ENDS of the clips both ends, in the others as in training."""
        ratios = {name: (1 - BOTH_ENDS) * ratio for name, ratio in super().ratios_of(num_latents).items()}
        return ratios | {"image_head_tail": BOTH_ENDS + ratios["image_head_tail"]}


@torch.no_grad()
def sample_again(transformer: STDiT3, clips: Rendered, indices: Sequence[int], start: float, seed: int) -> torch.Tensor:
    """Latents [B, 4, T, h, w] of clips of a size, noised to the first timestep below `start` and sampled from there."""
    objective, null_caption = Pinned(caption_dropout=0.0), transformer.null_caption
    drawn = [
        draw(clips.read(index, number), objective, null_caption, seed=seed, epoch=number)
        for number, index in enumerate(indices, seed)
    ]
    given: dict[str, Any] = stacked(transformer, drawn)
    clean, noise, frame_mask = (given.pop(name) for name in ("clean", "noise", "frame_mask"))
    scene = clips.scene(indices[0])
    timesteps = flow.timesteps(STEPS, scene.height, scene.width, scene.num_frames, **FLOW)
    timesteps = timesteps[timesteps <= start]
    noisy = noised(clean, torch.full_like(given.pop("t"), float(timesteps[0])), noise, frame_mask)
    return flow.sample(
        transformer, noisy, given.pop("caption"), null_caption[: int(given["caption_mask"].shape[1])],
        timesteps=timesteps, guidance=TEACHER_GUIDANCE, frame_mask=frame_mask.float(), **given,
    )  # fmt: skip


def draw_moving(clips: Rendered, count: int, rng: numpy.random.Generator) -> list[int]:
    """`count` clips of 17 frames, of one size."""
    moving = [place for place, bucket in enumerate(clips.buckets) if bucket.num_frames == 17]
    shares = numpy.array([len(clips.buckets[place].scenes) for place in moving])
    place = rng.choice(moving, p=shares / shares.sum())
    return (clips.first[place] + rng.integers(len(clips.buckets[place].scenes), size=count)).tolist()


@torch.no_grad()
def look_around(
    vae: VideoVAE, clips: Rendered, rng: numpy.random.Generator, count: int = 320, batch: int = 8
) -> Hardest:
    """A Hardest that has seen how `vae` paints so many encodings."""
    hardest = Hardest()
    for _ in range(-(-count // batch)):
        indices = draw_moving(clips, batch, rng)
        scenes = list(map(clips.scene, indices))
        hardest.saw(scenes, painting_loss(vae, clips.latents(indices), render_all(scenes))[1])
    return hardest


def make_pairs(
    transformer: STDiT3, clips: Rendered, count: int, hardest: Hardest, rng: numpy.random.Generator, batch: int = 24
) -> list[tuple[list[int], torch.Tensor]]:
    """[(clips, latents)]: about `count` clips, mostly of the hardest kinds, sampled again."""
    pairs = []
    for _ in range(-(-count // batch)):
        drawn = draw_moving(clips, CANDIDATES * batch, rng)
        indices = [drawn[at] for at in hardest.choose(list(map(clips.scene, drawn)), batch, rng)]
        seed = int(rng.integers(2**31))
        pairs.append((indices, sample_again(transformer, clips, indices, rng.uniform(*START), seed)))
    return pairs


def polish(
    folder: Path,
    vae: VideoVAE,
    transformer: STDiT3,
    clips: Rendered,
    steps: int = 1200,
    batch: int = 4,
    count: int = 1440,
    seed: int = 0,
) -> VideoVAE:
    """The VAE with its two decoders trained on; the rest of it unchanged, averaged weights."""
    torch.manual_seed(seed)
    rng = numpy.random.default_rng((seed, 5))
    hardest = look_around(vae, clips, rng, min(320, count))
    pairs = kept(
        folder / "sampled.pt", lambda: make_pairs(transformer.eval(), clips, count, hardest, rng, min(24, count))
    )

    def loss_of(rng: numpy.random.Generator) -> tuple[torch.Tensor, dict[str, Any]]:
        indices, sampled = pairs[rng.integers(len(pairs))]
        chosen = hardest.choose(list(map(clips.scene, indices)), min(batch, len(indices)), rng)
        indices = [indices[at] for at in chosen]
        scenes, encoded = list(map(clips.scene, indices)), clips.latents(indices)
        if rng.random() < PAINTED:
            with torch.no_grad():
                encoded = vae.encode(paint(vae, encoded, scenes[0].num_frames, rng))
        encoded = encoded + NOISE * torch.randn_like(encoded)
        again = torch.from_numpy(rng.random(len(indices)) < SAMPLED).view(-1, 1, 1, 1, 1)
        loss, errors = painting_loss(vae, torch.where(again, sampled[chosen], encoded), render_all(scenes))
        hardest.saw(scenes, errors)
        return loss, {"psnr": decibels(errors).mean()}

    parts = [vae.temporal_vae.decoder, vae.temporal_vae.post_quant_conv, vae.spatial_vae["module"].decoder]
    rates: dict[str, Any] = {"learning_rate": 5e-4, "muon_rate": 0.002}
    return fit(folder, vae, loss_of, steps, parts=parts, memory=hardest.errors, seed=seed, **rates)
