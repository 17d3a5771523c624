"""The causal 3D autoencoder that compresses time fourfold between the 2D VAE's latents (Open-Sora 1.2).

After MAGVIT-v2's tokenizer (Yu et al. 2023): residual blocks of causal convolutions, padded with zeros in front.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..shapes_of import StateDict, count_blocks, shape_of
from .causal import CausalConv3d


@dataclass(frozen=True)
class TemporalConfig:
    """Configuration of the temporal VAE; `temporal_downsample` tells which steps between levels halve the time axis."""

    channels: int = 4
    latent_channels: int = 4
    filters: int = 128
    channel_multipliers: tuple = (1, 2, 2, 4)
    num_res_blocks: int = 4
    temporal_downsample: tuple = (False, True, True)
    norm_groups: int = 32

    @classmethod
    def from_weights(
        cls, state_dict: StateDict, prefix: str = "", config: Mapping[str, Any] | None = None
    ) -> "TemporalConfig":
        """The configuration of the temporal VAE behind `prefix`; `config` may give temporal_norm_groups."""
        encoder = f"{prefix}encoder."
        levels = count_blocks(state_dict, re.escape(encoder) + r"block_res_blocks\.(\d+)\.")
        filters, channels, *_ = shape_of(state_dict, f"{encoder}conv_in.conv.weight", 5, (cls.filters, cls.channels))
        return cls(
            channels=channels,
            latent_channels=shape_of(state_dict, f"{prefix}post_quant_conv.conv.weight", 5, (cls.latent_channels,))[0],
            filters=filters,
            channel_multipliers=tuple(
                shape_of(state_dict, f"{encoder}block_res_blocks.{i}.0.conv1.conv.weight", 5, (filters,))[0] // filters
                for i in range(levels)
            ),
            num_res_blocks=count_blocks(state_dict, re.escape(encoder) + r"block_res_blocks\.0\.(\d+)\."),
            temporal_downsample=tuple(
                any(f"{encoder}conv_blocks.{i}.conv.{part}" in state_dict for part in ("weight", "bias"))
                for i in range(levels - 1)
            ),
            norm_groups=(config or {}).get("temporal_norm_groups") or cls.norm_groups,
        )


class ResBlock(nn.Module):
    """norm, SiLU, convolution, twice, plus the input."""

    def __init__(self, channels_in: int, channels_out: int, groups: int, ops: Any, **weights: Any) -> None:
        super().__init__()
        self.norm1 = ops.GroupNorm(groups, channels_in, eps=1e-5, **weights)
        self.conv1 = CausalConv3d(channels_in, channels_out, 3, ops, bias=False, **weights)
        self.norm2 = ops.GroupNorm(groups, channels_out, eps=1e-5, **weights)
        self.conv2 = CausalConv3d(channels_out, channels_out, 3, ops, bias=False, **weights)
        same = channels_in == channels_out
        self.conv3 = None if same else CausalConv3d(channels_in, channels_out, 1, ops, bias=False, **weights)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1.of_silu(self.norm1(x))
        h = self.conv2.of_silu(self.norm2(h))
        return h.add_(x if self.conv3 is None else self.conv3(x))


def _res_blocks(channels_in, channels_out, config, ops, weights):
    return nn.ModuleList(
        ResBlock(channels_in if i == 0 else channels_out, channels_out, config.norm_groups, ops, **weights)
        for i in range(config.num_res_blocks)
    )


class Encoder(nn.Module):
    """[B, C, T, h, w] to features [B, 2 · latent, T / 4, h, w]."""

    def __init__(self, config: TemporalConfig, ops: Any, **weights: Any) -> None:
        super().__init__()
        widths = [config.filters * m for m in config.channel_multipliers]
        self.conv_in = CausalConv3d(config.channels, config.filters, 3, ops, bias=False, **weights)
        self.block_res_blocks = nn.ModuleList(
            _res_blocks(widths[i - 1] if i else config.filters, width, config, ops, weights)
            for i, width in enumerate(widths)
        )
        self.conv_blocks = nn.ModuleList(
            # A frame less in front than a convolution of every frame has.
            CausalConv3d(width, width, 3, ops, stride=(2, 1, 1), ahead=1, **weights) if halve else nn.Identity()
            for width, halve in zip(widths, config.temporal_downsample)
        )
        self.res_blocks = _res_blocks(widths[-1], widths[-1], config, ops, weights)
        self.norm1 = ops.GroupNorm(config.norm_groups, widths[-1], eps=1e-5, **weights)
        self.conv2 = CausalConv3d(widths[-1], 2 * config.latent_channels, 1, ops, **weights)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level, blocks in enumerate(self.block_res_blocks):
            for block in cast(nn.ModuleList, blocks):
                x = block(x)
            if level < len(self.conv_blocks):
                x = self.conv_blocks[level](x)
        for block in self.res_blocks:
            x = block(x)
        return self.conv2.of_silu(self.norm1(x))


class Decoder(nn.Module):
    """Latents [B, latent, T / 4, h, w] to [B, C, T, h, w]; time grows by unfolding channels."""

    def __init__(self, config: TemporalConfig, ops: Any, **weights: Any) -> None:
        super().__init__()
        widths = [config.filters * m for m in config.channel_multipliers]
        self.temporal_upsample = config.temporal_downsample
        self.conv1 = CausalConv3d(config.latent_channels, widths[-1], 3, ops, **weights)
        self.res_blocks = _res_blocks(widths[-1], widths[-1], config, ops, weights)
        self.block_res_blocks = nn.ModuleList(
            _res_blocks(widths[min(i + 1, len(widths) - 1)], width, config, ops, weights)
            for i, width in enumerate(widths)
        )
        self.conv_blocks = nn.ModuleList(
            CausalConv3d(width, 2 * width, 3, ops, **weights) if double else nn.Identity()
            for width, double in zip(widths[1:], config.temporal_downsample)
        )
        self.norm1 = ops.GroupNorm(config.norm_groups, widths[0], eps=1e-5, **weights)
        self.conv_out = CausalConv3d(widths[0], config.channels, 3, ops, **weights)

    def forward(self, z: Tensor) -> Tensor:
        x = self.conv1(z)
        for block in self.res_blocks:
            x = block(x)
        for level in reversed(range(len(self.block_res_blocks))):
            for block in cast(nn.ModuleList, self.block_res_blocks[level]):
                x = block(x)
            if level > 0:
                x = self.conv_blocks[level - 1](x)
                if self.temporal_upsample[level - 1]:
                    x = rearrange(x, "B (C two) T H W -> B C (T two) H W", two=2)
        return self.conv_out.of_silu(self.norm1(x))


class TemporalVAE(nn.Module):
    """Compresses one chunk of frames; `encode` and `decode` work on 2D-VAE latents."""

    def __init__(self, config: TemporalConfig = TemporalConfig(), operations: Any = nn, **weights: Any) -> None:
        super().__init__()
        latent = config.latent_channels
        self.factor = 2 ** sum(config.temporal_downsample)
        self.encoder = Encoder(config, operations, **weights)
        self.decoder = Decoder(config, operations, **weights)
        self.quant_conv = CausalConv3d(2 * latent, 2 * latent, 1, operations, **weights)
        self.post_quant_conv = CausalConv3d(latent, latent, 1, operations, **weights)

    def encode(self, x: Tensor) -> Tensor:
        """Posterior moments [B, 2C, ⌈T / 4⌉, h, w] of x [B, C, T, h, w]; zero frames fill it up in front."""
        x = F.pad(x, (0, 0, 0, 0, -x.shape[2] % self.factor, 0))
        return self.quant_conv(self.encoder(x))

    def decode(self, z: Tensor, num_frames: int) -> Tensor:
        """`num_frames` 2D latents [B, C, num_frames, h, w] from z [B, C, ⌈num_frames / 4⌉, h, w]."""
        return self.decoder(self.post_quant_conv(z))[:, :, -num_frames % self.factor :]
