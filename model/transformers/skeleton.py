"""The skeleton of the transformers of all generations: how they are called, and what they do alike."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..frames import PIXELS_PER_LATENT
from ..shapes_of import StateDict, agree, normed_heads, shared_config
from . import layers
from .kernels import turns
from .layers import Attention, Mask

Config = TypeVar("Config", bound="TransformerConfig")
Size = float | Tensor | None
Times = tuple[Tensor, Mask, Tensor, Mask]  # what `embed_times` gives


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

    BLOCKS: ClassVar[str] = "blocks"  # what a file calls the list of blocks
    PATCH: ClassVar[tuple[int, ...]] = (1, 2, 2)  # of a file whose patch embedding is missing; in an image two sides
    TOLD: ClassVar[tuple[str, ...]] = ()  # fields of the family's own that the weights tell

    @classmethod
    def from_weights(cls: type[Config], state_dict: StateDict, config: Mapping[str, Any] | None = None) -> Config:
        """The configuration of these weights; `config` supplies what they cannot tell. ValueError if they disagree."""
        config = config or {}
        known = shared_config(cls, state_dict, config)
        found = cls(**known, **cls.own(state_dict, config, known))
        agree(found, config, *cls.TOLD)
        return found

    @classmethod
    def own(cls, state_dict: StateDict, config: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
        """The family's own fields as keyword arguments; `known` are the shared ones."""
        raise NotImplementedError


@dataclass(frozen=True)
class SizedConfig(TransformerConfig):
    """What is configured as well where the network is told the size of the clip: in Open-Sora 1.1 and later."""

    qk_norm: bool = True
    input_sq_size: int = 512
    TOLD = ("num_heads", "qk_norm")

    @classmethod
    def own(cls, state_dict: StateDict, config: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
        """num_heads is asked of `config` where neither q/k norm nor rope.freqs show it."""
        qk_norm, num_heads = normed_heads(state_dict, known["hidden_size"], config)
        sq_size = config.get("input_sq_size") or cls.input_sq_size
        return {"num_heads": num_heads, "qk_norm": qk_norm, "input_sq_size": sq_size}


class VideoTransformer(nn.Module):
    """What the transformers of all generations share: captions in, latents to tokens' size and back.

    A family adds its layers in `add_layers`, and computes in `run`, in x's own dtype: hosts that hold weights in
    another dtype than they compute in call that. Its arguments are those of `forward`, with the sizes of the clip as
    one ClipSizes.

    Args:
        config: the family's `Config`; left out, its defaults.
        operations: namespace with `Linear`, `Conv2d` and `Conv3d`, where a host such as ComfyUI brings its own.
        attention: callable (q, k, v, mask) as in `layers.matmul_attention`; left out, PyTorch's fused attention.
        weights: dtype and device.
    """

    Config: Any
    config: Any
    Patches: type[nn.Module] = layers.PatchEmbed3D
    Scalars: type[nn.Module] = layers.ScalarEmbedder
    x_embedder: Any
    t_embedder: Any
    t_block: Any
    y_embedder: Any
    csize_embedder: Any
    ar_embedder: Any
    blocks: Any
    run: Callable[..., Tensor]
    OPTIONAL: tuple[str, ...] = ()  # keys that a file may lack: `computed` has them

    def __init__(self, config: Any = None, operations: Any = nn, attention: Attention = None, **weights: Any) -> None:
        super().__init__()
        self.config = config = config or self.Config()
        self.in_channels = config.in_channels
        self.out_channels = config.in_channels * (2 if config.pred_sigma else 1)
        self.caption_channels = config.caption_channels
        self.max_caption_length = config.model_max_length
        self.add_positions(**weights)
        self.x_embedder = self.Patches(config.patch_size, config.in_channels, config.hidden_size, operations, **weights)
        self.t_embedder = self.Scalars(config.hidden_size, operations, **weights)
        self.add_layers(operations, attention, **weights)

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

    def add_positions(self, **weights: Any) -> None:
        """Buffers for what a file brings along of positions; none here."""

    def add_layers(self, operations: Any, attention: Attention, **weights: Any) -> None:
        """The layers behind `x_embedder` and `t_embedder`, in a file's order."""
        raise NotImplementedError

    def add_blocks(
        self, block: type[nn.Module], names: tuple[str, ...], operations: Any, attention: Attention, **weights: Any
    ) -> None:
        """For each of these names a list of `depth` blocks, and the final layer."""
        config = self.config
        for name in names:
            blocks = (block(config, operations, attention, **weights) for _ in range(config.depth))
            self.add_module(name, nn.ModuleList(blocks))
        patch_values = math.prod(config.patch_size) * self.out_channels
        self.final_layer = layers.FinalLayer(config.hidden_size, patch_values, operations, **weights)

    def add_caption(self, operations: Any, **weights: Any) -> None:
        """What reads captions."""
        config = self.config
        self.y_embedder = layers.CaptionEmbedder(
            config.caption_channels, config.hidden_size, config.model_max_length, operations, **weights
        )

    def embed_times(
        self, timestep: Tensor, frame_mask: Mask, dtype: torch.dtype, beside: Tensor | None = None
    ) -> Times:
        """Timesteps [B] for the final layer, and for the blocks; `beside` [B, C] is told with each.

        Returns:
            t [B, 1, C]; t_kept, the same at timestep 0, or None without a frame mask; t_block [B, T or 1, 6, C], which
            of the two a frame is told; and the frame mask as bool [B, T, 1, 1] or None.
        """

        def embedded(timestep: Tensor) -> Tensor:
            t = self.t_embedder(timestep, dtype)
            return (t if beside is None else t + beside)[:, None]

        t, t_kept = embedded(timestep), None
        t_block = self.t_block(t)
        if frame_mask is not None:
            frame_mask = frame_mask.to(device=t.device, dtype=torch.bool)[:, :, None]
            t_kept = embedded(torch.zeros_like(timestep))
            t_block = torch.where(frame_mask, t_block, self.t_block(t_kept))
            frame_mask = frame_mask[..., None]
        return t, t_kept, t_block.unflatten(-1, (6, -1)), frame_mask

    def embed_size(self, x: Tensor, clip: ClipSizes) -> Tensor:
        """Height, width and aspect ratio [B, C] of a clip, in networks that have embedders for them."""
        height, width = (
            layers.rows_of(side, latents * PIXELS_PER_LATENT, x)
            for side, latents in zip((clip.height, clip.width), x.shape[3:])
        )
        sides = self.csize_embedder(torch.stack([height, width], dim=1).flatten(), x.dtype).reshape(len(x), -1)
        return torch.cat([sides, self.ar_embedder(height / width, x.dtype)], dim=1)

    def embed_caption(self, caption: Tensor, caption_mask: Mask, batch: int, dtype: torch.dtype) -> tuple[Tensor, Mask]:
        """Projected caption [B, L, C] and its attention mask, bool [B, 1, 1, L] or None."""
        caption = self.y_embedder(layers.repeat_rows(caption.to(dtype), batch))
        if caption_mask is not None:
            caption_mask = layers.repeat_rows(caption_mask, batch)[:, None, None].to(caption.device) != 0
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

    def grid(self, x: Tensor) -> tuple[int, int, int]:
        """How many tokens padded latents [B, C, T, H, W] make: (frames, rows, columns)."""
        return tuple(length // patch for length, patch in zip(x.shape[2:], self.config.patch_size))

    def unpatchify(self, x: Tensor, grid_h: int, grid_w: int) -> Tensor:
        """Tokens [B, T, S, patch volume · C] to [B, C, T, H, W]."""
        pt, ph, pw = self.config.patch_size
        return rearrange(
            x, "B T (h w) (pt ph pw C) -> B C (T pt) (h ph) (w pw)", h=grid_h, w=grid_w, pt=pt, ph=ph, pw=pw
        )


class SizedTransformer(VideoTransformer):
    """What Open-Sora 1.1 and later share: positions that scale with the resolution, and time as a rotation (rope)."""

    OPTIONAL = ("rope.freqs",)

    def computed(self) -> dict[str, Tensor]:
        return {"rope.freqs": layers.rope_frequencies(self.config.hidden_size // self.config.num_heads)}

    def add_positions(self, **weights: Any) -> None:
        self.rope = nn.Module()
        self.rope.register_buffer("freqs", self.computed()["rope.freqs"].to(device=weights.get("device")))

    def position_scale(self, x: Tensor, clip: ClipSizes) -> float:
        """How much larger than the model's own size the video is, by the side of a square of its area in pixels."""
        height, width = (
            layers.shared(side, x.shape[n] * PIXELS_PER_LATENT) for side, n in ((clip.height, 3), (clip.width, 4))
        )
        return (height * width) ** 0.5 / self.config.input_sq_size

    def positions(self, grid: tuple[int, int, int], scale: float, like: Tensor) -> Tensor:
        """The positions of a token grid, [1, rows · columns, C], in the dtype and on the device of `like`."""
        _, rows, columns = grid
        base = round((rows * columns) ** 0.5)
        size = self.config.hidden_size
        return layers.position_embedding_2d(size, rows, columns, scale, base, like.device).to(like.dtype)

    def frame_rotation(self, x: Tensor) -> Tensor:
        """How the frames of tokens x [B, T, S, C] turn queries and keys: `turns`, [T, 1, 1, P, 2, 2]."""
        frequencies = cast(Tensor, self.rope.freqs)
        return turns(torch.arange(x.shape[1], device=x.device), frequencies)[:, None, None]
