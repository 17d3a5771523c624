"""PixArt-α and PixArt-Σ, the image transformers that Open-Sora grew from: one frame, no attention over time.

The blocks are STDiT3's spatial ones. Only the 1024-pixel model of PixArt-α is told height, width and aspect ratio. Chen
et al. 2023 (PixArt-α) and 2024 (PixArt-Σ); key names are those of https://github.com/PixArt-alpha's checkpoints.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..shapes_of import StateDict, heads_of, shape_of
from .layers import Attention, Mask, ScalarEmbedder, position_embedding_2d
from .skeleton import ClipSizes, TransformerConfig, VideoTransformer
from .stdit3 import STDiT3Block

ALPHA_LENGTH = 120  # tokens that PixArt-α reads; Σ reads 300
BASE_LATENTS = 64  # a side of 64 latents, 512 pixels, is where positions count tokens one by one


@dataclass(frozen=True)
class PixArtConfig(TransformerConfig):
    """Configuration of a PixArt transformer; field names are the original's keys, but for the last two."""

    qk_norm: bool = False
    pe_interpolation: float | None = None  # None: follows the size of each image
    size_embedders: bool = False
    stored_positions: int = 0  # places in the position table that the file brings along
    PATCH = (2, 2)

    @classmethod
    def from_weights(cls, state_dict: StateDict, config: Mapping[str, Any] | None = None) -> "PixArtConfig":
        """As TransformerConfig's; raises ValueError too for models that compress keys and values."""
        if any(".attn.sr." in key for key in state_dict):
            raise ValueError(
                "this PixArt transformer compresses keys and values (attn.sr), as PixArt-Σ's 2048-pixel model does, "
                "and this pack does not run that; use the model for 512 or 1024 pixels"
            )
        # The original writes a patch_size of 2 where Open-Sora writes (1, 2, 2).
        return super().from_weights(state_dict, {**(config or {}), "patch_size": None})

    @classmethod
    def own(cls, state_dict: StateDict, config: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
        """`config` says num_heads and pe_interpolation."""
        places = shape_of(state_dict, "pos_embed", 3, (1, 0, 0))[1]
        return {
            "num_heads": heads_of(known["hidden_size"], config),
            "pe_interpolation": config.get("pe_interpolation") or _interpolation(places, known),
            "size_embedders": any(key.startswith(("csize_embedder.", "ar_embedder.")) for key in state_dict),
            "stored_positions": places,
        }


def _interpolation(places, known):
    """How far positions are stretched in a model whose position table has so many places; None where it has none."""
    if not places:
        return None
    latents = places**0.5 * known["patch_size"][1]
    if latents < BASE_LATENTS and known["model_max_length"] <= ALPHA_LENGTH:
        return 1.0  # PixArt-α's 256-pixel model counts tokens one by one as well
    return latents / BASE_LATENTS


class PlainScalarEmbedder(ScalarEmbedder):
    """A scalar per sample to [B, hidden_size], with the exponential taken where it runs, as ComfyUI's PixArt does.

    Open-Sora's TIMESTEP_FREQUENCIES differ from it by a last bit here and there, which shows in the output (2e-6).
    """

    def forward(self, values: Tensor, dtype: torch.dtype) -> Tensor:
        exponents = -math.log(10000.0) * torch.arange(128, dtype=torch.float32, device=values.device) / 128
        angles = values.float()[:, None] * exponents.exp()[None]
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1).to(dtype))


class PatchEmbed2D(nn.Module):
    """Latents [B, C, 1, H, W] to tokens [B, 1, S, hidden_size]; sizes must be multiples of the patch."""

    def __init__(
        self, patch_size: tuple[int, ...], in_channels: int, hidden_size: int, operations: Any, **weights: Any
    ) -> None:
        super().__init__()
        patch = patch_size[1:]
        self.proj = operations.Conv2d(in_channels, hidden_size, kernel_size=patch, stride=patch, **weights)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x[:, :, 0]).flatten(2).transpose(1, 2)[:, None].contiguous()


class PixArt(VideoTransformer):
    """Predicts the noise in the latents of an image, and its variance.

    `hidden_size` must be a multiple of 3 where sizes are embedded.
    """

    family = "pixart"
    version = "pixart"
    Config = PixArtConfig
    prediction = "epsilon"
    Patches = PatchEmbed2D
    Scalars = PlainScalarEmbedder

    def add_layers(self, operations: Any, attention: Attention, **weights: Any) -> None:
        size = self.config.hidden_size
        self.t_block = nn.Sequential(nn.SiLU(), operations.Linear(size, 6 * size, **weights))
        self.add_caption(operations, **weights)
        if self.config.size_embedders:
            self.csize_embedder = PlainScalarEmbedder(size // 3, operations, **weights)
            self.ar_embedder = PlainScalarEmbedder(size // 3, operations, **weights)
        self.add_blocks(STDiT3Block, ("blocks",), operations, attention, **weights)

    def add_positions(self, **weights: Any) -> None:
        # Only a place for the table that a file brings: positions are computed for each image's size.
        places = self.config.stored_positions
        table = torch.zeros(1, places, self.config.hidden_size, **weights) if places else None
        self.register_buffer("pos_embed", table)

    def run(
        self, x: Tensor, timestep: Tensor, caption: Tensor, caption_mask: Mask, frame_mask: Mask, clip: ClipSizes
    ) -> Tensor:
        """Noise in x [B, C, 1, H, W], in x's own dtype; only models with size embedders look at height and width.

        Raises ValueError for more than one frame.
        """
        B, _, T, H, W = x.shape
        dtype, device = x.dtype, x.device
        if T != 1:
            raise ValueError(f"x has {T} latent frames; PixArt makes single images, so frames must be 1")
        if frame_mask is not None:
            timestep = torch.where(frame_mask[:, 0].to(timestep.device) != 0, timestep, torch.zeros_like(timestep))

        t = self.t_embedder(timestep, dtype)
        if self.config.size_embedders:
            t = t + self.embed_size(x, clip)
        t = t[:, None]
        t_block = self.t_block(t).unflatten(-1, (6, -1))
        caption, caption_mask = self.embed_caption(caption, caption_mask, B, dtype)

        x = self.pad_to_patches(x)
        _, grid_h, grid_w = self.grid(x)
        x = self.x_embedder(x) + self.positions(grid_h, grid_w, (H + W) // 2, device).to(dtype)
        for index, block in enumerate(self.blocks):
            x = self.run_block(index, partial(block, caption_mask=caption_mask), x, caption, t_block)
        return self.unpatchify(self.final_layer(x, t), grid_h, grid_w)[..., :H, :W]

    def positions(self, grid_h: int, grid_w: int, side: int, device: torch.device | None) -> Tensor:
        """Positions [1, S, C] of a token grid; `side` is the mean of the image's height and width in latents.

        The grid is stretched to the nearest resolution that PixArt was trained at, 512 pixels or a multiple of it;
        smaller images count their tokens one by one at the scale of their size.
        """
        steps = round(side / BASE_LATENTS)
        return position_embedding_2d(
            self.config.hidden_size,
            grid_h,
            grid_w,
            scale=self.config.pe_interpolation or steps or side / BASE_LATENTS,
            base_size=(steps * BASE_LATENTS or side) // self.config.patch_size[1],
            device=device,
        )
