"""The 2D variational autoencoder that looks at one frame at a time (Stable Diffusion's AutoencoderKL).

Rombach et al. 2022; module names follow the diffusers checkpoint layout. Sizes come from `SpatialConfig`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..shapes_of import StateDict, count_blocks, shape_of
from .doubling import doubled
from .slicing import known, placed, row_wise, silu, whole

SPATIAL_FACTOR = 0.18215  # the 2D VAE's own latent scale, Stable Diffusion's
IMAGES_AT_ONCE = 4  # the 2D VAE runs on so many frames at a time, to bound memory
OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


@dataclass(frozen=True)
class SpatialConfig:
    """Configuration of the 2D VAE: channels of each level, residual blocks a level, GroupNorm groups."""

    block_out_channels: tuple = (128, 256, 512, 512)
    layers_per_block: int = 2
    latent_channels: int = 4
    norm_groups: int = 32

    @classmethod
    def from_weights(
        cls, state_dict: StateDict, prefix: str = "", config: Mapping[str, Any] | None = None
    ) -> "SpatialConfig":
        """The configuration of the 2D VAE whose keys begin with `prefix`; `config` may give spatial_norm_groups."""
        groups = (config or {}).get("spatial_norm_groups") or cls.norm_groups
        encoder = re.escape(f"{prefix}encoder.")
        levels = count_blocks(state_dict, encoder + r"down_blocks\.(\d+)\.")
        return cls(
            block_out_channels=tuple(
                shape_of(state_dict, f"{prefix}encoder.down_blocks.{i}.resnets.0.norm2.weight", 1, (groups,))[0]
                for i in range(levels)
            ),
            layers_per_block=count_blocks(state_dict, encoder + r"down_blocks\.0\.resnets\.(\d+)\."),
            latent_channels=shape_of(state_dict, f"{prefix}encoder.conv_out.weight", 4, (8,))[0] // 2,
            norm_groups=groups,
        )


def modern_keys(state_dict: StateDict) -> dict[str, Tensor]:
    """Rename the attention keys of older diffusers files (query, key, value, proj_attn) to today's."""

    def rename(key):
        return re.sub(r"(attentions\.\d+)\.(query|key|value|proj_attn)\.", lambda m: f"{m[1]}.{OLD_NAMES[m[2]]}.", key)

    return {rename(key): value for key, value in state_dict.items()}


class Resnet(nn.Module):
    """norm, SiLU, conv, twice, plus the input."""

    def __init__(self, channels_in: int, channels_out: int, groups: int, ops: Any, **weights: Any) -> None:
        super().__init__()
        self.norm1 = ops.GroupNorm(groups, channels_in, eps=1e-6, **weights)
        self.conv1 = ops.Conv2d(channels_in, channels_out, 3, padding=1, **weights)
        self.norm2 = ops.GroupNorm(groups, channels_out, eps=1e-6, **weights)
        self.conv2 = ops.Conv2d(channels_out, channels_out, 3, padding=1, **weights)
        same = channels_in == channels_out
        self.conv_shortcut = None if same else ops.Conv2d(channels_in, channels_out, 1, **weights)

    def forward(self, x: Tensor) -> Tensor:
        norm1 = known(self.norm1, x)
        h = row_wise(lambda x: self.conv1(silu(norm1(x))), x)
        norm2 = known(self.norm2, h)
        return row_wise(lambda h, x: self.conv2(silu(norm2(h))).add_(self._shortcut(x)), h, x)

    def _shortcut(self, x):
        return x if self.conv_shortcut is None else self.conv_shortcut(x)


class Attention(nn.Module):
    """Single-head attention over the pixels of the lowest resolution."""

    def __init__(self, channels: int, groups: int, ops: Any, **weights: Any) -> None:
        super().__init__()
        self.group_norm = ops.GroupNorm(groups, channels, eps=1e-6, **weights)
        self.to_q = ops.Linear(channels, channels, **weights)
        self.to_k = ops.Linear(channels, channels, **weights)
        self.to_v = ops.Linear(channels, channels, **weights)
        self.to_out = nn.ModuleList([ops.Linear(channels, channels, **weights)])

    def forward(self, x: Tensor) -> Tensor:
        return whole(self._attend, x)

    def _attend(self, x):
        pixels = self.group_norm(x).flatten(2).transpose(1, 2)[:, None]
        h = F.scaled_dot_product_attention(self.to_q(pixels), self.to_k(pixels), self.to_v(pixels))
        return x + self.to_out[0](h[:, 0]).transpose(1, 2).unflatten(2, x.shape[2:])


class Middle(nn.Module):
    """Residual block, attention, residual block."""

    def __init__(self, channels: int, groups: int, ops: Any, **weights: Any) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([Attention(channels, groups, ops, **weights)])
        self.resnets = nn.ModuleList(Resnet(channels, channels, groups, ops, **weights) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Downsample(nn.Module):
    """Stride-2 convolution, padded on the right and at the bottom only."""

    def __init__(self, channels: int, ops: Any, **weights: Any) -> None:
        super().__init__()
        self.conv = ops.Conv2d(channels, channels, 3, stride=2, **weights)

    def forward(self, x: Tensor) -> Tensor:
        return row_wise(lambda x: self.conv(F.pad(x, (0, 1, 0, 1))), x, rows=x.shape[-2] // 2)


class Upsample(nn.Module):
    """Nearest-neighbour doubling, then a convolution."""

    def __init__(self, channels: int, ops: Any, **weights: Any) -> None:
        super().__init__()
        self.conv = ops.Conv2d(channels, channels, 3, padding=1, **weights)

    def forward(self, x: Tensor) -> Tensor:
        return row_wise(lambda x: doubled(self.conv, x), x, rows=2 * x.shape[-2], growth=4)


class Level(nn.Module):
    """Residual blocks of one resolution, then a change of resolution or none."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        layers: int,
        groups: int,
        ops: Any,
        resample: type[nn.Module] | None,
        **weights: Any,
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            Resnet(channels_in if i == 0 else channels_out, channels_out, groups, ops, **weights) for i in range(layers)
        )
        if resample is Downsample:
            self.downsamplers = nn.ModuleList([Downsample(channels_out, ops, **weights)])
        elif resample is Upsample:
            self.upsamplers = nn.ModuleList([Upsample(channels_out, ops, **weights)])

    def layers(self) -> list[nn.Module]:
        """Its layers in order; whoever runs them holds no feature map but the last."""
        return [*self.resnets, *getattr(self, "downsamplers", ()), *getattr(self, "upsamplers", ())]


class Encoder(nn.Module):
    """[B, 3, H, W] in -1…1 to the posterior's moments [B, 2 · latent, H / 8, W / 8]."""

    def __init__(self, config: SpatialConfig, ops: Any, **weights: Any) -> None:
        super().__init__()
        channels, groups, layers = config.block_out_channels, config.norm_groups, config.layers_per_block
        last = len(channels) - 1
        self.conv_in = ops.Conv2d(3, channels[0], 3, padding=1, **weights)
        self.down_blocks = nn.ModuleList(
            Level(
                channels[max(i - 1, 0)], channels[i], layers, groups, ops, Downsample if i < last else None, **weights
            )
            for i in range(len(channels))
        )
        self.mid_block = Middle(channels[-1], groups, ops, **weights)
        self.conv_norm_out = ops.GroupNorm(groups, channels[-1], eps=1e-6, **weights)
        self.conv_out = ops.Conv2d(channels[-1], 2 * config.latent_channels, 3, padding=1, **weights)

    def forward(self, x: Tensor) -> Tensor:
        x = row_wise(self.conv_in, x)
        for level in self.down_blocks:
            for layer in cast(Level, level).layers():
                x = layer(x)
        x = self.mid_block(x)
        norm = known(self.conv_norm_out, x)
        return row_wise(lambda x: self.conv_out(silu(norm(x))), x)


class Decoder(nn.Module):
    """Latents [B, latent, H / 8, W / 8] to pixels [B, 3, H, W]."""

    def __init__(self, config: SpatialConfig, ops: Any, **weights: Any) -> None:
        super().__init__()
        channels, groups, layers = config.block_out_channels[::-1], config.norm_groups, config.layers_per_block + 1
        last = len(channels) - 1
        self.conv_in = ops.Conv2d(config.latent_channels, channels[0], 3, padding=1, **weights)
        self.mid_block = Middle(channels[0], groups, ops, **weights)
        self.up_blocks = nn.ModuleList(
            Level(channels[max(i - 1, 0)], channels[i], layers, groups, ops, Upsample if i < last else None, **weights)
            for i in range(len(channels))
        )
        self.conv_norm_out = ops.GroupNorm(groups, channels[-1], eps=1e-6, **weights)
        self.conv_out = ops.Conv2d(channels[-1], 3, 3, padding=1, **weights)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid_block(row_wise(self.conv_in, z))
        for level in self.up_blocks:
            for layer in cast(Level, level).layers():
                x = layer(x)
        norm = known(self.conv_norm_out, x)
        return row_wise(lambda x: self.conv_out(silu(norm(x))), x)


class AutoencoderKL(nn.Module):
    """Encoder and decoder of single images with a Gaussian posterior between them."""

    def __init__(self, config: SpatialConfig = SpatialConfig(), operations: Any = nn, **weights: Any) -> None:
        super().__init__()
        latent = config.latent_channels
        self.encoder = Encoder(config, operations, **weights)
        self.decoder = Decoder(config, operations, **weights)
        self.quant_conv = operations.Conv2d(2 * latent, 2 * latent, 1, **weights)
        self.post_quant_conv = operations.Conv2d(latent, latent, 1, **weights)

    def encode(self, images: Tensor) -> Tensor:
        """Posterior moments (mean, then log variance) of images [B, 3, H, W]."""
        return self.quant_conv(placed(self.encoder(images)))

    def decode(self, latents: Tensor) -> Tensor:
        """Images [B, 3, 8 h, 8 w] from latents [B, C, h, w]."""
        return self.decoder(self.post_quant_conv(placed(latents)))


def draw_posterior(moments: Tensor, noise: Tensor | None = None) -> Tensor:
    """The Gaussian's mode, or with `noise` (shape of the mean) a sample of it; moments [B, 2C, …]."""
    mean, log_variance = moments.chunk(2, dim=1)
    if noise is None:
        return mean
    return mean + torch.exp(0.5 * log_variance.clamp(-30.0, 20.0)) * noise


def draws(noise: torch.Generator | Callable[..., Tensor] | None) -> Callable[..., Tensor | None]:
    """Turn a VAE's noise argument into (kind, index, moments) -> the draw for a posterior, or None for its mode."""
    if noise is None:
        return lambda kind, index, moments: None

    def draw(kind, index, moments):
        shape = (moments.shape[0], moments.shape[1] // 2, *moments.shape[2:])
        if isinstance(noise, torch.Generator):
            return torch.randn(shape, generator=noise, device=noise.device).to(moments)
        return noise(kind, index, shape).to(moments)

    return draw


MODE = draws(None)


def encode_frames(
    autoencoder: AutoencoderKL, video: Tensor, draw: Callable[..., Tensor | None] = MODE, at_once: int = IMAGES_AT_ONCE
) -> Tensor:
    """Each frame through the 2D VAE: [B, 3, T, H, W] to [B, C, T, H / 8, W / 8], scaled to about unit variance."""
    latents = []
    for index, images in enumerate(rearrange(video, "B C T H W -> (B T) C H W").split(at_once)):
        moments = autoencoder.encode(images)
        latents.append(draw_posterior(moments, draw("spatial", index, moments)) * SPATIAL_FACTOR)
    return rearrange(torch.cat(latents), "(B T) C H W -> B C T H W", B=video.shape[0])


def decode_frames(autoencoder: AutoencoderKL, x: Tensor, at_once: int = IMAGES_AT_ONCE) -> Tensor:
    """Each 2D latent to its frame: [B, C, T, h, w] to [B, 3, T, 8 h, 8 w]."""
    images = rearrange(x, "B C T H W -> (B T) C H W").split(at_once)
    frames = torch.cat([autoencoder.decode(image / SPATIAL_FACTOR) for image in images])
    return rearrange(frames, "(B T) C H W -> B C T H W", B=x.shape[0])
