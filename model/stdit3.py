"""STDiT3, the spatial-temporal diffusion transformer of Open-Sora 1.2.

An image DiT of the PixArt kind (AdaLN-single, cross-attention to T5 features) with a temporal block behind every
spatial one. Spatial blocks attend within a frame, temporal blocks across the frames of one place. Defined by
https://github.com/hpcaitech/Open-Sora (branch opensora/v1.2); PixArt-α: Chen et al. 2023; DiT: Peebles & Xie 2022.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from .layers import (
    CaptionEmbedder,
    CrossAttention,
    FinalLayer,
    Mlp,
    PatchEmbed3D,
    ScalarEmbedder,
    SelfAttention,
    fused_attention,
    layer_norm,
    modulate,
    position_embedding_2d,
    rope_frequencies,
)

IMAGE_FPS = 120.0  # the original tells the model "120 frames per second" for a single image
DEFAULT_FPS = 24.0
PIXELS_PER_LATENT = 8


@dataclass(frozen=True)
class STDiT3Config:
    """Sizes of an STDiT3; field names are the original's configuration keys."""

    depth: int = 28
    hidden_size: int = 1152
    num_heads: int = 16
    caption_channels: int = 4096
    model_max_length: int = 300
    in_channels: int = 4
    patch_size: tuple = (1, 2, 2)
    mlp_ratio: float = 4.0
    pred_sigma: bool = True
    qk_norm: bool = True
    input_sq_size: int = 512


class STDiT3Block(nn.Module):
    """One transformer block: attention over space or over time, cross-attention to the caption, MLP."""

    def __init__(self, config, operations, attention, dtype=None, device=None):
        super().__init__()
        size, heads = config.hidden_size, config.num_heads
        weights = dict(dtype=dtype, device=device)
        self.attn = SelfAttention(size, heads, config.qk_norm, operations, attention, **weights)
        self.cross_attn = CrossAttention(size, heads, operations, attention, **weights)
        self.mlp = Mlp(size, int(size * config.mlp_ratio), size, operations, **weights)
        self.scale_shift_table = nn.Parameter(torch.zeros(6, size, **weights))

    def forward(self, x, caption, t, caption_mask=None, temporal_rope=None):
        """x [B, T, S, C]; caption [B, L, C]; t [B, T or 1, 6, C]; `temporal_rope` set means attention over time."""
        modulation = self.scale_shift_table.to(x) + t
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = modulation.unbind(2)
        B, T = x.shape[:2]

        h = modulate(layer_norm(x), shift_attn, scale_attn)
        if temporal_rope is None:
            h = rearrange(self.attn(rearrange(h, "B T S C -> (B T) S C")), "(B T) S C -> B T S C", B=B)
        else:
            h = rearrange(self.attn(rearrange(h, "B T S C -> (B S) T C"), temporal_rope), "(B S) T C -> B T S C", B=B)
        x = x + gate_attn[:, :, None] * h

        tokens = rearrange(x, "B T S C -> B (T S) C")
        x = x + rearrange(self.cross_attn(tokens, caption, caption_mask), "B (T S) C -> B T S C", T=T)

        h = self.mlp(modulate(layer_norm(x), shift_mlp, scale_mlp))
        return x + gate_mlp[:, :, None] * h


class STDiT3(nn.Module):
    """Predicts the rectified-flow velocity (data minus noise) of video latents.

    Args:
        config: sizes.
        operations: namespace with `Linear` and `Conv3d`; torch.nn unless a host such as ComfyUI brings its own.
        attention: callable (q, k, v, mask) as in `layers.matmul_attention`.
    """

    family = "stdit3"

    def __init__(self, config=STDiT3Config(), operations=None, attention=None, dtype=None, device=None):
        super().__init__()
        operations = operations or nn
        attention = attention or fused_attention
        weights = dict(dtype=dtype, device=device)
        size = config.hidden_size
        self.config = config
        self.in_channels = config.in_channels
        self.out_channels = config.in_channels * (2 if config.pred_sigma else 1)
        self.caption_channels = config.caption_channels
        self.max_caption_length = config.model_max_length

        self.rope = nn.Module()
        self.rope.register_buffer("freqs", rope_frequencies(size // config.num_heads, device=device))
        self.x_embedder = PatchEmbed3D(config.patch_size, config.in_channels, size, operations, **weights)
        self.t_embedder = ScalarEmbedder(size, operations, **weights)
        self.fps_embedder = ScalarEmbedder(size, operations, **weights)
        self.t_block = nn.Sequential(nn.SiLU(), operations.Linear(size, 6 * size, **weights))
        self.y_embedder = CaptionEmbedder(config.caption_channels, size, config.model_max_length, operations, **weights)
        block = dict(config=config, operations=operations, attention=attention, **weights)
        self.spatial_blocks = nn.ModuleList(STDiT3Block(**block) for _ in range(config.depth))
        self.temporal_blocks = nn.ModuleList(STDiT3Block(**block) for _ in range(config.depth))
        patch_volume = config.patch_size[0] * config.patch_size[1] * config.patch_size[2]
        self.final_layer = FinalLayer(size, patch_volume * self.out_channels, operations, **weights)

    @property
    def null_caption(self):
        """The checkpoint's stand-in for "no prompt", [L, caption_channels]."""
        return self.y_embedder.y_embedding

    def forward(
        self,
        x,
        timestep,
        caption,
        caption_mask=None,
        frame_mask=None,
        fps=None,
        height=None,
        width=None,
        num_frames=None,
    ):
        """Velocity of x, in fp32.

        Args:
            x: noisy latents [B, C, T, H, W].
            timestep: [B], 1000 (noise) … 0 (data).
            caption: T5 features [B, L, caption_channels].
            caption_mask: [B, L], 1 where a token is real; None means all are.
            frame_mask: bool [B, T], True where a frame is being generated; the others are told timestep 0.
            fps, height, width: [B], frames per second and pixels. Left out: 24 (an image: 120), and 8 per latent.
            num_frames: accepted for all families alike; STDiT3 does not look at it.

        Returns:
            [B, 2C, T, H, W]: the velocity, then the variance half that 1.2 never uses (only C where pred_sigma is off).
        """
        return self.run(
            x.to(self.x_embedder.proj.weight.dtype), timestep, caption, caption_mask, frame_mask, fps, height, width
        ).float()

    def run(self, x, timestep, caption, caption_mask=None, frame_mask=None, fps=None, height=None, width=None):
        """`forward` in x's own dtype, for hosts that hold weights in another dtype than they compute in."""
        B, _, T, H, W = x.shape
        dtype, device = x.dtype, x.device
        if fps is None:
            fps = torch.full((B,), IMAGE_FPS if T == 1 else DEFAULT_FPS, device=device)
        height = H * PIXELS_PER_LATENT if height is None else float(height[0])
        width = W * PIXELS_PER_LATENT if width is None else float(width[0])

        fps = self.fps_embedder(_repeat_rows(fps, B).to(device), dtype)
        t = (self.t_embedder(timestep, dtype) + fps)[:, None]
        t_kept, t_block = None, self.t_block(t)
        if frame_mask is not None:
            frame_mask = frame_mask.to(device=device, dtype=torch.bool)[:, :, None]
            t_kept = (self.t_embedder(torch.zeros_like(timestep), dtype) + fps)[:, None]
            t_block = torch.where(frame_mask, t_block, self.t_block(t_kept))
            frame_mask = frame_mask[..., None]
        t_block = t_block.unflatten(-1, (6, -1))
        caption, caption_mask = self.embed_caption(caption, caption_mask, B, dtype)

        x = self.pad_to_patches(x)
        grid_h, grid_w = x.shape[3] // self.config.patch_size[1], x.shape[4] // self.config.patch_size[2]
        x = self.x_embedder(x)
        x = x + position_embedding_2d(
            self.config.hidden_size,
            grid_h,
            grid_w,
            scale=(height * width) ** 0.5 / self.config.input_sq_size,
            base_size=round((grid_h * grid_w) ** 0.5),
            device=device,
        ).to(dtype)

        for spatial, temporal in zip(self.spatial_blocks, self.temporal_blocks):
            x = spatial(x, caption, t_block, caption_mask)
            x = temporal(x, caption, t_block, caption_mask, temporal_rope=self.rope.freqs)

        x = self.final_layer(x, t, t_kept, frame_mask)
        return self.unpatchify(x, grid_h, grid_w)[:, :, :T, :H, :W]

    def embed_caption(self, caption, caption_mask, batch, dtype):
        """Projected caption [B, L, C] and its attention mask, bool [B, 1, 1, L] or None."""
        caption = self.y_embedder(_repeat_rows(caption.to(dtype), batch))
        if caption_mask is not None:
            caption_mask = _repeat_rows(caption_mask, batch)[:, None, None].to(caption.device) != 0
        return caption, caption_mask

    def pad_to_patches(self, x):
        """Zeros on the right, at the bottom and behind, up to whole patches; these tokens attend like any other."""
        pad = [-length % patch for length, patch in zip(x.shape[2:], self.config.patch_size)]
        return F.pad(x, (0, pad[2], 0, pad[1], 0, pad[0])) if any(pad) else x

    def unpatchify(self, x, grid_h, grid_w):
        """Tokens [B, T, S, patch volume · C] to [B, C, T, H, W]."""
        pt, ph, pw = self.config.patch_size
        return rearrange(
            x, "B T (h w) (pt ph pw C) -> B C (T pt) (h ph) (w pw)", h=grid_h, w=grid_w, pt=pt, ph=ph, pw=pw
        )


def _repeat_rows(values, rows):
    """Repeat [b, …] to [rows, …]: guidance runs both halves of a batch on one set of sizes and masks."""
    return values if values.shape[0] == rows else values.repeat(rows // values.shape[0], *[1] * (values.ndim - 1))
