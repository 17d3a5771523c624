"""Encoder and decoder of the 1.3 VAE: causal 3D convolutions, and one attention in the middle.

After MAGVIT-v2 (Yu et al. 2023). Defined by https://github.com/hpcaitech/Open-Sora (branch opensora/v1.3).
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .causal import CausalConv3d, silu_behind
from .doubling import doubled
from .slicing import known, row_wise, silu, whole

FRAMES_AT_ONCE = 4  # the purely spatial convolutions run on so many frames at a time, to bound memory


class ResBlock(nn.Module):
    """norm, SiLU, convolution, twice, plus the input."""

    def __init__(self, channels_in: int, channels_out: int, groups: int, ops: Any, **weights: Any) -> None:
        super().__init__()
        self.norm1 = ops.GroupNorm(groups, channels_in, eps=1e-6, **weights)
        self.conv1 = CausalConv3d(channels_in, channels_out, 3, ops, **weights)
        self.norm2 = ops.GroupNorm(groups, channels_out, eps=1e-6, **weights)
        self.conv2 = CausalConv3d(channels_out, channels_out, 3, ops, **weights)
        same = channels_in == channels_out
        self.nin_shortcut = None if same else CausalConv3d(channels_in, channels_out, 1, ops, **weights)

    def forward(self, x: Tensor) -> Tensor:
        norm1 = known(self.norm1, x)
        h = row_wise(lambda x: self.conv1.of_silu(norm1(x)), x)
        norm2 = known(self.norm2, h)
        return row_wise(lambda h, x: self.conv2.of_silu(norm2(h)).add_(self._shortcut(x)), h, x)

    def _shortcut(self, x):
        return x if self.nin_shortcut is None else self.nin_shortcut(x)


class Attention(nn.Module):
    """Single-head attention over all pixels of all frames, each seeing those before it in reading order."""

    def __init__(self, channels: int, groups: int, ops: Any, **weights: Any) -> None:
        super().__init__()
        self.norm = ops.GroupNorm(groups, channels, eps=1e-6, **weights)
        self.q = CausalConv3d(channels, channels, 1, ops, **weights)
        self.k = CausalConv3d(channels, channels, 1, ops, **weights)
        self.v = CausalConv3d(channels, channels, 1, ops, **weights)
        self.proj_out = CausalConv3d(channels, channels, 1, ops, **weights)

    def forward(self, x: Tensor) -> Tensor:
        return whole(self._attend, x)

    def _attend(self, x):
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2).transpose(1, 2)[:, None].contiguous() for layer in (self.q, self.k, self.v))
        h = F.scaled_dot_product_attention(q, k, v, is_causal=True)[:, 0]
        return self.proj_out(h.transpose(1, 2).unflatten(2, x.shape[2:])).add_(x)


class Middle(nn.Module):
    """Residual block, attention, residual block."""

    def __init__(self, channels: int, groups: int, ops: Any, **weights: Any) -> None:
        super().__init__()
        self.block_1 = ResBlock(channels, channels, groups, ops, **weights)
        self.attn_1 = Attention(channels, groups, ops, **weights)
        self.block_2 = ResBlock(channels, channels, groups, ops, **weights)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


def _by_frames(function, x):
    """Run `function` on a video's frames as images [N, C, H, W], some at a time."""
    frames = rearrange(x, "B C T H W -> (B T) C H W").split(FRAMES_AT_ONCE)
    return rearrange(torch.cat([function(images) for images in frames]), "(B T) C H W -> B C T H W", B=x.shape[0])


class Downsample2D(nn.Module):
    """Stride-2 convolution of every frame, padded on the right and at the bottom only."""

    def __init__(self, channels: int, ops: Any, **weights: Any) -> None:
        super().__init__()
        self.conv = ops.Conv2d(channels, channels, 3, stride=2, **weights)

    def forward(self, x: Tensor) -> Tensor:
        def halved(x):
            return _by_frames(lambda images: self.conv(F.pad(images, (0, 1, 0, 1))), x)

        return row_wise(halved, x, rows=x.shape[-2] // 2)


class Downsample3D(nn.Module):
    """Causal convolution of stride 2 in space and time; the first frame stays a frame of its own."""

    def __init__(self, channels: int, ops: Any, **weights: Any) -> None:
        super().__init__()
        self.conv = CausalConv3d(channels, channels, 3, ops, stride=2, **weights)

    def forward(self, x: Tensor) -> Tensor:
        return row_wise(self.conv, x, rows=-(-x.shape[-2] // 2))


class Upsample2D(nn.Module):
    """Nearest-neighbour doubling of every frame, then a convolution."""

    def __init__(self, channels: int, ops: Any, **weights: Any) -> None:
        super().__init__()
        self.conv = ops.Conv2d(channels, channels, 3, padding=1, **weights)

    def forward(self, x: Tensor) -> Tensor:
        return row_wise(lambda x: doubled(self.conv, x), x, rows=2 * x.shape[-2], growth=4)


class UpsampleBlock(nn.Module):
    """Doubled input: convolution, norm, SiLU, convolution, norm, plus the doubled input, SiLU, plus it once more."""

    def __init__(self, channels: int, groups: int, ops: Any, **weights: Any) -> None:
        super().__init__()
        self.conv1 = CausalConv3d(channels, channels, 3, ops, **weights)
        self.norm1 = ops.GroupNorm(groups, channels, eps=1e-5, **weights)
        self.conv2 = CausalConv3d(channels, channels, 3, ops, **weights)
        self.norm2 = ops.GroupNorm(groups, channels, eps=1e-5, **weights)

    def forward(self, x: Tensor) -> Tensor:
        def joined(h, x):
            h = norm2(h)
            _cells(h).add_(_cells(x, 1))
            h = silu(h)
            _cells(h).add_(_cells(x, 1))
            return h

        h = row_wise(lambda x: doubled(self.conv1.conv, x), x, rows=2 * x.shape[-2], growth=8)
        norm1 = known(self.norm1, h)
        h = row_wise(lambda h: self.conv2.of_silu(norm1(h)), h)
        norm2 = known(self.norm2, h)
        return row_wise(joined, h, x)


def _cells(x, size=2):
    """A view of x [B, C, T, H, W] as [B, C, T / size, size, H / size, size, W / size, size]."""
    return x.unflatten(4, (-1, size)).unflatten(3, (-1, size)).unflatten(2, (-1, size))


class Upsample3D(nn.Module):
    """Nearest-neighbour doubling of space and time, then a residual block of its own kind."""

    def __init__(self, channels: int, groups: int, ops: Any, **weights: Any) -> None:
        super().__init__()
        self.conv3d = UpsampleBlock(channels, groups, ops, **weights)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3d(x)


class Level(nn.Module):
    """Residual blocks of one resolution, then the change of resolution that `resample` names, or none."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        blocks: int,
        groups: int,
        ops: Any,
        resample: tuple[str, nn.Module] | None = None,
        **weights: Any,
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            ResBlock(channels_in if i == 0 else channels_out, channels_out, groups, ops, **weights)
            for i in range(blocks)
        )
        if resample is not None:
            name, module = resample
            self.add_module(name, module)

    def layers(self) -> list[nn.Module]:
        """Its layers in order; whoever runs them holds no feature map but the last."""
        return [*self.block, *(getattr(self, name) for name in ("downsample", "upsample") if hasattr(self, name))]


class Encoder(nn.Module):
    """[B, 3, T, H, W] in -1…1 to the posterior's moments [B, 2 · latent, ⌈T / 4⌉, H / 8, W / 8]."""

    def __init__(self, config: Any, ops: Any, **weights: Any) -> None:
        super().__init__()
        groups, widths = config.norm_groups, (config.stem, *config.widths)

        def resample(level):
            if level == len(config.widths) - 1:
                return None
            kind = Downsample3D if level in config.time_down else Downsample2D
            return "downsample", kind(config.widths[level], ops, **weights)

        self.conv_in = CausalConv3d(3, config.stem, 3, ops, **weights)
        self.down = nn.ModuleList(
            Level(widths[i], widths[i + 1], config.num_res_blocks, groups, ops, resample(i), **weights)
            for i in range(len(config.widths))
        )
        self.mid = Middle(widths[-1], groups, ops, **weights)
        self.norm_out = ops.GroupNorm(groups, widths[-1], eps=1e-6, **weights)
        self.conv_out = CausalConv3d(widths[-1], 2 * config.latent_channels, 3, ops, **weights)

    def forward(self, x: Tensor) -> Tensor:
        x = row_wise(self.conv_in, x)
        for level in self.down:
            for layer in cast(Level, level).layers():
                x = layer(x)
        x = self.mid(x)
        norm = known(self.norm_out, x)
        return row_wise(lambda x: self.conv_out.of_silu(norm(x)), x)


class Decoder(nn.Module):
    """Latents [B, latent, T, h, w] to [B, 3, 4 T - 3, 8 h, 8 w]: the frames before the first latent's own go."""

    def __init__(self, config: Any, ops: Any, **weights: Any) -> None:
        super().__init__()
        groups, widths = config.norm_groups, (*config.widths, config.widths[-1])
        self.excess = 2 ** len(config.time_up) - 1

        def resample(level):
            if level == 0:
                return None
            if level in config.time_up:
                return "upsample", Upsample3D(config.widths[level], groups, ops, **weights)
            return "upsample", Upsample2D(config.widths[level], ops, **weights)

        self.conv_in = CausalConv3d(config.latent_channels, widths[-1], 3, ops, **weights)
        self.mid = Middle(widths[-1], groups, ops, **weights)
        self.up = nn.ModuleList(
            Level(widths[i + 1], widths[i], config.num_res_blocks + 1, groups, ops, resample(i), **weights)
            for i in range(len(config.widths))
        )
        self.norm_out = ops.GroupNorm(groups, widths[0], eps=1e-6, **weights)
        self.conv_out = ops.Conv3d(widths[0], 3, 3, padding=(0, 1, 1), **weights)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid(row_wise(self.conv_in, z))
        for level in reversed(self.up):
            for layer in cast(Level, level).layers():
                x = layer(x)
        norm = known(self.norm_out, x)
        return row_wise(lambda x: self.conv_out(silu_behind(norm(x), 2)), x)[:, :, self.excess :]
