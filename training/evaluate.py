"""Scores of the tiny model on held-out captions and combinations, and on in-betweening first and last frames."""

from dataclasses import dataclass

import numpy
import torch

from ..model import flow
from ..model.frames import IMAGE_FPS
from ..model.pins import pieces
from .captions import caption
from .judge import ATTRIBUTES, judge
from .shapes import Scene, render, sample_scene
from .text_encoder import encode


@dataclass(frozen=True)
class Trial:
    """A held-out scene, a held-out caption of it, and the seed of the noise."""

    scene: Scene
    text: str
    seed: int


def held_out_trials(count, seed=2026, height=64, width=64, num_frames=17):
    """`count` trials, always the same ones for the same arguments."""
    rng = numpy.random.default_rng(seed)
    scenes = [sample_scene(rng, height, width, num_frames, split="held_out") for _ in range(count)]
    return [Trial(scene, caption(scene, rng, split="held_out"), index) for index, scene in enumerate(scenes)]


def score(videos, trials):
    """Share of videos [T, H, W, 3] in 0..1 that show what the caption says, per attribute and of all four together."""
    verdicts = [judge(video).agrees(trial.scene) for video, trial in zip(videos, trials)]
    right = numpy.array([[verdict[name] for name in ATTRIBUTES] for verdict in verdicts])
    return {**{name: float(right[:, i].mean()) for i, name in enumerate(ATTRIBUTES)}, "all": float(right.all(1).mean())}


def psnr(a, b):
    """Peak signal-to-noise ratio in dB of videos in 0..1."""
    return float(10 * torch.log10(1 / (a - b).square().mean().clamp(min=1e-10)))


def in_between_scores(video, truth):
    """(PSNR of the frames between the first and the last group, the same of a cross-fade) of videos [T, H, W, 3]."""
    between = slice(1, truth.shape[0] - 4)
    fade = torch.linspace(0, 1, truth.shape[0])[:, None, None, None]
    faded = truth[:1] * (1 - fade) + truth[-1:] * fade
    return psnr(video[between], truth[between]), psnr(faded[between], truth[between])


class Pipeline:
    """Text to video with the modules of model/ alone, as the nodes do it: for scores during training."""

    def __init__(self, transformer, vae, text_encoder, tokenizer, flow_settings):
        self.transformer, self.vae, self.text_encoder, self.tokenizer = transformer, vae, text_encoder, tokenizer
        self.flow_settings = flow_settings

    @torch.no_grad()
    def __call__(self, trials, **options):
        """Videos [N, T, H, W, 3] of trials that share one size; `options` as `sample`."""
        video = self.vae.decode(self.sample(trials, **options), trials[0].scene.num_frames)
        return ((video + 1) / 2).clamp(0, 1).permute(0, 2, 3, 4, 1)

    @torch.no_grad()
    def sample(self, trials, steps=30, guidance=7.0, fps=24.0, pin_ends=False):
        """Their latents [N, C, T, h, w]; `pin_ends` keeps the true first and last frames."""
        scene = trials[0].scene
        T = self.vae.latent_frames(scene.num_frames)
        shape = (4, T, scene.height // 8, scene.width // 8)
        z = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(t.seed)) for t in trials])
        frame_mask = None
        if pin_ends:
            frame_mask = torch.ones(len(trials), T)
            groups = self.vae.counting.groups(scene.num_frames)
            for frame in (0, scene.num_frames - 1):
                for latent, still in self.encode_stills(
                    [render(t.scene)[frame] for t in trials], frame, groups
                ).items():
                    z[:, :, latent], frame_mask[:, latent] = still, 0
        features, mask = encode(self.text_encoder, self.tokenizer, [trial.text for trial in trials])
        length = int(mask.sum(1).max())
        timesteps = flow.timesteps(steps, scene.height, scene.width, scene.num_frames, **self.flow_settings)
        rows = torch.ones(len(trials))
        return flow.sample(
            self.transformer,
            z,
            features[:, :length],
            self.transformer.null_caption[:length],
            caption_mask=mask[:, :length],
            timesteps=timesteps,
            guidance=guidance,
            frame_mask=frame_mask,
            fps=rows * (fps if T > 1 else IMAGE_FPS),
            height=rows * scene.height,
            width=rows * scene.width,
        )

    def encode_stills(self, images, frame, groups):
        """{latent index: [N, C, h, w]} of lone images [H, W, 3], one a clip, pinned to a frame."""
        video, found = torch.stack(images).permute(0, 3, 1, 2)[:, :, None] * 2 - 1, {}
        for places, wanted in pieces(groups, frame, 1, self.vae.counting.chunk_latents):
            latents = self.vae.encode(video[:, :, places])
            found |= {index: latents[:, :, at] for index, at in wanted.items()}
        return found


def evaluate(pipeline, count=128, batch=16, **options):
    """(scores, videos, trials) of `count` held-out trials; `options` go to the pipeline."""
    trials = held_out_trials(count)
    videos = torch.cat([pipeline(trials[i : i + batch], **options) for i in range(0, count, batch)])
    return score(videos, trials), videos, trials


def evaluate_in_betweens(pipeline, count=48, batch=16, **options):
    """Mean PSNR of in-betweens and of cross-fades over held-out moving clips, and the share that gains ≥ 3 dB."""
    trials = [trial for trial in held_out_trials(2 * count, seed=77) if trial.scene.motion != "still"][:count]
    pairs = []
    for i in range(0, len(trials), batch):
        videos = pipeline(trials[i : i + batch], pin_ends=True, **options)
        pairs += [in_between_scores(video, render(t.scene)) for video, t in zip(videos, trials[i : i + batch])]
    ours, fades = (numpy.array(column) for column in zip(*pairs))
    gains = float((ours - fades >= 3).mean())
    return {"in_between_psnr": float(ours.mean()), "cross_fade_psnr": float(fades.mean()), "gain_of_3_db": gains}
