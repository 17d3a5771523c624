"""Text to video with the finished tiny files and model/ alone, as the nodes do it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...model import flow
from ...model.frames import IMAGE_FPS
from ...model.pins import pieces
from ...model.transformers.stdit3 import STDiT3
from ...model.vaes.v1_2 import VideoVAE
from ..data.cache import EncodesText
from .recipe import GUIDANCE
from .shapes import Scene, render


@dataclass(frozen=True)
class Trial:
    """A held-out scene, a held-out caption of it, and the seed of the noise."""

    scene: Scene
    text: str
    seed: int


@dataclass(frozen=True)
class Pipeline:
    """The tiny model: trials to latents, and to videos."""

    transformer: STDiT3
    vae: VideoVAE
    text_encoder: EncodesText
    flow_settings: dict[str, Any]

    @torch.no_grad()
    def __call__(self, trials: Sequence[Trial], **options: Any) -> torch.Tensor:
        """Videos [N, T, H, W, 3] of trials that share one size; `options` as `sample`."""
        video = self.vae.decode(self.sample(trials, **options), trials[0].scene.num_frames)
        return ((video + 1) / 2).clamp(0, 1).permute(0, 2, 3, 4, 1)

    @torch.no_grad()
    def sample(
        self,
        trials: Sequence[Trial],
        steps: int = 30,
        guidance: float = GUIDANCE,
        fps: float = 24.0,
        pin_ends: bool = False,
    ) -> torch.Tensor:
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
                images = [render(trial.scene)[frame] for trial in trials]
                for latent, still in self.encode_stills(images, frame, groups).items():
                    z[:, :, latent], frame_mask[:, latent] = still, 0
        features, mask = (torch.stack(part) for part in zip(*(self.text_encoder(trial.text) for trial in trials)))
        length = int(mask.sum(1).max())
        features, mask = features[:, :length], mask[:, :length]
        timesteps = flow.timesteps(steps, scene.height, scene.width, scene.num_frames, **self.flow_settings)
        rows = torch.ones(len(trials))
        return flow.sample(
            self.transformer,
            z,
            features,
            self.transformer.null_caption[:length],
            caption_mask=mask,
            timesteps=timesteps,
            guidance=guidance,
            frame_mask=frame_mask,
            fps=rows * (fps if T > 1 else IMAGE_FPS),
            height=rows * scene.height,
            width=rows * scene.width,
        )

    def encode_stills(self, images: list[torch.Tensor], frame: int, groups: Sequence[range]) -> dict[int, torch.Tensor]:
        """{latent index: [N, C, h, w]} of lone images [H, W, 3], one a clip, pinned to a frame."""
        video = torch.stack(images).permute(0, 3, 1, 2)[:, :, None] * 2 - 1
        found: dict[int, torch.Tensor] = {}
        for places, wanted in pieces(groups, frame, 1, self.vae.counting.chunk_latents):
            latents = self.vae.encode(video[:, :, places])
            found |= {index: latents[:, :, at] for index, at in wanted.items()}
        return found
