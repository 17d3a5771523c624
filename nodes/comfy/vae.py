"""The video VAE as a comfy.sd.VAE, so that stock nodes encode, decode and tile with it too."""

import comfy.model_management as management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.utils
import torch

from ...model.loading import VAE_OPTIONAL, check_keys, normalise_vae_keys, vae_config
from ...model.vae import IMAGES_AT_ONCE, VideoVAE
from . import files
from .latent import PIXELS
from .weights import assign_weights

# Bytes of activations per pixel of a frame, at one byte a value; both are ComfyUI's own figures for this 2D VAE.
ENCODE_BYTES, DECODE_BYTES = 1767, 2178


class OpenSoraVideoVAE(VideoVAE):
    """VideoVAE that shows progress, stops on interrupt, and decodes to the valid count when none is given."""

    def __init__(self, sizes, dtype=None):
        with torch.device("meta"):
            super().__init__(sizes, operations=comfy.ops.disable_weight_init, dtype=dtype)
        self.opensora = {}

    def encode(self, video, noise=None):
        """Latents [B, 4, T', h, w]; chunks are independent, so each is encoded on its own."""
        if noise is not None:
            return super().encode(video, noise)
        return self._each_chunk(video.split(self.chunk_frames, dim=2), super().encode)

    def decode(self, latents, num_frames=None):
        """Video [B, 3, T, H, W]; `num_frames` left out: the valid count for these latents."""
        if latents.ndim == 4:  # an image latent without a time axis
            latents = latents[:, :, None]
        if latents.shape[1] != self.latent_channels:
            raise ValueError(
                f"samples has {latents.shape[1]} channels; this VAE decodes latents with {self.latent_channels}"
            )
        if num_frames is None:
            num_frames = self.video_frames(latents.shape[2])
        if self.latent_frames(num_frames) != latents.shape[2]:
            return super().decode(latents, num_frames)  # refuses, and says what fits
        pieces = latents.split(self.chunk_latents, dim=2)
        lengths = (min(self.chunk_frames, num_frames - i * self.chunk_frames) for i in range(len(pieces)))
        decode = super().decode
        return self._each_chunk(list(zip(pieces, lengths)), lambda piece: decode(*piece))

    def _each_chunk(self, pieces, function):
        progress = comfy.utils.ProgressBar(len(pieces)) if len(pieces) > 1 else None
        done = []
        for piece in pieces:
            management.throw_exception_if_processing_interrupted()
            done.append(function(piece))
            if progress is not None:
                progress.update(1)
        return torch.cat(done, dim=2)


class OpenSoraVAE(comfy.sd.VAE):
    """comfy.sd.VAE around OpenSoraVideoVAE; only what depends on chunks in time differs from core's class."""

    num_frames = None  # how many frames the `decode` that is running was asked for

    def __init__(self, state_dict, sizes, metadata, disable_dynamic=False):
        # The smallest VAE that core knows: it fills in every attribute of whichever ComfyUI version this is.
        super().__init__(sd={"pixel_space_vae": torch.tensor(1.0)})
        network = OpenSoraVideoVAE(sizes, dtype=self.vae_dtype)
        network.opensora = metadata
        offload_device = management.vae_offload_device()
        self.latent_channels = sizes.temporal.latent_channels
        self.latent_dim = 3
        self.output_channels = 3
        self.disable_offload = False
        self.crop_input = False  # the network itself drops what is left over of 8 pixels, as the original does
        self.upscale_ratio = (lambda frames: network.video_frames(frames) if frames > 0 else 0, PIXELS, PIXELS)
        self.downscale_ratio = (network.latent_frames, PIXELS, PIXELS)
        self.upscale_index_formula = self.downscale_index_formula = (4, PIXELS, PIXELS)
        self.process_output = lambda image: image.add_(1.0).div_(2.0).clamp_(0.0, 1.0)  # newer versions want in place
        self.memory_used_encode = self._memory_encode
        self.memory_used_decode = self._memory_decode
        self.first_stage_model = network
        plain = comfy.model_patcher.ModelPatcher
        patcher_class = plain if disable_dynamic else getattr(comfy.model_patcher, "CoreModelPatcher", plain)
        self.patcher = patcher_class(network, load_device=self.device, offload_device=offload_device)
        if getattr(self.patcher, "is_dynamic", lambda: False)():
            # Tensors keep the file's dtype; this notes the one they are cast to when they are used.
            getattr(management, "archive_model_dtypes", lambda network: None)(network)
            network.load_state_dict(state_dict, assign=True)
        else:
            assign_weights(
                network,
                state_dict,
                offload_device,
                lambda key, part: torch.float32 if key in VAE_OPTIONAL else self.vae_dtype,
            )
        network.eval().requires_grad_(False)
        self.size = None
        self.model_size()

    def _memory_encode(self, shape, dtype):
        """Bytes for a video [B, 3, T, H, W]: the 2D VAE on a few frames, and the video itself."""
        pixels = shape[-2] * shape[-1]
        at_once = min(IMAGES_AT_ONCE, shape[0] * shape[2])
        return pixels * (ENCODE_BYTES * at_once + 3 * shape[2]) * management.dtype_size(dtype)

    def _memory_decode(self, shape, dtype):
        """Bytes for latents [B, 4, T, h, w]."""
        pixels = shape[-2] * shape[-1] * PIXELS**2
        frames = self.first_stage_model.video_frames(shape[2]) if len(shape) == 5 else 1
        at_once = min(IMAGES_AT_ONCE, shape[0] * frames)
        return pixels * (DECODE_BYTES * at_once + 3 * frames) * management.dtype_size(dtype)

    def decode(self, samples_in, vae_options=None):
        """Core's; kept for its out-of-memory fallback to `decode_tiled_3d`, which does not hand `vae_options` on."""
        vae_options = vae_options or {}
        self.num_frames = vae_options.get("num_frames")
        try:
            return super().decode(samples_in, vae_options)
        finally:
            self.num_frames = None

    def decode_tiled_3d(self, samples, tile_t=999, tile_x=32, tile_y=32, overlap=(1, 8, 8)):
        """Tiles in space, whole chunks in time: chunks do not see each other, so their borders need no overlap."""
        network = self.first_stage_model
        pieces = samples.split(network.chunk_latents, dim=2)
        wanted = self.num_frames or network.video_frames(samples.shape[2])
        video = []
        for piece in pieces:
            # One latent is an image only when it is the whole clip; at the end of a video it is a group of 4 frames.
            frames = min(network.chunk_frames, wanted - sum(part.shape[2] for part in video))
            video.append(
                comfy.utils.tiled_scale_multidim(
                    piece,
                    lambda tile, frames=frames: network.decode(
                        tile.to(self.vae_dtype).to(self.device), num_frames=frames
                    ).float(),
                    tile=(piece.shape[2], tile_x, tile_y),
                    overlap=(0, *overlap[1:]),
                    upscale_amount=(lambda latents, frames=frames: frames if latents else 0, PIXELS, PIXELS),
                    out_channels=self.output_channels,
                    index_formulas=(4, PIXELS, PIXELS),
                    output_device=self.output_device,
                )
            )
        return self.process_output(torch.cat(video, dim=2))

    def encode_tiled_3d(self, samples, tile_t=9999, tile_x=512, tile_y=512, overlap=(1, 64, 64)):
        """Tiles in space, whole chunks in time; what is left over of 8 pixels goes, right and bottom."""
        network = self.first_stage_model
        height, width = (size // PIXELS * PIXELS for size in samples.shape[-2:])
        latents = [
            comfy.utils.tiled_scale_multidim(
                piece,
                lambda tile: network.encode(self.process_input(tile).to(self.vae_dtype).to(self.device)).float(),
                tile=(piece.shape[2], tile_x, tile_y),
                overlap=(0, *overlap[1:]),
                upscale_amount=self.downscale_ratio,
                out_channels=self.latent_channels,
                downscale=True,
                index_formulas=self.downscale_index_formula,
                output_device=self.output_device,
            )
            for piece in samples[..., :height, :width].split(network.chunk_frames, dim=2)
        ]
        return torch.cat(latents, dim=2)


def load_vae(path, disable_dynamic=False):
    """An OpenSoraVAE for the file at `path`. ValueError for a damaged file, another VAE, or keys that do not fit.

    `disable_dynamic`: ComfyUI asks for a plain ModelPatcher when it clones one itself.
    """
    state_dict, metadata = files.read(path, "vae_name")
    try:
        state_dict = normalise_vae_keys(state_dict)
        sizes = vae_config(state_dict, metadata.get("config"))
        with torch.device("meta"):
            check_keys(VideoVAE(sizes), state_dict, VAE_OPTIONAL)
    except ValueError as error:
        raise ValueError(f"vae_name: {path}: {error}") from error
    for name in VAE_OPTIONAL:
        if name not in state_dict:
            state_dict[name] = torch.tensor(getattr(sizes, name)).view(1, -1, 1, 1, 1)
    vae = OpenSoraVAE(state_dict, sizes, metadata, disable_dynamic)
    vae.patcher.cached_patcher_init = (load_vae_patcher, (path,))
    return vae


def load_vae_patcher(path, disable_dynamic=False):
    """The patcher of a VAE loaded afresh, for ComfyUI to clone to another device. Arguments as `load_vae`."""
    return load_vae(path, disable_dynamic).patcher


def network_of(vae):
    """The OpenSoraVideoVAE inside a VAE. ValueError where it is none of this pack's."""
    network = getattr(vae, "first_stage_model", None)
    if not isinstance(network, OpenSoraVideoVAE):
        raise ValueError(
            f"vae is {type(network).__name__}, not an Open-Sora video VAE; connect the output of Load Open-Sora VAE"
        )
    return network


def encode(vae, pixels):
    """IMAGE [T, H, W, C] as one video: latents [1, 4, T', H // 8, W // 8]. An alpha channel is dropped."""
    network_of(vae)
    return vae.encode(pixels[..., :3])


def decode(vae, samples, frames):
    """Latents [B, 4, T', h, w] to IMAGE [B · frames, H, W, 3], clips one after the other."""
    network_of(vae)
    if samples.ndim == 4:  # an image latent without a time axis
        samples = samples[:, :, None]
    images = vae.decode(samples, vae_options={"num_frames": frames})
    return images.flatten(0, 1)
