"""Layers shared by the transformers of this family: embeddings, attention, modulation.

Layers take `operations`, a namespace with Linear and the like (torch.nn, or a host's), and `weights`: dtype and device.
Its Linear is given tokens as [B, N, C]: a host's products in fp8 know no more dimensions.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .kernels import PLAIN, Rotation, is_watched

Attention = Callable[..., Tensor] | None  # (q, k, v, mask) -> what was read, as `matmul_attention`; None: the fused one
Mask = Tensor | None  # None: nothing is masked
FEW_CLIPS = 4  # that attend across frames one by one rather than in a copy


def matmul_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention written out: softmax(q kᵀ / √d) v.

    q, k, v are [B, heads, N, head_dim]; mask is bool and broadcasts to [B, heads, N, M], True where a query may attend.
    On a CPU its backward pass is faster than the fused kernel's for the short sequences of small models.
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.float().softmax(dim=-1).to(v.dtype) @ v


def fused_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """PyTorch's fused attention; shapes as in `matmul_attention`."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _timestep_frequencies():
    """The 128 frequencies exp(-ln(10000) · i / 128) of the timestep embedding, fp32, bit for bit the original's.

    At t = 1000 the last bit of a frequency turns an angle by 6e-5, so it shows in the output (1e-6 of its range). We
    round the exponential correctly and the same way on every machine; 13 and 44 lie within 3% of a tie, where the
    vectorised exponential that the reference runs used rounds up.
    """
    exponents = -math.log(10000.0) * torch.arange(128, dtype=torch.float32) / 128
    frequencies = exponents.double().exp().float()
    for index in (13, 44):
        frequencies[index] = torch.nextafter(frequencies[index], torch.tensor(math.inf))
    return frequencies


TIMESTEP_FREQUENCIES = _timestep_frequencies()  # made once, so that compiled networks find them ready


def sinusoidal_embedding(values: Tensor) -> Tensor:
    """Embed scalars [B] as [B, 256]: cosines first, then sines, always in fp32 (Vaswani et al. 2017, as in DiT)."""
    angles = values.float()[:, None] * TIMESTEP_FREQUENCIES.to(values.device)[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def position_embedding_2d(
    dim: int, height: int, width: int, scale: float, base_size: int, device: torch.device | str | None = None
) -> Tensor:
    """Sine-cosine positions of a token grid, [1, height * width, dim] in fp32.

    The grid is stretched to `base_size` tokens a side and divided by `scale`, the image's side relative to the
    resolution the model was born at, so that one checkpoint serves every size (Open-Sora 1.1 and later).
    Width comes before height in the channels, sines before cosines.
    """
    frequencies = rope_frequencies(dim // 2, device=device)

    def axis(length):
        positions = torch.arange(length, device=device) / scale * (base_size / length)
        angles = positions[:, None] * frequencies[None].to(positions)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    across, down = axis(width), axis(height)
    grid = torch.cat([across[None].expand(height, -1, -1), down[:, None].expand(-1, width, -1)], dim=-1)
    return grid.reshape(1, height * width, dim)


def sincos_table(positions: Tensor, dim: int) -> Tensor:
    """Fixed positions [N] as [N, dim] in fp32, sines before cosines, worked out in fp64 on the CPU (MAE, DiT)."""
    half = dim // 2
    frequencies = 10000.0 ** -(torch.arange(half, dtype=torch.float64) / half)
    angles = positions.double().cpu()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1).float()


def rope_frequencies(dim: int, device: torch.device | str | None = None) -> Tensor:
    """The dim // 2 rotary frequencies of Su et al. 2021, fp32."""
    return 1.0 / (10000.0 ** (torch.arange(0, dim, 2, device=device).float() / dim))


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension, in fp32 whatever the model's dtype (Zhang & Sennrich 2019)."""

    def __init__(self, dim: int, eps: float = 1e-6, **weights: Any) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim, **weights))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight.to(dtype=x.dtype, device=x.device), self.eps)

    def over(self, x: Tensor) -> Tensor:
        """The same of x in fp32, written over it: fewer passes where there is no fused kernel, as on a CPU."""
        factor = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(self.eps).rsqrt_()
        return x.mul_(factor).mul_(self.weight.to(x))


def attend(attention: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention within each row of N tokens: q, k, v [B, R, N, heads, head_dim] to [B · R, N, heads · head_dim].

    Where the rows of all clips are one batch only as a copy, a few clips go one by one, on views: unless `attention`
    wants to see all (`patched`).
    """

    def rows(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), None)
        return out.transpose(1, 2).flatten(2)

    B, R = q.shape[:2]
    if q.stride(0) != R * q.stride(1) and B <= FEW_CLIPS and not getattr(attention, "patched", False):
        return torch.cat([rows(*clip) for clip in zip(q, k, v)])
    return rows(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1))


class SelfAttention(nn.Module):
    """Multi-head self-attention over x [B, T, S, C]: within each frame, or across the frames of each place.

    Queries and keys are normalised where `qk_norm` is on. Positions turn them after the norm; before it with
    `rope_first`, the order that Open-Sora 1.1 was trained with.
    """

    rope_first = False
    kernels = PLAIN

    def __init__(
        self, dim: int, num_heads: int, qk_norm: bool, operations: Any, attention: Attention, **weights: Any
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention: Callable[..., Tensor] = attention or fused_attention
        self.qkv = operations.Linear(dim, 3 * dim, **weights)
        self.q_norm = RMSNorm(dim // num_heads, **weights) if qk_norm else nn.Identity()
        self.k_norm = RMSNorm(dim // num_heads, **weights) if qk_norm else nn.Identity()
        self.proj = operations.Linear(dim, dim, **weights)

    def heads(self, x: Tensor, rotation: Rotation | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of x [B, T, S, C], each [B, T, S, heads, head_dim]; `rotation`: see `Kernels`."""
        qkv = self.qkv(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        if is_watched(self.qkv):  # and what a hook was given stays as it is
            qkv = qkv.clone()
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).unbind(-3)
        q, k = self.kernels.heads(q, k, self.q_norm, self.k_norm, rotation, self.rope_first)
        return q, k, v

    def forward(self, x: Tensor, rotation: Rotation | None = None, across_frames: bool = False) -> Tensor:
        if not across_frames:
            return self.proj(attend(self.attention, *self.heads(x, rotation))).unflatten(0, x.shape[:2])
        q, k, v = (each.transpose(1, 2) for each in self.heads(x, rotation))
        return self.proj(attend(self.attention, q, k, v)).unflatten(0, (len(x), -1)).transpose(1, 2)


class CrossAttention(nn.Module):
    """Video tokens [B, N, C] attend to caption tokens [B, L, C]; mask is bool [B, 1, 1, L] or None."""

    def __init__(self, dim: int, num_heads: int, operations: Any, attention: Attention, **weights: Any) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention: Callable[..., Tensor] = attention or fused_attention
        self.q_linear = operations.Linear(dim, dim, **weights)
        self.kv_linear = operations.Linear(dim, 2 * dim, **weights)
        self.proj = operations.Linear(dim, dim, **weights)

    def forward(self, x: Tensor, caption: Tensor, mask: Tensor | None = None) -> Tensor:
        q = self.q_linear(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        k, v = self.kv_linear(caption).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(self.attention(q, k, v, mask).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Linear, tanh-GELU, Linear, of [B, N, C] or [B, T, S, C]."""

    kernels = PLAIN

    def __init__(self, dim: int, hidden_dim: int, out_dim: int, operations: Any, **weights: Any) -> None:
        super().__init__()
        self.fc1 = operations.Linear(dim, hidden_dim, **weights)
        self.fc2 = operations.Linear(hidden_dim, out_dim, **weights)

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc2(self.kernels.linear_gelu(self.fc1, x.flatten(1, -2)))
        return h.unflatten(1, x.shape[1:-1])


class ScalarEmbedder(nn.Module):
    """A scalar per sample (timestep, frames per second) to [B, hidden_size]: sinusoids, Linear, SiLU, Linear."""

    def __init__(self, hidden_size: int, operations: Any, **weights: Any) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            operations.Linear(256, hidden_size, **weights),
            nn.SiLU(),
            operations.Linear(hidden_size, hidden_size, **weights),
        )

    def forward(self, values: Tensor, dtype: torch.dtype) -> Tensor:
        return self.mlp(sinusoidal_embedding(values).to(dtype))


class CaptionEmbedder(nn.Module):
    """Projects text features, and keeps the null caption that stands for "no prompt" in classifier-free guidance."""

    def __init__(
        self, caption_channels: int, hidden_size: int, max_length: int, operations: Any, **weights: Any
    ) -> None:
        super().__init__()
        self.y_proj = Mlp(caption_channels, hidden_size, hidden_size, operations, **weights)
        null_caption = torch.randn(max_length, caption_channels, device=weights.get("device")) / caption_channels**0.5
        self.register_buffer("y_embedding", null_caption.to(dtype=weights.get("dtype")))

    def forward(self, caption: Tensor) -> Tensor:
        return self.y_proj(caption)


class PatchEmbed3D(nn.Module):
    """Latents [B, C, T, H, W] to tokens [B, T, S, hidden_size]; sizes must be multiples of the patch."""

    def __init__(
        self, patch_size: tuple[int, ...], in_channels: int, hidden_size: int, operations: Any, **weights: Any
    ) -> None:
        super().__init__()
        self.proj = operations.Conv3d(in_channels, hidden_size, kernel_size=patch_size, stride=patch_size, **weights)

    def forward(self, x: Tensor) -> Tensor:
        # Contiguous: what is added to it keeps its layout, and every block would have to copy its tokens.
        return self.proj(x).flatten(3).permute(0, 2, 3, 1).contiguous()


class FinalLayer(nn.Module):
    """Modulated norm and the projection back to patches; modulation is by t itself, not by the block's t."""

    kernels = PLAIN

    def __init__(self, hidden_size: int, out_dim: int, operations: Any, **weights: Any) -> None:
        super().__init__()
        self.linear = operations.Linear(hidden_size, out_dim, **weights)
        self.scale_shift_table = nn.Parameter(torch.zeros(2, hidden_size, **weights))

    def forward(self, x: Tensor, t: Tensor, t_kept: Tensor | None = None, frame_mask: Tensor | None = None) -> Tensor:
        """x [B, T, S, C], t and t_kept [B, 1, C], frame_mask bool [B, T, 1, 1], True where t holds and not t_kept."""
        h = self._modulated(x, t)
        if frame_mask is not None:
            # Kept frames pass the norm twice: the original does so, and its released weights were trained with it.
            h = torch.where(frame_mask, h, self._modulated(h, t_kept))
        return self.linear(h.flatten(1, 2)).unflatten(1, x.shape[1:3])

    def _modulated(self, x, t):
        shift, scale = (self.scale_shift_table.to(x) + t[:, :, None]).unbind(2)
        return self.kernels.modulated_norm(x, shift, scale)


def repeat_rows(values: Tensor, rows: int) -> Tensor:
    """Repeat [b, …] to [rows, …]: guidance runs both halves of a batch on one set of sizes and masks."""
    values = torch.as_tensor(values)
    return values if values.shape[0] == rows else values.repeat(rows // values.shape[0], *[1] * (values.ndim - 1))


def rows_of(value: float | Tensor | None, otherwise: float, x: Tensor) -> Tensor:
    """One fp32 number for each row of x: `value` (a number, or [b], repeated), or `otherwise` where it is left out."""
    value = otherwise if value is None else value
    if isinstance(value, (int, float)):
        return torch.full((x.shape[0],), float(value), device=x.device)
    return repeat_rows(value, x.shape[0]).to(x.device).float()


def shared(value: float | Tensor | None, otherwise: float) -> float:
    """The plain number that all rows share: `value` (a number, or the first of [b]), or `otherwise`.

    A number costs nothing to read; of a tensor on a GPU, all that was queued there is waited for.
    """
    value = otherwise if value is None else value
    return float(value) if isinstance(value, (int, float)) else float(value[0])
