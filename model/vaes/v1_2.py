"""The video VAE of Open-Sora 1.2: the 2D VAE on every frame, then the temporal VAE on chunks of 17 frames.

Videos are [B, 3, T, H, W] in -1…1; latents are [B, 4, T', H / 8, W / 8], normalised to about unit variance. Defined by
https://github.com/hpcaitech/Open-Sora (branch opensora/v1.2).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..frames import CHUNKS, Counts
from ..shapes_of import StateDict
from . import spatial
from .slicing import placed
from .spatial import MODE, SpatialConfig, draw_posterior, draws
from .temporal import TemporalConfig, TemporalVAE

OFFICIAL_SHIFT = (-0.10, 0.34, 0.27, 0.98)
OFFICIAL_SCALE = (3.85, 2.32, 2.33, 3.06)


@dataclass(frozen=True)
class VideoVAEConfig:
    """Sizes of both parts, frames a chunk, and the shift and scale that normalise each latent channel."""

    spatial: SpatialConfig = field(default_factory=SpatialConfig)
    temporal: TemporalConfig = field(default_factory=TemporalConfig)
    chunk_frames: int = CHUNKS.chunk_frames
    shift: tuple = OFFICIAL_SHIFT
    scale: tuple = OFFICIAL_SCALE

    @classmethod
    def from_weights(cls, state_dict: StateDict, config: Mapping[str, Any] | None = None) -> "VideoVAEConfig":
        """The configuration of these weights; `config` supplies what they cannot tell.

        Its keys: spatial_norm_groups, temporal_norm_groups, chunk_frames, shift, scale.
        """
        config = config or {}
        return cls(
            spatial=SpatialConfig.from_weights(state_dict, "spatial_vae.module.", config),
            temporal=TemporalConfig.from_weights(state_dict, "temporal_vae.", config),
            chunk_frames=config.get("chunk_frames") or cls.chunk_frames,
            shift=tuple(config.get("shift") or OFFICIAL_SHIFT),
            scale=tuple(config.get("scale") or OFFICIAL_SCALE),
        )


class VideoVAE(Counts, nn.Module):
    """Encodes and decodes videos of any length; a chunk of 17 frames becomes 5 latents, a single image becomes 1."""

    family = "vae_v1_2"
    Config = VideoVAEConfig
    OPTIONAL = ("shift", "scale")  # a file may lack them: `computed` has them
    own_keys = staticmethod(spatial.modern_keys)
    images_at_once = spatial.IMAGES_AT_ONCE
    shift: Tensor
    scale: Tensor
    spatial_vae: Any

    def __init__(self, config: VideoVAEConfig = VideoVAEConfig(), operations: Any = nn, **weights: Any) -> None:
        super().__init__()
        self.config = config
        self.latent_channels = config.temporal.latent_channels
        self.spatial_vae = nn.ModuleDict({"module": spatial.AutoencoderKL(config.spatial, operations, **weights)})
        self.temporal_vae = TemporalVAE(config.temporal, operations, **weights)
        self.counting = replace(CHUNKS, chunk_frames=config.chunk_frames, factor=self.temporal_vae.factor)
        for name in ("shift", "scale"):
            values = torch.tensor(getattr(config, name), dtype=torch.float32, device=weights.get("device"))
            self.register_buffer(name, values.view(1, -1, 1, 1, 1))

    def computed(self) -> dict[str, Tensor]:
        """The tensors of OPTIONAL by their keys, fp32."""
        return {name: torch.tensor(getattr(self.config, name)).view(1, -1, 1, 1, 1) for name in self.OPTIONAL}

    def encode(self, video: Tensor, noise: torch.Generator | Callable[..., Tensor] | None = None) -> Tensor:
        """Normalised latents of a video [B, 3, T, H, W] in -1…1.

        Args:
            noise: None for the posteriors' modes; a `torch.Generator` for samples; or a callable
                (kind, index, shape) -> tensor that supplies each draw, kind "spatial" (every 4 frames) or
                "temporal" (every chunk), all spatial ones first.
        """
        video = self._in_own_dtype(video)
        draw = draws(noise)
        return self.encode_latents(self.encode_frames(video, draw), draw)

    def encode_latents(self, x: Tensor, draw: Callable[..., Tensor | None] = MODE) -> Tensor:
        """2D latents [B, C, T, h, w] through the temporal VAE, chunk by chunk, and normalised."""
        chunks = []
        for index, chunk in enumerate(x.split(self.counting.chunk_frames, dim=2)):
            moments = self.temporal_vae.encode(chunk)
            chunks.append(draw_posterior(moments, draw("temporal", index, moments)))
        z = torch.cat(chunks, dim=2)
        return (z - self.shift.to(z)) / self.scale.to(z)

    def decode(self, latents: Tensor, num_frames: int) -> Tensor:
        """Video [B, 3, num_frames, 8 h, 8 w] in about -1…1 from normalised latents [B, C, T, h, w].

        Raises ValueError where the latents cannot stand for `num_frames` frames.
        """
        self.counting.refuse_mismatch(num_frames, latents.shape[2])
        latents = placed(self._in_own_dtype(latents))
        z = latents * self.scale.to(latents) + self.shift.to(latents)
        pieces = zip(z.split(self.counting.chunk_latents, dim=2), self.counting.chunks(num_frames))
        chunks = [self.temporal_vae.decode(piece, len(frames)) for piece, frames in pieces]
        return self.decode_frames(torch.cat(chunks, dim=2))

    def _in_own_dtype(self, x):
        """x in the dtype of the weights; hosts that load weights late or cast them on the way bring the right one."""
        weight = self.temporal_vae.quant_conv.conv.weight
        return x if weight is None else x.to(weight.dtype)

    def encode_frames(self, video: Tensor, draw: Callable[..., Tensor | None] = MODE) -> Tensor:
        """Each frame through the 2D VAE: [B, 3, T, H, W] to [B, C, T, H / 8, W / 8]."""
        return spatial.encode_frames(self.spatial_vae["module"], video, draw, self.images_at_once)

    def decode_frames(self, x: Tensor) -> Tensor:
        """Each 2D latent to its frame: [B, C, T, h, w] to [B, 3, T, 8 h, 8 w]."""
        return spatial.decode_frames(self.spatial_vae["module"], x, self.images_at_once)
