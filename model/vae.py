"""The video VAE of Open-Sora 1.2: the 2D VAE on every frame, then the temporal VAE on chunks of 17 frames.

Videos are [B, 3, T, H, W] in -1…1; latents are [B, 4, T', H / 8, W / 8], normalised to about unit variance. Defined by
https://github.com/hpcaitech/Open-Sora (branch opensora/v1.2).
"""

from dataclasses import dataclass, field

import torch
from torch import nn

from .slicing import placed
from .vae_spatial import (
    IMAGES_AT_ONCE,
    MODE,
    SPATIAL_FACTOR,
    AutoencoderKL,
    SpatialConfig,
    decode_frames,
    draw_posterior,
    draws,
    encode_frames,
    modern_keys,
)
from .vae_temporal import TemporalConfig, TemporalVAE

OFFICIAL_SHIFT = (-0.10, 0.34, 0.27, 0.98)
OFFICIAL_SCALE = (3.85, 2.32, 2.33, 3.06)


@dataclass(frozen=True)
class VideoVAEConfig:
    """Sizes of both parts, frames a chunk, and the shift and scale that normalise each latent channel."""

    spatial: SpatialConfig = field(default_factory=SpatialConfig)
    temporal: TemporalConfig = field(default_factory=TemporalConfig)
    chunk_frames: int = 17
    shift: tuple = OFFICIAL_SHIFT
    scale: tuple = OFFICIAL_SCALE

    @classmethod
    def from_weights(cls, state_dict, config=None):
        """The sizes of these weights; `config` supplies what they cannot tell.

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


def latent_frames(num_frames, chunk_frames=17, factor=4):
    """Latents of a video of `num_frames` frames: every chunk fills its last latent on its own."""
    chunks, rest = divmod(num_frames, chunk_frames)
    return chunks * -(-chunk_frames // factor) + -(-rest // factor)


def video_frames(num_latents, chunk_frames=17, factor=4):
    """The largest frame count that encodes to `num_latents` latents; a single latent is an image."""
    if num_latents == 1:
        return 1
    chunks, rest = divmod(num_latents, -(-chunk_frames // factor))
    return chunks * chunk_frames + rest * factor


def groups(num_frames, chunk_frames=17, factor=4):
    """The video frames behind each latent of a clip: a list of ranges, one a latent, chunk by chunk.

    The padding stands in front of a chunk, so its first group is the short one: of 17 frames, frame 0 is a latent of
    its own, and every 4 after it are one.
    """
    found = []
    for start in range(0, num_frames, chunk_frames):
        length = min(chunk_frames, num_frames - start)
        for first in range(-(-length % factor), length, factor):
            found.append(range(start + max(first, 0), start + first + factor))
    return found


class VideoVAE(nn.Module):
    """Encodes and decodes videos of any length; a chunk of 17 frames becomes 5 latents, a single image becomes 1."""

    family = "vae_v1_2"
    OPTIONAL = ("shift", "scale")  # a file may lack them: `computed` has them
    own_keys = staticmethod(modern_keys)
    images_at_once = IMAGES_AT_ONCE

    def __init__(self, config=VideoVAEConfig(), operations=None, dtype=None, device=None):
        super().__init__()
        weights = dict(operations=operations, dtype=dtype, device=device)
        self.config = config
        self.latent_channels = config.temporal.latent_channels
        self.chunk_frames = config.chunk_frames
        self.spatial_vae = nn.ModuleDict({"module": AutoencoderKL(config.spatial, **weights)})
        self.temporal_vae = TemporalVAE(config.temporal, **weights)
        for name in ("shift", "scale"):
            values = torch.tensor(getattr(config, name), dtype=torch.float32, device=device)
            self.register_buffer(name, values.view(1, -1, 1, 1, 1))

    def computed(self):
        """The tensors of OPTIONAL by their keys, fp32."""
        return {name: torch.tensor(getattr(self.config, name)).view(1, -1, 1, 1, 1) for name in self.OPTIONAL}

    @property
    def chunk_latents(self):
        """Latents of a full chunk: 5."""
        return self.latent_frames(self.chunk_frames)

    def latent_frames(self, num_frames):
        """Latents of a video of `num_frames` frames."""
        return latent_frames(num_frames, self.chunk_frames, self.temporal_vae.factor)

    def video_frames(self, num_latents):
        """Frames that `num_latents` latents stand for: the valid count, the largest that encodes to so many latents."""
        return video_frames(num_latents, self.chunk_frames, self.temporal_vae.factor)

    def groups(self, num_frames):
        """The video frames behind each latent of a clip of `num_frames` frames: a list of ranges, one a latent."""
        return groups(num_frames, self.chunk_frames, self.temporal_vae.factor)

    def chunks(self, num_frames):
        """The frames of each chunk of a video: a list of ranges."""
        starts = range(0, num_frames, self.chunk_frames)
        return [range(start, min(start + self.chunk_frames, num_frames)) for start in starts]

    def nearest_frames(self, num_frames):
        """The valid frame counts around `num_frames`: (num_frames,) where it is one, else the neighbours, low to high.

        Valid are 1 and, from a full chunk on, every count that fills its last latent.
        """
        if num_frames <= 1:
            return (1,)
        if num_frames < self.chunk_frames:
            return (1, self.chunk_frames)
        chunks, rest = divmod(num_frames, self.chunk_frames)
        low = chunks * self.chunk_frames + rest // self.temporal_vae.factor * self.temporal_vae.factor
        if low == num_frames:
            return (num_frames,)
        return (low, min(low + self.temporal_vae.factor, (chunks + 1) * self.chunk_frames))

    def encode(self, video, noise=None):
        """Normalised latents of a video [B, 3, T, H, W] in -1…1.

        Args:
            noise: None for the posteriors' modes; a `torch.Generator` for samples; or a callable
                (kind, index, shape) -> tensor that supplies each draw, kind "spatial" (every 4 frames) or
                "temporal" (every chunk), all spatial ones first.
        """
        video = self._in_own_dtype(video)
        draw = draws(noise)
        return self.encode_latents(self.encode_frames(video, draw), draw)

    def encode_latents(self, x, draw=MODE):
        """2D latents [B, C, T, h, w] through the temporal VAE, chunk by chunk, and normalised."""
        chunks = []
        for index, chunk in enumerate(x.split(self.chunk_frames, dim=2)):
            moments = self.temporal_vae.encode(chunk)
            chunks.append(draw_posterior(moments, draw("temporal", index, moments)))
        z = torch.cat(chunks, dim=2)
        return (z - self.shift.to(z)) / self.scale.to(z)

    def decode(self, latents, num_frames):
        """Video [B, 3, num_frames, 8 h, 8 w] in about -1…1 from normalised latents [B, C, T, h, w].

        Raises ValueError where the latents cannot stand for `num_frames` frames.
        """
        if self.latent_frames(num_frames) != latents.shape[2]:
            raise ValueError(
                f"num_frames is {num_frames}, which makes {self.latent_frames(num_frames)} latents, but there are "
                f"{latents.shape[2]}; they decode to {self.video_frames(latents.shape[2])} frames"
            )
        latents = placed(self._in_own_dtype(latents))
        z = latents * self.scale.to(latents) + self.shift.to(latents)
        chunks = []
        for chunk in z.split(self.chunk_latents, dim=2):
            chunks.append(self.temporal_vae.decode(chunk, min(self.chunk_frames, num_frames)))
            num_frames -= self.chunk_frames
        return self.decode_frames(torch.cat(chunks, dim=2))

    def _in_own_dtype(self, x):
        """x in the dtype of the weights; hosts that load weights late or cast them on the way bring the right one."""
        weight = self.temporal_vae.quant_conv.conv.weight
        return x if weight is None else x.to(weight.dtype)

    def encode_frames(self, video, draw=MODE):
        """Each frame through the 2D VAE: [B, 3, T, H, W] to [B, C, T, H / 8, W / 8]."""
        return encode_frames(self.spatial_vae["module"], video, draw, self.images_at_once)

    def decode_frames(self, x):
        """Each 2D latent to its frame: [B, C, T, h, w] to [B, 3, T, 8 h, 8 w]."""
        return decode_frames(self.spatial_vae["module"], x, self.images_at_once)


__all__ = [
    "IMAGES_AT_ONCE", "OFFICIAL_SCALE", "OFFICIAL_SHIFT", "SPATIAL_FACTOR", "VideoVAE", "VideoVAEConfig", "groups",
    "latent_frames", "video_frames",
]  # fmt: skip
