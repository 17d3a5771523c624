"""The skeleton of the transformers of all generations: how they are called, and what they do alike."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .layers import Mask, repeat_rows

Size = float | Tensor | None


class ClipSizes(NamedTuple):
    """What a network is told of the clip: frames per second, pixels, video frames. Numbers, [B], or None: left out."""

    fps: Size = None
    height: Size = None
    width: Size = None
    num_frames: Size = None


@dataclass(frozen=True)
class TransformerConfig:
    """What is configured in every family; field names are the original's configuration keys."""

    depth: int = 28
    hidden_size: int = 1152
    num_heads: int = 16
    caption_channels: int = 4096
    model_max_length: int = 300
    in_channels: int = 4
    patch_size: tuple = (1, 2, 2)
    mlp_ratio: float = 4.0
    pred_sigma: bool = True


class VideoTransformer(nn.Module):
    """What the transformers of all generations share: captions in, latents to tokens' size and back.

    A family sets `x_embedder`, `y_embedder` and the rest of its layers, and computes in `run`, in x's own dtype: hosts
    that hold weights in another dtype than they compute in call that. Its arguments are those of `forward`, with the
    sizes of the clip as one ClipSizes. Their constructors take:

    Args:
        config: the family's configuration.
        operations: namespace with `Linear`, `Conv2d` and `Conv3d`, where a host such as ComfyUI brings its own.
        attention: callable (q, k, v, mask) as in `layers.matmul_attention`; left out, PyTorch's fused attention.
        weights: dtype and device.
    """

    x_embedder: Any
    y_embedder: Any
    run: Callable[..., Tensor]
    OPTIONAL: tuple[str, ...] = ()  # keys that a file may lack: `computed` has them

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.in_channels = config.in_channels
        self.out_channels = config.in_channels * (2 if config.pred_sigma else 1)
        self.caption_channels = config.caption_channels
        self.max_caption_length = config.model_max_length

    @property
    def null_caption(self) -> Tensor:
        """The checkpoint's stand-in for "no prompt", [L, caption_channels]."""
        return self.y_embedder.y_embedding

    def computed(self) -> dict[str, Tensor]:
        """The tensors of OPTIONAL by their keys, fp32."""
        return {}

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        caption: Tensor,
        caption_mask: Mask = None,
        frame_mask: Mask = None,
        fps: Size = None,
        height: Size = None,
        width: Size = None,
        num_frames: Size = None,
        **condition: Any,
    ) -> Tensor:
        """The family's prediction for x, with x in the dtype of the weights; the result is fp32.

        Args:
            x: noisy latents [B, C, T, H, W]; what is odd is padded to whole patches.
            timestep: [B], 1000 (noise; 999 of the families that predict noise) … 0 (data).
            caption: T5 features [B, L, caption_channels].
            caption_mask: [B, L], 1 where a token is real; None means all are.
            frame_mask: bool [B, T], True where a frame is being generated; the others are told timestep 0.
            fps, height, width, num_frames: numbers or [B], frames per second, pixels, video frames. Left out: 24 (an
                image: 120), 8 pixels per latent, a frame per latent. Families take those too that they do not know.
            condition: what a family takes beside that: see its `run`.

        Returns:
            [B, 2C, T, H, W]: the prediction, then its variance (only C where pred_sigma is off).
        """
        x, clip = x.to(self.x_embedder.proj.weight.dtype), ClipSizes(fps, height, width, num_frames)
        return self.run(x, timestep, caption, caption_mask, frame_mask, clip, **condition).float()

    def embed_caption(self, caption: Tensor, caption_mask: Mask, batch: int, dtype: torch.dtype) -> tuple[Tensor, Mask]:
        """Projected caption [B, L, C] and its attention mask, bool [B, 1, 1, L] or None."""
        caption = self.y_embedder(repeat_rows(caption.to(dtype), batch))
        if caption_mask is not None:
            caption_mask = repeat_rows(caption_mask, batch)[:, None, None].to(caption.device) != 0
        return caption, caption_mask

    def run_block(self, index: int, block: Callable[..., Tensor], x: Tensor, caption: Any, t: Tensor) -> Tensor:
        """Tokens x [B, T, S, C] behind block `index`, which is `block(x, caption, t)`: all layers of one depth.

        A host overrides this where something else may take a block's place.
        """
        return block(x, caption, t)

    def pad_to_patches(self, x: Tensor) -> Tensor:
        """Zeros on the right, at the bottom and behind, up to whole patches; these tokens attend like any other."""
        pad = [-length % patch for length, patch in zip(x.shape[2:], self.config.patch_size)]
        return F.pad(x, (0, pad[2], 0, pad[1], 0, pad[0])) if any(pad) else x

    def unpatchify(self, x: Tensor, grid_h: int, grid_w: int) -> Tensor:
        """Tokens [B, T, S, patch volume · C] to [B, C, T, H, W]."""
        pt, ph, pw = self.config.patch_size
        return rearrange(
            x, "B T (h w) (pt ph pw C) -> B C (T pt) (h ph) (w pw)", h=grid_h, w=grid_w, pt=pt, ph=ph, pw=pw
        )
