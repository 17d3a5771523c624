"""The VAEs of every generation as comfy.sd.VAE, so that stock nodes encode, decode and tile with them too."""

import comfy.model_management as management
import comfy.sd
import torch

from ....model.checkpoints.loading import Plan
from ....model.files import metadata_tensor
from .. import versions
from ..latent import PIXELS
from ..weights import assign_weights
from . import preview_colors
from .network import HOSTED, MARGIN, HostedVAE


class OpenSoraVAE(comfy.sd.VAE):
    """comfy.sd.VAE around a HostedVAE.

    Core's class moves a whole clip to the device and back and copies it on the way. Here each chunk of frames goes
    there when its turn has come, and what it becomes goes straight to its place in the result.
    """

    def __init__(self, plan: Plan, metadata: dict, disable_dynamic: bool = False) -> None:
        # The smallest VAE that core knows: it fills in every attribute of whichever ComfyUI version this is.
        super().__init__(sd={"pixel_space_vae": torch.tensor(1.0)})
        network = HOSTED[plan.network.family](plan.config, dtype=self.vae_dtype)
        network.opensora = metadata
        offload_device = management.vae_offload_device()
        self.latent_channels = network.latent_channels
        self.latent_dim = 3
        self.output_channels = 3
        self.disable_offload = False
        self.crop_input = False  # the network itself deals with what is left over of 8 pixels, as the original does
        self.upscale_ratio = (lambda frames: network.counting.video_frames(frames) if frames > 0 else 0, PIXELS, PIXELS)
        self.downscale_ratio = (network.latent_frames, PIXELS, PIXELS)
        self.upscale_index_formula = self.downscale_index_formula = (4, PIXELS, PIXELS)
        self.process_output = lambda image: image.add_(1.0).div_(2.0).clamp_(0.0, 1.0)  # newer versions want in place
        self.memory_used_encode = self._encode_bytes
        self.memory_used_decode = self._decode_bytes
        self.first_stage_model = network
        self.patcher = versions.patcher_of(network, self.device, offload_device, disable_dynamic)
        if versions.is_dynamic(self.patcher):
            versions.archive_dtypes(network)
            network.eval().requires_grad_(False)
            network.load_state_dict(plan.weights, assign=True)
        else:
            assign_weights(
                network,
                plan.weights,
                offload_device,
                lambda key, part: torch.float32 if key in network.OPTIONAL else self.vae_dtype,
            )
        self.size = None
        self.model_size()

    def _encode_bytes(self, shape, dtype, portion=None):
        """Bytes on the device to encode a video [B, 3, T, H, W] by a Portion, left out by the network's first.

        0 where all but a slice waits in main memory.
        """
        network = self.first_stage_model
        portion = portion or network.portions[0]
        if portion.maps == "memory":
            return 0
        frames = shape[2] if len(shape) == 5 else 1
        values = MARGIN * network.encode_values(frames, portion)
        return int(values * shape[-2] * shape[-1] * management.dtype_size(dtype))

    def _decode_bytes(self, shape, dtype, portion=None):
        """Bytes on the device to decode latents [B, C, T, h, w]; as `_encode_bytes`."""
        network = self.first_stage_model
        portion = portion or network.portions[0]
        if portion.maps == "memory":
            return 0
        latents = shape[2] if len(shape) == 5 else 1
        values = MARGIN * network.decode_values(latents, portion)
        pixels = shape[-2] * shape[-1] * PIXELS**2
        size = int(values * pixels * management.dtype_size(dtype))
        if self.output_device == self.device:  # then the whole video stays there, in fp32
            size += 12 * pixels * shape[0] * network.counting.video_frames(latents)
        return size

    def get_sd(self) -> dict[str, torch.Tensor]:
        """What ComfyUI's Save nodes write: the weights, and the file's metadata as a tensor."""
        return {**super().get_sd(), **metadata_tensor(self.first_stage_model.opensora)}

    def decode(self, samples_in: torch.Tensor, vae_options: dict | None = None) -> torch.Tensor:
        """Images [B, T, H, W, 3] in 0…1 of latents [B, C, T', h, w] or [B, C, h, w].

        `num_frames` of vae_options says T; left out, it is the valid count.
        """
        images = self._decode(samples_in, (vae_options or {}).get("num_frames"))
        preview_colors.learn(self)
        return images

    def encode(self, pixel_samples: torch.Tensor) -> torch.Tensor:
        """Latents [B, C, T', h, w] of images [T, H, W, C] in 0…1, one clip, or [B, T, H, W, C]."""
        latents = self._encode(pixel_samples)
        preview_colors.learn(self)
        return latents

    def decode_tiled_3d(
        self, samples: torch.Tensor, tile_t: int = 999, tile_x: int = 32, tile_y: int = 32,
        overlap: tuple[int, int, int] = (1, 8, 8),
    ) -> torch.Tensor:  # fmt: skip
        """Core's, for its tiled decoding: video [B, 3, T, H, W] in 0…1, working on the area of a tile at a time.

        Tiles would show, as each would be normalised by itself. Layers work by slices of as many pixels instead.
        """
        return self._decode(samples, tile=tile_x * tile_y * PIXELS**2).movedim(-1, 1)

    def encode_tiled_3d(
        self, samples: torch.Tensor, tile_t: int = 9999, tile_x: int = 512, tile_y: int = 512,
        overlap: tuple[int, int, int] = (1, 64, 64),
    ) -> torch.Tensor:  # fmt: skip
        """Core's, as `decode_tiled_3d`: latents of a video [B, C, T, H, W] in 0…1."""
        return self._encode(samples.movedim(1, -1), tile=tile_x * tile_y)

    def _decode(self, samples, num_frames=None, tile=None):
        """`decode`, with the memory that a tile of so many pixels would take where `tile` is given."""
        network = self.first_stage_model
        samples = samples if samples.ndim == 5 else samples[:, :, None]  # an image latent without a time axis
        frames = network.frames_of(samples.shape[2], num_frames)
        values = network.decode_values(samples.shape[2], network.portions[-1])
        images = None
        with versions.on_device(self.device):
            self._start(self._decode_bytes, samples.shape, tile, values)
            for clip, latents in enumerate(samples):
                done = 0
                for piece in network.decode_chunks(latents[None], frames):
                    if images is None:
                        images = self._empty(len(samples), frames, *piece.shape[3:], self.output_channels)
                    # Where it was made: a CPU takes longer for it than a GPU for a part of the next chunk.
                    made = self.process_output(piece[0].permute(1, 2, 3, 0).to(images.dtype))
                    images[clip, done : done + piece.shape[2]] = made
                    done += piece.shape[2]
                    del piece, made  # before the next one is made
        return images

    def _encode(self, pixels, tile=None):
        """`encode`, with the memory that a tile of so many pixels would take where `tile` is given."""
        network = self.first_stage_model
        clips = (pixels if pixels.ndim == 5 else pixels[None])[..., : self.output_channels]
        B, T, H, W, C = clips.shape
        values = network.encode_values(T, network.portions[-1])
        latents = None
        with versions.on_device(self.device):
            self._start(self._encode_bytes, (B, C, T, H, W), tile, values)
            for clip, images in enumerate(clips):

                def video(frames: slice, images: torch.Tensor = images) -> torch.Tensor:
                    return self.process_input(images[frames].to(self.device)).permute(3, 0, 1, 2)[None]

                done = 0
                for piece in network.encode_chunks(video, T):
                    if latents is None:
                        latents = self._empty(B, self.latent_channels, network.latent_frames(T), *piece.shape[3:])
                    latents[clip, :, done : done + piece.shape[2]] = piece[0]
                    done += piece.shape[2]
                    del piece
        return latents

    def _empty(self, *shape):
        """A result that is yet to be filled."""
        return torch.empty(shape, device=self.output_device, dtype=versions.vae_output_dtype(self))

    def _start(self, bytes_of, shape, tile, values):
        """Load the network, and let it set out by the first Portion that fits, or for a tile's area by the last."""
        self.throw_exception_if_invalid()
        network = self.first_stage_model
        portion, slice_values = network.portions[-1], None if tile is None else int(tile * values)
        needed = bytes_of(shape, self.vae_dtype, network.portions[0]) if tile is None else 0
        management.load_models_gpu([self.patcher], memory_required=needed, force_full_load=self.disable_offload)
        if tile is None:
            free = versions.free_memory(self.patcher, self.device)
            portion = next(each for each in network.portions if bytes_of(shape, self.vae_dtype, each) <= free)
        network.start(
            portion, self.device, self.vae_dtype, slice_values, lambda: versions.free_memory(self.patcher, self.device)
        )


def network_of(vae: object) -> HostedVAE:
    """The HostedVAE inside a VAE. ValueError where it is none of this pack's."""
    network = getattr(vae, "first_stage_model", None)
    if not isinstance(network, HostedVAE):
        raise ValueError(
            f"vae is {type(network).__name__}, not an Open-Sora video VAE; connect the output of Load Open-Sora VAE"
        )
    return network


def encode(vae: comfy.sd.VAE, pixels: torch.Tensor) -> torch.Tensor:
    """IMAGE [T, H, W, 3] as one video: latents [1, C, T', H // 8, W // 8]."""
    network_of(vae)
    return vae.encode(pixels)


def decode(vae: comfy.sd.VAE, samples: torch.Tensor, frames: int) -> torch.Tensor:
    """Latents [B, C, T', h, w] to IMAGE [B · frames, H, W, 3], clips one after the other."""
    network_of(vae)
    if samples.ndim == 4:  # an image latent without a time axis
        samples = samples[:, :, None]
    images = vae.decode(samples, vae_options={"num_frames": frames})
    return images.flatten(0, 1)
