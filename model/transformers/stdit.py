"""STDiT, the spatial-temporal diffusion transformer of Open-Sora 1.0.

A PixArt image transformer with a second attention, over time, in every block. Sizes are not told to it: positions come
from two fixed tables, which space_scale and time_scale stretch to the resolution and length a checkpoint was made for.
Defined by https://github.com/hpcaitech/Open-Sora (branch opensora/v1.0; frame masks as opensora/v1.1 added them).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..shapes_of import StateDict, heads_of, shape_of
from .kernels import PLAIN
from .layers import Attention, CrossAttention, Mask, Mlp, SelfAttention, sincos_table
from .skeleton import ClipSizes, TransformerConfig, VideoTransformer

SMALL_GRID = 256  # tokens a frame of the checkpoints made for 256 x 256 pixels, whose space_scale is 0.5


@dataclass(frozen=True)
class STDiTConfig(TransformerConfig):
    """Configuration of an STDiT; field names are the original's configuration keys, but for the last."""

    model_max_length: int = 120
    space_scale: float = 1.0
    time_scale: float = 1.0
    stored_positions: tuple = (0, 0)  # places and frames in the position tables that the file brings along

    @classmethod
    def own(cls, state_dict: StateDict, config: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
        """`config` says heads and scales; `input_size` is not asked for: positions are computed for each call."""
        places = shape_of(state_dict, "pos_embed", 3, (1, 0, 0))[1]
        frames = shape_of(state_dict, "pos_embed_temporal", 3, (1, 0, 0))[1]
        return {
            "num_heads": heads_of(known["hidden_size"], config),
            "space_scale": config.get("space_scale") or (0.5 if places == SMALL_GRID else 1.0),
            "time_scale": config.get("time_scale") or 1.0,
            "stored_positions": (places, frames),
        }


class STDiTBlock(nn.Module):
    """Attention over space, attention over time, cross-attention to the caption, MLP."""

    kernels = PLAIN

    def __init__(self, config: STDiTConfig, operations: Any, attention: Attention, **weights: Any) -> None:
        super().__init__()
        size, heads = config.hidden_size, config.num_heads
        self.attn = SelfAttention(size, heads, False, operations, attention, **weights)
        self.attn_temp = SelfAttention(size, heads, False, operations, attention, **weights)
        self.cross_attn = CrossAttention(size, heads, operations, attention, **weights)
        self.mlp = Mlp(size, round(size * config.mlp_ratio), size, operations, **weights)
        self.scale_shift_table = nn.Parameter(torch.zeros(6, size, **weights))

    def forward(
        self,
        x: Tensor,
        caption: Tensor,
        t: Tensor,
        t_generated: Tensor,
        caption_mask: Mask = None,
        frame_positions: Tensor | None = None,
    ) -> Tensor:
        """x [B, T, S, C]; caption [B, L, C]; t [B, T or 1, 6, C], per frame where some are kept.

        `t_generated` [B, 1, 6, C] is that of the frames being generated; `frame_positions` [T, C] are for block 0 only.
        """
        table = self.scale_shift_table.to(x)
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = (table + t).unbind(2)
        modulated_norm, gated_sum = self.kernels.modulated_norm, self.kernels.gated_sum

        x = gated_sum(x, self.attn(modulated_norm(x, shift_attn, scale_attn)), gate_attn)

        # Attention over time was added to a finished image transformer: no norm and no modulation of its own, only the
        # gate of spatial attention, and that of the generated frames even for kept ones.
        h = x if frame_positions is None else x + frame_positions[:, None]
        x = gated_sum(x, self.attn_temp(h, across_frames=True), table[2] + t_generated[:, :, 2])

        x = x + self.cross_attn(x.flatten(1, 2), caption, caption_mask).unflatten(1, x.shape[1:3])
        return gated_sum(x, self.mlp(modulated_norm(x, shift_mlp, scale_mlp)), gate_mlp)


class STDiT(VideoTransformer):
    """Predicts the noise in video latents, and its variance."""

    family = "stdit"
    version = "1.0"
    Config = STDiTConfig
    prediction = "epsilon"

    def add_layers(self, operations: Any, attention: Attention, **weights: Any) -> None:
        size = self.config.hidden_size
        self.t_block = nn.Sequential(nn.SiLU(), operations.Linear(size, 6 * size, **weights))
        self.add_caption(operations, **weights)
        self.add_blocks(STDiTBlock, ("blocks",), operations, attention, **weights)

    def add_positions(self, **weights: Any) -> None:
        # Only a place for the tables that a file brings: the original, too, drops them and computes its own.
        for name, length in zip(("pos_embed", "pos_embed_temporal"), self.config.stored_positions):
            table = torch.zeros(1, length, self.config.hidden_size, **weights) if length else None
            self.register_buffer(name, table)

    def run(
        self, x: Tensor, timestep: Tensor, caption: Tensor, caption_mask: Mask, frame_mask: Mask, clip: ClipSizes
    ) -> Tensor:
        """Noise in x, in x's own dtype; 1.0 looks at none of the sizes of the clip."""
        B, _, T, H, W = x.shape
        t, t_kept, t_block, frame_mask = self.embed_times(timestep, frame_mask, x.dtype)
        t_generated = self.t_block(t).unflatten(-1, (6, -1))
        caption, caption_mask = self.embed_caption(caption, caption_mask, B, x.dtype)

        x = self.pad_to_patches(x)
        frames, grid_h, grid_w = self.grid(x)
        x = self.x_embedder(x) + self.place_positions(grid_h, grid_w).to(x)
        frame_positions = self.frame_positions(frames).to(x)

        for index, block in enumerate(self.blocks):
            own = frame_positions if index == 0 else None
            run = partial(block, t_generated=t_generated, caption_mask=caption_mask, frame_positions=own)
            x = self.run_block(index, run, x, caption, t_block)

        x = self.final_layer(x, t, t_kept, frame_mask)
        return self.unpatchify(x, grid_h, grid_w)[:, :, :T, :H, :W]

    def place_positions(self, grid_h: int, grid_w: int) -> Tensor:
        """Positions within a frame, [grid_h * grid_w, C] in fp32; width before height in the channels."""
        half = self.config.hidden_size // 2
        down, across = (
            sincos_table(torch.arange(length, dtype=torch.float32) / self.config.space_scale, half)
            for length in (grid_h, grid_w)
        )
        grid = torch.cat([across[None].expand(grid_h, -1, -1), down[:, None].expand(-1, grid_w, -1)], dim=-1)
        return grid.flatten(0, 1)

    def frame_positions(self, frames: int) -> Tensor:
        """Positions along the clip, [frames, C] in fp32."""
        return sincos_table(torch.arange(frames, dtype=torch.float64) / self.config.time_scale, self.config.hidden_size)
