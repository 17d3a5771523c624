"""The video VAE of Open-Sora 1.2: the 2D VAE on every frame, then the temporal VAE on chunks of 17 frames.

Videos are [B, 3, T, H, W] in -1…1; latents are [B, 4, T', H / 8, W / 8], normalised to about unit variance. Defined by
https://github.com/hpcaitech/Open-Sora (branch opensora/v1.2).
"""

from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import nn

from .vae_spatial import AutoencoderKL, SpatialConfig, draw_posterior
from .vae_temporal import TemporalConfig, TemporalVAE

SPATIAL_FACTOR = 0.18215  # the 2D VAE's own latent scale, Stable Diffusion's
IMAGES_AT_ONCE = 4  # the 2D VAE runs on so many frames at a time, to bound memory
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


class VideoVAE(nn.Module):
    """Encodes and decodes videos of any length; a chunk of 17 frames becomes 5 latents, a single image becomes 1."""

    family = "vae_v1_2"

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
        draw = _draws(noise, video)
        return self.encode_latents(self.encode_frames(video, draw), draw)

    def encode_latents(self, x, draw=lambda kind, index, moments: None):
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
        latents = self._in_own_dtype(latents)
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

    def encode_frames(self, video, draw=lambda kind, index, moments: None):
        """Each frame through the 2D VAE: [B, 3, T, H, W] to [B, C, T, H / 8, W / 8]."""
        frames = rearrange(video, "B C T H W -> (B T) C H W").split(IMAGES_AT_ONCE)
        latents = []
        for index, images in enumerate(frames):
            moments = self.spatial_vae["module"].encode(images)
            latents.append(draw_posterior(moments, draw("spatial", index, moments)) * SPATIAL_FACTOR)
        return rearrange(torch.cat(latents), "(B T) C H W -> B C T H W", B=video.shape[0])

    def decode_frames(self, x):
        """Each 2D latent to its frame: [B, C, T, h, w] to [B, 3, T, 8 h, 8 w]."""
        images = rearrange(x, "B C T H W -> (B T) C H W").split(IMAGES_AT_ONCE)
        frames = torch.cat([self.spatial_vae["module"].decode(image / SPATIAL_FACTOR) for image in images])
        return rearrange(frames, "(B T) C H W -> B C T H W", B=x.shape[0])


def _draws(noise, video):
    """Turn `encode`'s noise argument into (kind, index, moments) -> tensor or None."""
    if noise is None:
        return lambda kind, index, moments: None

    def draw(kind, index, moments):
        shape = (moments.shape[0], moments.shape[1] // 2, *moments.shape[2:])
        if isinstance(noise, torch.Generator):
            return torch.randn(shape, generator=noise, device=noise.device).to(moments)
        return noise(kind, index, shape).to(moments)

    return draw
