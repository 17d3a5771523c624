"""What ComfyUI is to know of our latents: their scale, their sizes, and how to preview them."""

import math

import comfy.latent_formats
import torch


def frames_side_by_side(x0):
    """Lay all latent frames [B, C, T, H, W] out in one picture [B, C, 1, rows · H, columns · W] for previews.

    ComfyUI previews the first frame only, which stands still when that frame is pinned.
    """
    if x0.ndim != 5 or x0.shape[2] == 1:
        return x0
    B, C, T, H, W = x0.shape
    columns = min(T, max(1, round(math.sqrt(T * H / W))))
    rows = -(-T // columns)
    x0 = torch.cat([x0, x0.new_zeros(B, C, rows * columns - T, H, W)], dim=2)
    x0 = x0.unflatten(2, (rows, columns)).permute(0, 1, 2, 4, 3, 5)
    return x0.reshape(B, C, 1, rows * H, columns * W)


class VideoLatents(comfy.latent_formats.LatentFormat):
    """Latents of the video VAE 1.2; they are normalised already, as those of all our VAEs are."""

    scale_factor = 1.0
    latent_channels = 4
    latent_dimensions = 3
    spacial_downscale_ratio = 8
    temporal_downscale_ratio = 4
    # Until a VAE has been used (preview_colors.py): a neutral guess. Files of this pack carry their own.
    latent_rgb_factors = [[0.20, 0.15, 0.15], [0.10, 0.20, 0.10], [-0.05, 0.05, 0.15], [-0.20, -0.20, -0.25]]
    latent_rgb_mixing = None  # [C, C]: what the clip's mean adds to each latent before its colour is read

    def __init__(self):
        self.latent_rgb_factors_reshape = self._lay_out

    def _lay_out(self, x0):
        """Latents [B, C, T, H, W] as the one picture that ComfyUI takes the colours of."""
        if self.latent_rgb_mixing is not None and x0.ndim == 5:
            mean, mixing = x0.mean(dim=(2, 3, 4)), torch.tensor(self.latent_rgb_mixing).to(x0)
            x0 = x0 + (mean @ mixing)[:, :, None, None, None]
        return frames_side_by_side(x0)


class FrameLatents(VideoLatents):
    """Latents of the 2D VAE, one a frame: those of Stable Diffusion 1.5 (our VAE multiplies by 0.18215 itself)."""

    temporal_downscale_ratio = 1
    latent_rgb_factors = comfy.latent_formats.SD15().latent_rgb_factors
    latent_rgb_factors_bias = comfy.latent_formats.SD15().latent_rgb_factors_bias


class SigmaLatents(FrameLatents):
    """PixArt-Sigma reads latents of SDXL's VAE with that model's factor; our VAE has multiplied by the other one."""

    scale_factor = comfy.latent_formats.SDXL().scale_factor / comfy.latent_formats.SD15().scale_factor
    latent_rgb_factors = comfy.latent_formats.SDXL().latent_rgb_factors
    latent_rgb_factors_bias = comfy.latent_formats.SDXL().latent_rgb_factors_bias


class CausalLatents(VideoLatents):
    """Latents of the causal VAE 1.3, 16 channels."""

    latent_channels = 16
    # Until a VAE has been used (preview_colors.py): channels in turn, so that previews show shapes and motion.
    latent_rgb_factors = [[0.06 * (channel % 3 == color) for color in range(3)] for channel in range(16)]
