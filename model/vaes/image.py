"""The 2D VAE of Open-Sora 1.0 and 1.1 as a video VAE: every frame is a latent of its own.

It is Stable Diffusion's (stabilityai/sd-vae-ft-ema), used frame by frame with the factor 0.18215. Defined by
https://github.com/hpcaitech/Open-Sora (branches opensora/v1.0 and opensora/v1.1); Rombach et al. 2022.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..files import strip_prefixes
from ..frames import EACH_FRAME, Counts
from ..shapes_of import StateDict
from .spatial import IMAGES_AT_ONCE, AutoencoderKL, SpatialConfig, decode_frames, draws, encode_frames, modern_keys

PREFIX = "module."  # what Open-Sora's own files have in front of diffusers' key names


@dataclass(frozen=True)
class ImageVAEConfig:
    """Configuration of the 2D VAE."""

    spatial: SpatialConfig = field(default_factory=SpatialConfig)

    @classmethod
    def from_weights(cls, state_dict: StateDict, config: Mapping[str, Any] | None = None) -> "ImageVAEConfig":
        """The configuration of these weights; `config` may give spatial_norm_groups (diffusers: norm_num_groups)."""
        config = config or {}
        groups = config.get("spatial_norm_groups") or config.get("norm_num_groups")
        return cls(SpatialConfig.from_weights(state_dict, PREFIX, {"spatial_norm_groups": groups}))


class ImageVAE(Counts, nn.Module):
    """Encodes and decodes videos of any length frame by frame."""

    family = "vae_2d"
    Config = ImageVAEConfig
    OPTIONAL = ()
    counting = EACH_FRAME
    images_at_once = IMAGES_AT_ONCE

    def __init__(self, config: ImageVAEConfig = ImageVAEConfig(), operations: Any = nn, **weights: Any) -> None:
        super().__init__()
        self.config = config
        self.latent_channels = config.spatial.latent_channels
        self.module = AutoencoderKL(config.spatial, operations, **weights)

    def computed(self) -> dict[str, Tensor]:
        """Nothing: a file has every tensor."""
        return {}

    @staticmethod
    def own_keys(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """The keys of any file of this VAE (Open-Sora's, or diffusers', old or new) as this module names them."""
        return {PREFIX + key: value for key, value in modern_keys(strip_prefixes(state_dict)).items()}

    def encode(self, video: Tensor, noise: torch.Generator | Callable[..., Tensor] | None = None) -> Tensor:
        """Latents [B, 4, T, H / 8, W / 8] of a video [B, 3, T, H, W] in -1…1.

        Args:
            noise: None for the posteriors' modes; a `torch.Generator` for samples; or a callable
                (kind, index, shape) -> tensor that supplies each draw, kind "spatial", one every 4 frames.
        """
        return encode_frames(self.module, self._in_own_dtype(video), draws(noise), self.images_at_once)

    def decode(self, latents: Tensor, num_frames: int) -> Tensor:
        """Video [B, 3, num_frames, 8 h, 8 w] in about -1…1. ValueError where `num_frames` is not the latents' count."""
        if num_frames != latents.shape[2]:
            raise ValueError(
                f"num_frames is {num_frames}, but there are {latents.shape[2]} latents, and this VAE makes one frame "
                f"of each: {latents.shape[2]} frames"
            )
        return decode_frames(self.module, self._in_own_dtype(latents), self.images_at_once)

    def _in_own_dtype(self, x):
        """x in the dtype of the weights; hosts that load weights late or cast them on the way bring the right one."""
        weight = self.module.quant_conv.weight
        return x if weight is None else x.to(weight.dtype)
