"""The VAEs of model/ as ComfyUI runs them: chunk by chunk, with progress and interrupt, within the memory there is."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import comfy.model_management as management
import comfy.ops
import comfy.utils
import torch
from torch import Tensor

from ....model.frames import EACH_FRAME, Counting
from ....model.vaes.image import ImageVAE
from ....model.vaes.slicing import Slices, in_slices
from ....model.vaes.spatial import IMAGES_AT_ONCE
from ....model.vaes.v1_2 import VideoVAE
from ....model.vaes.v1_3 import CausalVAE
from ..versions import with_less

WORDS = {None: "whole", "device": "in slices", "memory": "in slices, with all that waits in main memory"}
# Beside the tensors that are counted, convolutions have workspaces: on a CPU, 1.26 times were measured where a picture
# is encoded, 1.42 times where it is decoded.
MARGIN = 1.3
# What is alive for a value of a slice: pieces of two maps, one of them normalised in fp32, and the layer's result.
SLICE_COPIES = 8
LEAST_SLICE, SHRINK = 2**20, 4


@dataclass(frozen=True)
class Portion:
    """How much of a chunk is worked on at once.

    `images`: how many frames the 2D VAE takes together. `maps`: None, pictures go through whole; "device" and
    "memory", layers work by slices, and whole feature maps lie on the device or in main memory.
    """

    images: int = IMAGES_AT_ONCE
    maps: str | None = None


class HostedVAE:
    """What the VAEs share inside ComfyUI. Mixed in before the network's class.

    `bring` and `attempt` are what makes the difference: a chunk comes to the device when its turn has come, and where
    memory runs out on it, it is tried again by the next of `portions`. All give the same result but for rounding.
    """

    portions = (Portion(), Portion(1), Portion(1, "memory"))
    valid_counts = ""  # in words, for messages

    def __init__(self, config: Any, dtype: torch.dtype | None = None) -> None:
        with torch.device("meta"):
            super().__init__(config, operations=comfy.ops.disable_weight_init, dtype=dtype)
        self.opensora = {}
        self.portion, self.slice_values, self.home, self.free = self.portions[0], None, {}, None

    @property
    def at_once(self) -> Counting:
        """The Counting whose chunks go through together."""
        return self.counting

    def frames_of(self, num_latents: int, asked: int | None = None) -> int:
        """Frames to decode so many latents to: those asked for, else the valid count."""
        return self.counting.video_frames(num_latents) if asked is None else asked

    # --- what it costs

    def encode_values(self, frames: int, portion: Portion) -> float:
        """Values alive at once, for each pixel of a frame, while a chunk of `frames` is encoded by `portion`."""
        first = self.config.spatial.block_out_channels[0]
        images = min(portion.images, frames)
        return (4 if portion.maps is None else 3) * first * images + 3 * min(frames, self.at_once.chunk_frames)

    def decode_values(self, latents: int, portion: Portion) -> float:
        """Values alive at once, for each pixel of a frame, while a chunk of `latents` is decoded by `portion`."""
        first, second = self.config.spatial.block_out_channels[:2]
        frames = self.counting.video_frames(min(latents, self.at_once.chunk_latents))
        if portion.maps is None:
            values = max(2 * second + first, second + 3 * first)
        else:
            values = max(second + 2 * first, 1.25 * second)
        return values * min(portion.images, frames) + 3 * frames

    # --- running within what there is

    def start(
        self, portion: Portion, device: torch.device, dtype: torch.dtype, values: int | None = None,
        free: Callable[[], int] | None = None,
    ) -> None:  # fmt: skip
        """Set out by `portion` on `device`, in `dtype`, in slices of so many values (None: as free() bytes allow)."""
        self.portion, self.slice_values, self.home, self.free = portion, values, dict(device=device, dtype=dtype), free

    def bring(self, x: Tensor) -> Tensor:
        """x where and as it is worked on."""
        return x.to(**self.home) if self.home else x

    def _in_own_dtype(self, x):
        """As the network's. Weights may keep the file's dtype until they are used: the one to work in counts."""
        return x.to(self.home["dtype"]) if self.home else super()._in_own_dtype(x)

    def attempt(self, work: Callable[..., Tensor], *arguments: object) -> Tensor:
        """work(*arguments) by `portion`; out of memory, again by the next."""

        def by_portion():
            self.images_at_once = self.portion.images
            with in_slices(self._slices()):
                return work(*arguments)

        return with_less(by_portion, self._less)

    def _slices(self):
        if self.portion.maps is None:
            return None
        device = self.home["device"]
        if self.slice_values is None:
            half = self.free() // 2
            self.slice_values = max(LEAST_SLICE, int(half // (SLICE_COPIES * self.home["dtype"].itemsize)))
        store = device if self.portion.maps == "device" else torch.device("cpu")
        return Slices(self.slice_values, device, store)

    def _less(self):
        """Go over to the next portion, or to smaller slices; False where there is nothing smaller."""
        later = self.portions[self.portions.index(self.portion) + 1 :] if self.portion in self.portions else ()
        if later:
            self.portion = later[0]
        elif self.slice_values > LEAST_SLICE:
            self.slice_values = max(LEAST_SLICE, self.slice_values // SHRINK)
        else:
            return False
        logging.warning(
            "Open-Sora: the VAE ran out of memory and goes on with less at once (images: %d, %s); the result is the "
            "same",
            self.portion.images, WORDS[self.portion.maps],
        )  # fmt: skip
        return True

    # --- chunk by chunk

    def encode(self, video: Tensor, noise: Tensor | None = None) -> Tensor:
        """Latents [B, C, T', h, w] of a video [B, 3, T, H, W] in -1…1."""
        if noise is not None:
            return super().encode(video, noise)
        return torch.cat(list(self.encode_chunks(lambda frames: video[:, :, frames], video.shape[2])), 2)

    def encode_chunks(self, frames_of: Callable[[slice], Tensor], num_frames: int) -> Iterator[Tensor]:
        """`encode` piece by piece; frames_of(slice) gives frames of the video, [B, 3, t, H, W]."""
        for chunk in walk(self.at_once.chunks(num_frames)):
            frames = self.bring(frames_of(slice(chunk.start, chunk.stop)))
            yield self.attempt(super().encode, frames)

    def decode(self, latents: Tensor, num_frames: int | None = None) -> Tensor:
        """Video [B, 3, T, H, W]; `num_frames` left out: the valid count for these latents."""
        if latents.ndim == 4:  # an image latent without a time axis
            latents = latents[:, :, None]
        return torch.cat(list(self.decode_chunks(latents, self.frames_of(latents.shape[2], num_frames))), 2)

    def decode_chunks(self, latents: Tensor, num_frames: int) -> Iterator[Tensor]:
        """`decode` of latents [B, C, T', h, w] piece by piece. ValueError for channels or counts that do not fit."""
        self.refuse_misfits(latents)
        if self.latent_frames(num_frames) != latents.shape[2]:
            super().decode(latents, num_frames)  # refuses, and says what fits
        pieces = latents.split(self.at_once.chunk_latents, dim=2)
        for piece, frames in walk(list(zip(pieces, self.at_once.chunks(num_frames)))):
            yield self.attempt(super().decode, self.bring(piece), len(frames))

    def refuse_misfits(self, latents: Tensor) -> None:
        """ValueError for another VAE's latents."""
        if latents.shape[1] != self.latent_channels:
            raise ValueError(
                f"samples has {latents.shape[1]} channels; this VAE decodes latents with {self.latent_channels}"
            )


def walk(pieces: Sequence) -> Iterator:
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

    at_once = replace(EACH_FRAME, chunk_frames=IMAGES_AT_ONCE)
    valid_counts = "all from 1 on"


class HostedCausalVAE(HostedVAE, CausalVAE):
    """The 3D VAE of Open-Sora 1.3, whose chunks share a frame: it joins what they decode to itself."""

    portions = (Portion(1), Portion(1, "device"), Portion(1, "memory"))
    valid_counts = "1 and 16 k + 1: 17, 33, 49, 65, 81, 97, 113, …"

    def frames_of(self, num_latents: int, asked: int | None = None) -> int:
        """What the chunks decode to, whatever was asked for: frames behind the last group are in no latent."""
        return self.counting.video_frames(num_latents)

    def encode_values(self, frames: int, portion: Portion) -> float:
        """As HostedVAE's: a chunk goes through as one, and its convolutions see two frames in front."""
        frames = min(frames, self.counting.chunk_frames)
        return (4 * frames + 2 if portion.maps is None else 3 * frames) * max(self.config.stem, self.config.widths[0])

    def decode_values(self, latents: int, portion: Portion) -> float:
        """As HostedVAE's: a latent is four frames until the last layer."""
        first, second = self.config.widths[:2]
        frames = self.counting.factor * min(latents, self.counting.chunk_latents)
        if portion.maps is not None:
            return max(second + 2 * first, 1.25 * second) * frames
        return max(3 * second, second + 3 * first) * frames + 2 * second

    def decode_chunks(self, latents: Tensor, num_frames: int) -> Iterator[Tensor]:
        """As HostedVAE's, for what `frames_of` says."""
        self.refuse_misfits(latents)
        yield from CausalVAE.decode_chunks(self, latents)

    def decode_chunk(self, latents: Tensor) -> Tensor:
        """As the network's."""
        return self.attempt(super().decode_chunk, self.bring(latents))

    def each_chunk(self, pieces: Sequence) -> Iterator:
        """`walk`."""
        return walk(pieces)


HOSTED = {network.family: network for network in (HostedVideoVAE, HostedImageVAE, HostedCausalVAE)}
