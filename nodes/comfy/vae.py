"""The VAEs of every generation as comfy.sd.VAE, so that stock nodes encode, decode and tile with them too."""

import comfy.model_management as management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.utils
import torch
import torch.nn.functional as F

from ...model.files import read_model
from ...model.loading import plan_vae
from ...model.vae import VideoVAE
from ...model.vae_2d import ImageVAE
from ...model.vae_spatial import IMAGES_AT_ONCE
from ...model.vae_v1_3 import CausalVAE
from .latent import COUNTING, PIXELS
from .weights import assign_weights


class HostedVAE:
    """A VAE of model/ as ComfyUI runs it: it shows progress, stops on interrupt, and knows what it costs.

    Mixed in before the network's class. Chunks of frames that do not see each other are walked through here.
    """

    chunks_stand_alone = True
    # Values that are alive at once for a pixel of a frame; both are ComfyUI's own figures for this 2D VAE.
    encode_values, decode_values = 1767, 2178
    valid_counts = ""  # in words, for messages

    def __init__(self, sizes, dtype=None):
        with torch.device("meta"):
            super().__init__(sizes, operations=comfy.ops.disable_weight_init, dtype=dtype)
        self.opensora = {}

    def latent_side(self, pixels):
        """Latents along a side of so many pixels."""
        return COUNTING[self.family].latent_side(pixels)

    def frames_of(self, num_latents, asked=None):
        """Frames to decode so many latents to: those asked for, else the valid count."""
        return self.video_frames(num_latents) if asked is None else asked

    def frames_at_once(self, batch, frames):
        """How many frames the network works on together."""
        return min(IMAGES_AT_ONCE, batch * frames)

    def encode(self, video, noise=None):
        """Latents [B, C, T', h, w] of a video [B, 3, T, H, W] in -1…1."""
        if noise is not None or not self.chunks_stand_alone:
            return super().encode(video, noise)
        return torch.cat([super(HostedVAE, self).encode(piece) for piece in walk(video.split(self.chunk_frames, 2))], 2)

    def decode(self, latents, num_frames=None):
        """Video [B, 3, T, H, W]; `num_frames` left out: the valid count for these latents."""
        if latents.ndim == 4:  # an image latent without a time axis
            latents = latents[:, :, None]
        if latents.shape[1] != self.latent_channels:
            raise ValueError(
                f"samples has {latents.shape[1]} channels; this VAE decodes latents with {self.latent_channels}"
            )
        return self.decode_pieces(latents, self.frames_of(latents.shape[2], num_frames))

    def decode_pieces(self, latents, num_frames):
        """`decode`, chunk by chunk."""
        if self.latent_frames(num_frames) != latents.shape[2]:
            return super().decode(latents, num_frames)  # refuses, and says what fits
        pieces = latents.split(self.chunk_latents, dim=2)
        lengths = (min(self.chunk_frames, num_frames - i * self.chunk_frames) for i in range(len(pieces)))
        return torch.cat([super(HostedVAE, self).decode(*piece) for piece in walk(list(zip(pieces, lengths)))], 2)


def walk(pieces):
    """The pieces one by one, with ComfyUI's progress bar where there are several; stops on interrupt."""
    progress = comfy.utils.ProgressBar(len(pieces)) if len(pieces) > 1 else None
    for piece in pieces:
        management.throw_exception_if_processing_interrupted()
        yield piece
        if progress is not None:
            progress.update(1)


class HostedVideoVAE(HostedVAE, VideoVAE):
    """The video VAE of Open-Sora 1.2."""

    valid_counts = "1, and from 17 on 17 k + 4 j with j from 0 to 4: 17, 21, 25, 29, 33, 34, 38, …"


class HostedImageVAE(HostedVAE, ImageVAE):
    """The 2D VAE of Open-Sora 1.0 and 1.1."""

    chunk_frames = chunk_latents = IMAGES_AT_ONCE
    valid_counts = "all from 1 on"


class HostedCausalVAE(HostedVAE, CausalVAE):
    """The 3D VAE of Open-Sora 1.3; its chunks share frames, so it walks through them itself."""

    chunks_stand_alone = False
    # Values that are alive at once; ComfyUI's own figures for a causal 3D VAE of these widths.
    encode_values, decode_values = 900, 1500
    valid_counts = "1 and 16 k + 1: 17, 33, 49, 65, 81, 97, 113, …"

    def frames_of(self, num_latents, asked=None):
        """What the chunks decode to, whatever was asked for: frames behind the last group are in no latent."""
        return self.video_frames(num_latents)

    def frames_at_once(self, batch, frames):
        """How many frames the network works on together: a chunk of every clip."""
        return batch * min(self.chunk_frames, frames)

    def decode_pieces(self, latents, num_frames):
        """`decode`, chunk by chunk."""
        return torch.cat(list(self.decode_chunks(latents)), dim=2)

    def each_chunk(self, pieces):
        """`walk`."""
        return walk(pieces)


HOSTED = {network.family: network for network in (HostedVideoVAE, HostedImageVAE, HostedCausalVAE)}


class OpenSoraVAE(comfy.sd.VAE):
    """comfy.sd.VAE around a HostedVAE; only what depends on the time axis differs from core's class."""

    num_frames = None  # how many frames the `decode` that is running was asked for

    def __init__(self, plan, metadata, disable_dynamic=False):
        # The smallest VAE that core knows: it fills in every attribute of whichever ComfyUI version this is.
        super().__init__(sd={"pixel_space_vae": torch.tensor(1.0)})
        network = HOSTED[plan.family.family](plan.sizes, dtype=self.vae_dtype)
        network.opensora = metadata
        offload_device = management.vae_offload_device()
        self.latent_channels = network.latent_channels
        self.latent_dim = 3
        self.output_channels = 3
        self.disable_offload = False
        self.crop_input = False  # the network itself deals with what is left over of 8 pixels, as the original does
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
            network.load_state_dict(plan.weights, assign=True)
        else:
            assign_weights(
                network,
                plan.weights,
                offload_device,
                lambda key, part: torch.float32 if key in network.OPTIONAL else self.vae_dtype,
            )
        network.eval().requires_grad_(False)
        self.size = None
        self.model_size()

    def _memory_encode(self, shape, dtype):
        """Bytes for a video [B, 3, T, H, W]: the network on the frames it takes at once, and the video itself."""
        network, pixels = self.first_stage_model, shape[-2] * shape[-1]
        values = network.encode_values * network.frames_at_once(shape[0], shape[2]) + 3 * shape[2]
        return pixels * values * management.dtype_size(dtype)

    def _memory_decode(self, shape, dtype):
        """Bytes for latents [B, C, T, h, w]."""
        network, pixels = self.first_stage_model, shape[-2] * shape[-1] * PIXELS**2
        frames = network.video_frames(shape[2]) if len(shape) == 5 else 1
        values = network.decode_values * network.frames_at_once(shape[0], frames) + 3 * frames
        return pixels * values * management.dtype_size(dtype)

    def decode(self, samples_in, vae_options=None):
        """Core's; kept for its out-of-memory fallback to `decode_tiled_3d`, which does not hand `vae_options` on."""
        vae_options = vae_options or {}
        self.num_frames = vae_options.get("num_frames")
        try:
            return super().decode(samples_in, vae_options)
        finally:
            self.num_frames = None

    def decode_tiled_3d(self, samples, tile_t=999, tile_x=32, tile_y=32, overlap=(1, 8, 8)):
        """Tiles in space only. Chunks that do not see each other are decoded one after the other; others together."""
        network = self.first_stage_model
        T = samples.shape[2]
        wanted = network.frames_of(T, self.num_frames)
        video = []
        for piece in samples.split(network.chunk_latents if network.chunks_stand_alone else T, dim=2):
            # One latent is an image only when it is the whole clip; at the end of a video it is a group of 4 frames.
            left = wanted - sum(part.shape[2] for part in video)
            frames = min(network.chunk_frames, left) if network.chunks_stand_alone else left
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
                    index_formulas=self.upscale_index_formula,
                    output_device=self.output_device,
                )
            )
        return self.process_output(torch.cat(video, dim=2))

    def encode_tiled_3d(self, samples, tile_t=9999, tile_x=512, tile_y=512, overlap=(1, 64, 64)):
        """Tiles in space only, as `decode_tiled_3d`.

        Tiles need whole latents: what is left over of 8 pixels goes, or where the network makes a latent of it, its
        last pixels are repeated.
        """
        network = self.first_stage_model
        height, width = (network.latent_side(size) * PIXELS for size in samples.shape[-2:])
        samples = samples[..., :height, :width]
        missing = (0, width - samples.shape[-1], 0, height - samples.shape[-2], 0, 0)
        samples = F.pad(samples, missing, mode="replicate") if any(missing) else samples
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
            for piece in samples.split(network.chunk_frames if network.chunks_stand_alone else samples.shape[2], dim=2)
        ]
        return torch.cat(latents, dim=2)


def load_vae(path, disable_dynamic=False):
    """An OpenSoraVAE for the file or Hugging Face folder at `path`, of whichever generation it is.

    `disable_dynamic`: ComfyUI asks for a plain ModelPatcher when it clones one itself.

    Raises ValueError for a damaged file, another model, or keys that do not fit.
    """
    try:
        state_dict, metadata, config = read_model(path)
    except (ValueError, OSError) as error:
        raise ValueError(f"vae_name: {error}") from error
    try:
        plan = plan_vae(state_dict, config)
    except ValueError as error:
        raise ValueError(f"vae_name: {path}: {error}") from error
    vae = OpenSoraVAE(plan, metadata.get("opensora") or {}, disable_dynamic)
    vae.patcher.cached_patcher_init = (load_vae_patcher, (path,))
    return vae


def load_vae_patcher(path, disable_dynamic=False):
    """The patcher of a VAE loaded afresh, for ComfyUI to clone to another device. Arguments as `load_vae`."""
    return load_vae(path, disable_dynamic).patcher


def network_of(vae):
    """The HostedVAE inside a VAE. ValueError where it is none of this pack's."""
    network = getattr(vae, "first_stage_model", None)
    if not isinstance(network, HostedVAE):
        raise ValueError(
            f"vae is {type(network).__name__}, not an Open-Sora video VAE; connect the output of Load Open-Sora VAE"
        )
    return network


def encode(vae, pixels):
    """IMAGE [T, H, W, C] as one video: latents [1, C, T', H // 8, W // 8]. An alpha channel is dropped."""
    network_of(vae)
    return vae.encode(pixels[..., :3])


def decode(vae, samples, frames):
    """Latents [B, C, T', h, w] to IMAGE [B · frames, H, W, 3], clips one after the other."""
    network_of(vae)
    if samples.ndim == 4:  # an image latent without a time axis
        samples = samples[:, :, None]
    images = vae.decode(samples, vae_options={"num_frames": frames})
    return images.flatten(0, 1)
