"""STDiT2, the spatial-temporal diffusion transformer of Open-Sora 1.1.

STDiT for any size and length: the network is told height, width, aspect ratio, number of frames and frames per second;
positions scale with the resolution, time is a rotation (rope), and attention over time has a norm and a modulation of
its own. Defined by https://github.com/hpcaitech/Open-Sora (branch opensora/v1.1; `qk_norm_legacy`: opensora/v1.2).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..frames import DEFAULT_FPS, IMAGE_FPS
from ..shapes_of import StateDict
from .kernels import PLAIN
from .layers import Attention, CrossAttention, Mask, Mlp, ScalarEmbedder, SelfAttention, rows_of
from .skeleton import ClipSizes, SizedConfig, SizedTransformer


@dataclass(frozen=True)
class STDiT2Config(SizedConfig):
    """Configuration of an STDiT2; field names are the original's configuration keys."""

    model_max_length: int = 200
    qk_norm_legacy: bool = True  # rotate, then normalise: what the released weights were trained with

    @classmethod
    def own(cls, state_dict: StateDict, config: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
        legacy = config.get("qk_norm_legacy")
        return super().own(state_dict, config, known) | {"qk_norm_legacy": True if legacy is None else bool(legacy)}


class STDiT2Block(nn.Module):
    """Attention over space, attention over time, cross-attention to the caption, MLP."""

    kernels = PLAIN

    def __init__(self, config: STDiT2Config, operations: Any, attention: Attention, **weights: Any) -> None:
        super().__init__()
        size, heads = config.hidden_size, config.num_heads
        self.attn = SelfAttention(size, heads, config.qk_norm, operations, attention, **weights)
        self.attn_temp = SelfAttention(size, heads, config.qk_norm, operations, attention, **weights)
        self.attn_temp.rope_first = config.qk_norm_legacy
        self.cross_attn = CrossAttention(size, heads, operations, attention, **weights)
        self.mlp = Mlp(size, round(size * config.mlp_ratio), size, operations, **weights)
        self.scale_shift_table = nn.Parameter(torch.zeros(6, size, **weights))
        self.scale_shift_table_temporal = nn.Parameter(torch.zeros(3, size, **weights))

    def forward(
        self, x: Tensor, caption: Tensor, t_spatial: Tensor, t_temporal: Tensor, rotation: Tensor,
        caption_mask: Mask = None,
    ) -> Tensor:  # fmt: skip
        """x [B, T, S, C]; caption [B, L, C]; t_spatial [B, T or 1, 6, C]; t_temporal [B, T or 1, 3, C]."""
        modulation = self.scale_shift_table.to(x) + t_spatial
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = modulation.unbind(2)
        shift_time, scale_time, gate_time = (self.scale_shift_table_temporal.to(x) + t_temporal).unbind(2)
        modulated_norm, gated_sum = self.kernels.modulated_norm, self.kernels.gated_sum

        x = gated_sum(x, self.attn(modulated_norm(x, shift_attn, scale_attn)), gate_attn)
        x = gated_sum(x, self.attn_temp(modulated_norm(x, shift_time, scale_time), rotation, True), gate_time)
        x = x + self.cross_attn(x.flatten(1, 2), caption, caption_mask).unflatten(1, x.shape[1:3])
        return gated_sum(x, self.mlp(modulated_norm(x, shift_mlp, scale_mlp)), gate_mlp)


class STDiT2(SizedTransformer):
    """Predicts the noise in video latents, and its variance.

    `hidden_size` must be a multiple of 3 (height, width and aspect ratio share it).
    """

    family = "stdit2"
    version = "1.1"
    Config = STDiT2Config
    prediction = "epsilon"

    def add_layers(self, operations: Any, attention: Attention, **weights: Any) -> None:
        size = self.config.hidden_size
        self.csize_embedder = ScalarEmbedder(size // 3, operations, **weights)
        self.ar_embedder = ScalarEmbedder(size // 3, operations, **weights)
        self.fl_embedder = ScalarEmbedder(size, operations, **weights)
        self.fps_embedder = ScalarEmbedder(size, operations, **weights)
        self.t_block = nn.Sequential(nn.SiLU(), operations.Linear(size, 6 * size, **weights))
        self.t_block_temp = nn.Sequential(nn.SiLU(), operations.Linear(size, 3 * size, **weights))
        self.add_caption(operations, **weights)
        self.add_blocks(STDiT2Block, ("blocks",), operations, attention, **weights)

    def run(
        self, x: Tensor, timestep: Tensor, caption: Tensor, caption_mask: Mask, frame_mask: Mask, clip: ClipSizes
    ) -> Tensor:
        """Noise in x, in x's own dtype."""
        B, _, T, H, W = x.shape
        dtype = x.dtype
        fps = rows_of(clip.fps, IMAGE_FPS if T == 1 else DEFAULT_FPS, x)
        num_frames = rows_of(clip.num_frames, T, x)
        scale = self.position_scale(x, clip)

        t = self.t_embedder(timestep, dtype)[:, None]
        size = self.embed_size(x, clip)[:, None]
        length = (self.fl_embedder(num_frames, dtype) + self.fps_embedder(fps, dtype))[:, None]
        t_spatial, t_temporal = self.t_block(t + size), self.t_block_temp(t + length)
        t_kept = None
        if frame_mask is not None:
            frame_mask = frame_mask.to(device=x.device, dtype=torch.bool)[:, :, None]
            zero = self.t_embedder(torch.zeros_like(timestep), dtype)[:, None]
            # In the final layer generated frames know the plain timestep, kept frames the size as well.
            t_kept = zero + size
            t_spatial = torch.where(frame_mask, t_spatial, self.t_block(t_kept))
            t_temporal = torch.where(frame_mask, t_temporal, self.t_block_temp(zero + length))
            frame_mask = frame_mask[..., None]
        t_spatial, t_temporal = t_spatial.unflatten(-1, (6, -1)), t_temporal.unflatten(-1, (3, -1))
        caption, caption_mask = self.embed_caption(caption, caption_mask, B, dtype)

        x = self.pad_to_patches(x)
        grid = self.grid(x)
        x = self.x_embedder(x)
        x = x + self.positions(grid, scale, x)

        rotation = self.frame_rotation(x)
        for index, block in enumerate(self.blocks):
            run = partial(block, t_temporal=t_temporal, rotation=rotation, caption_mask=caption_mask)
            x = self.run_block(index, run, x, caption, t_spatial)

        x = self.final_layer(x, t, t_kept, frame_mask)
        return self.unpatchify(x, *grid[1:])[:, :, :T, :H, :W]
