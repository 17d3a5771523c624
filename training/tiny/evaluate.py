"""Scores of the tiny model on held-out captions and combinations, and on in-betweening first and last frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy
import torch

from .captions import caption
from .judge import ATTRIBUTES, judge
from .painting import psnr
from .pipeline import Pipeline, Trial
from .shapes import render, sample_scene


def held_out_trials(
    count: int, seed: int = 2026, height: int = 64, width: int = 64, num_frames: int = 17
) -> list[Trial]:
    """`count` trials, always the same ones for the same arguments."""
    rng = numpy.random.default_rng(seed)
    scenes = [sample_scene(rng, height, width, num_frames, split="held_out") for _ in range(count)]
    return [Trial(scene, caption(scene, rng, split="held_out"), index) for index, scene in enumerate(scenes)]


def score(videos: Iterable[torch.Tensor], trials: Sequence[Trial]) -> dict[str, float]:
    """Share of videos [T, H, W, 3] in 0..1 that show what the caption says, per attribute and of all four together."""
    verdicts = [judge(video).agrees(trial.scene) for video, trial in zip(videos, trials)]
    right = numpy.array([[verdict[name] for name in ATTRIBUTES] for verdict in verdicts])
    return {**{name: float(right[:, i].mean()) for i, name in enumerate(ATTRIBUTES)}, "all": float(right.all(1).mean())}


def in_between_scores(video: torch.Tensor, truth: torch.Tensor) -> tuple[float, float]:
    """(PSNR of the frames between the first and the last group, the same of a cross-fade) of videos [T, H, W, 3]."""
    between = slice(1, truth.shape[0] - 4)
    fade = torch.linspace(0, 1, truth.shape[0])[:, None, None, None]
    faded = truth[:1] * (1 - fade) + truth[-1:] * fade
    ours, fades = (psnr(clip[None, between], truth[None, between], span=1) for clip in (video, faded))
    return ours, fades


def evaluate(
    pipeline: Pipeline, count: int = 128, batch: int = 16, **options: Any
) -> tuple[dict[str, float], torch.Tensor, list[Trial]]:
    """(scores, videos, trials) of `count` held-out trials; `options` go to the pipeline."""
    trials = held_out_trials(count)
    videos = torch.cat([pipeline(trials[i : i + batch], **options) for i in range(0, count, batch)])
    return score(videos, trials), videos, trials


def evaluate_in_betweens(pipeline: Pipeline, count: int = 48, batch: int = 16, **options: Any) -> dict[str, float]:
    """Mean PSNR of in-betweens and of cross-fades over held-out moving clips, and the share that gains ≥ 3 dB."""
    trials = [trial for trial in held_out_trials(2 * count, seed=77) if trial.scene.motion != "still"][:count]
    pairs = []
    for i in range(0, len(trials), batch):
        videos = pipeline(trials[i : i + batch], pin_ends=True, **options)
        pairs += [in_between_scores(video, render(t.scene)) for video, t in zip(videos, trials[i : i + batch])]
    ours, fades = (numpy.array(column) for column in zip(*pairs))
    gains = float((ours - fades >= 3).mean())
    return {"in_between_psnr": float(ours.mean()), "cross_fade_psnr": float(fades.mean()), "gain_of_3_db": gains}
