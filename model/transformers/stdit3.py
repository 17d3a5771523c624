"""STDiT3, the spatial-temporal diffusion transformer of Open-Sora 1.2.

An image DiT of the PixArt kind (AdaLN-single, cross-attention to T5 features) with a temporal block behind every
spatial one. Spatial blocks attend within a frame, temporal blocks across the frames of one place. Defined by
https://github.com/hpcaitech/Open-Sora (branch opensora/v1.2); PixArt-α: Chen et al. 2023; DiT: Peebles & Xie 2022.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..frames import DEFAULT_FPS, IMAGE_FPS
from .kernels import PLAIN
from .layers import Attention, CrossAttention, Mask, Mlp, ScalarEmbedder, SelfAttention, rows_of
from .skeleton import ClipSizes, SizedConfig, SizedTransformer, Times


@dataclass(frozen=True)
class STDiT3Config(SizedConfig):
    """Configuration of an STDiT3; field names are the original's configuration keys."""

    BLOCKS = "spatial_blocks"


def at_once(function: Callable[..., Tensor], tokens: tuple[Tensor, ...], *rows: Tensor) -> Tensor:
    """function(*tokens, *rows): how a block calls what modulates tokens [B, T, S, C] by rows [B, T or 1, C]."""
    return function(*tokens, *rows)


class STDiT3Block(nn.Module):
    """One transformer block: attention over space or over time, cross-attention to the caption, MLP."""

    SelfAttention = SelfAttention
    kernels = PLAIN

    def __init__(self, config: STDiT3Config, operations: Any, attention: Attention, **weights: Any) -> None:
        super().__init__()
        size, heads = config.hidden_size, config.num_heads
        self.attn = self.SelfAttention(size, heads, config.qk_norm, operations, attention, **weights)
        self.cross_attn = CrossAttention(size, heads, operations, attention, **weights)
        self.mlp = Mlp(size, round(size * config.mlp_ratio), size, operations, **weights)
        self.scale_shift_table = nn.Parameter(torch.zeros(6, size, **weights))

    def forward(
        self,
        x: Tensor,
        caption: Tensor,
        t: Tensor,
        caption_mask: Mask = None,
        rotation: Tensor | None = None,
        attend: Callable[..., Tensor] | None = None,
        read: Callable[..., Tensor] | None = None,
        each: Callable[..., Tensor] = at_once,
    ) -> Tensor:
        """x [B, T, S, C]; caption [B, L, C]; t [B, T or 1, 6, C]; `rotation` (`turns`) means attention over time.

        Where clips differ in shape (padded.py, packed.py), `attend(attn, x)` and `read(cross_attn, x, caption)` stand
        in for attention among x and to the caption, and `each` for `at_once`; they return [B, T, S, C].
        """
        modulation = self.scale_shift_table.to(x) + t
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = modulation.unbind(2)
        kernels = self.kernels

        h = each(kernels.modulated_norm, (x,), shift_attn, scale_attn)
        h = self.attn(h, rotation, rotation is not None) if attend is None else attend(self.attn, h)
        x = each(kernels.gated_sum, (x, h), gate_attn)

        if read is not None:
            x = x + read(self.cross_attn, x, caption)
        else:
            x = x + self.cross_attn(x.flatten(1, 2), caption, caption_mask).unflatten(1, x.shape[1:3])

        h = self.mlp(each(kernels.modulated_norm, (x,), shift_mlp, scale_mlp))
        return each(kernels.gated_sum, (x, h), gate_mlp)


class STDiT3(SizedTransformer):
    """Predicts the rectified-flow velocity (data minus noise) of video latents."""

    family = "stdit3"
    version = "1.2"
    Block: type[nn.Module] = STDiT3Block
    Config = STDiT3Config
    prediction = "flow"

    def add_layers(self, operations: Any, attention: Attention, **weights: Any) -> None:
        size = self.config.hidden_size
        self.fps_embedder = ScalarEmbedder(size, operations, **weights)
        self.t_block = nn.Sequential(nn.SiLU(), operations.Linear(size, 6 * size, **weights))
        self.add_caption(operations, **weights)
        self.add_blocks(self.Block, ("spatial_blocks", "temporal_blocks"), operations, attention, **weights)

    def run(
        self, x: Tensor, timestep: Tensor, caption: Tensor, caption_mask: Mask, frame_mask: Mask, clip: ClipSizes
    ) -> Tensor:
        """Velocity of x, in x's own dtype; 1.2 does not look at num_frames, and never uses the variance."""
        T, H, W = x.shape[2:]
        t, t_kept, t_block, frame_mask = self.embed_time(x, timestep, clip.fps, frame_mask)
        caption, caption_mask = self.embed_caption(caption, caption_mask, x.shape[0], x.dtype)
        scale = self.position_scale(x, clip)
        x = self.pad_to_patches(x)
        grid = self.grid(x)
        x = self.x_embedder(x)
        x = x + self.positions(grid, scale, x)
        spatial = {"caption_mask": caption_mask}
        x = self.run_blocks(x, caption, t_block, spatial, {**spatial, "rotation": self.frame_rotation(x)})
        x = self.final_layer(x, t, t_kept, frame_mask)
        return self.unpatchify(x, *grid[1:])[:, :, :T, :H, :W]

    def run_blocks(
        self, x: Tensor, caption: Any, t: Tensor, spatial: dict[str, Any], temporal: dict[str, Any]
    ) -> Tensor:
        """Tokens x [B, T, S, C] behind all blocks; `spatial` and `temporal`: what each kind takes beside x, caption, t.

        A depth is a spatial block and the temporal one behind it.
        """
        for index in range(self.config.depth):
            x = self.run_block(index, partial(self._run_pair, index, spatial, temporal), x, caption, t)
        return x

    def _run_pair(self, index, spatial, temporal, x, caption, t):
        x = self.spatial_blocks[index](x, caption, t, **spatial)
        return self.temporal_blocks[index](x, caption, t, **temporal)

    def embed_time(
        self, x: Tensor, timestep: Tensor, fps: float | Tensor | None = None, frame_mask: Mask = None
    ) -> Times:
        """`embed_times` of a clip x, with its frames per second beside the timestep."""
        rate = rows_of(fps, IMAGE_FPS if x.shape[2] == 1 else DEFAULT_FPS, x)
        return self.embed_times(timestep, frame_mask, x.dtype, self.fps_embedder(rate, x.dtype))
