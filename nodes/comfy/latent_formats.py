"""What ComfyUI is to know of our latents: their scale, their sizes, and how to preview them."""

import copy

import comfy.latent_formats
import torch

LOOP = 30  # the most latent frames that a preview passes before it begins again: a run of default length shows them all


class MovingPicture:
    """ComfyUI previews one frame of a clip; this gives it the next one at every call, in the colours of the clip.

    What it returns are latents again, so that those who read `latent_rgb_factors` alone get along without it.
    """

    def __init__(self, latent_format: comfy.latent_formats.LatentFormat) -> None:
        self.latent_format = latent_format
        self.network = copy.deepcopy(latent_format.latent_rgb_network)  # of one's own, as it goes to the run's device
        self.calls = 0

    def __call__(self, x0: torch.Tensor) -> torch.Tensor:
        """Latents [B, C, T, H, W] as one frame of them; frames [T, C, H, W] of one clip as so many frames."""
        if x0.ndim == 4:  # from previewers that play the clip themselves
            return self._colored(x0.movedim(0, 1)[None])[0].movedim(1, 0)
        shown = range(0, x0.shape[2], -(-x0.shape[2] // LOOP))
        frame = shown[self.calls % len(shown)]
        self.calls += 1
        return self._colored(x0)[:, :, frame : frame + 1]

    def _colored(self, x0):
        """Latents [B, C, T, H, W] whose colours by the factors are those of the clip."""
        mixing = self.latent_format.latent_rgb_mixing
        if self.network is not None:
            with torch.inference_mode():
                return self.network.to(x0.device)(x0.float())
        if mixing is not None:
            mean = x0.mean(dim=(2, 3, 4))
            return x0 + (mean @ torch.tensor(mixing).to(x0))[:, :, None, None, None]
        return x0


class NewForEachRun:
    """An attribute made anew whenever it is read, as ComfyUI does once a run: no run's state reaches another."""

    def __init__(self, make: type) -> None:
        self.make = make

    def __get__(self, latent_format, owner=None):
        return self if latent_format is None else self.make(latent_format)


class VideoLatents(comfy.latent_formats.LatentFormat):
    """Latents of the video VAE 1.2; they are normalised already, as those of all our VAEs are."""

    scale_factor = 1.0
    latent_channels = 4
    latent_dimensions = 3
    spacial_downscale_ratio = 8
    temporal_downscale_ratio = 4
    # Until a VAE has been used (vae/preview_colors.py): a neutral guess. Files of this pack carry their own.
    latent_rgb_factors = [[0.20, 0.15, 0.15], [0.10, 0.20, 0.10], [-0.05, 0.05, 0.15], [-0.20, -0.20, -0.25]]
    latent_rgb_mixing = None  # [C, C]: what the clip's mean adds to each latent before its colour is read
    latent_rgb_network = None  # a model.colors.ColorNetwork, which takes the place of the mixing
    latent_rgb_factors_reshape = NewForEachRun(MovingPicture)


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
    # Until a VAE has been used (vae/preview_colors.py): channels in turn, so that previews show shapes and motion.
    latent_rgb_factors = [[0.06 * (channel % 3 == color) for color in range(3)] for channel in range(16)]
