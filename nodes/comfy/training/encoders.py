"""ComfyUI's VAE and CLIP as the encoders that `training.data.cache` asks for, and the weights of what is wired in."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import comfy.lora
import comfy.model_management as management
import torch

from ....training.data.encoders import digest
from ..text.encoder import refuse_other_clip
from ..vae.video_vae import network_of
from ..weights import is_plain

if TYPE_CHECKING:
    import comfy.sd
    from comfy.model_patcher import ModelPatcher

    from ....model.frames import Counting


_digests: WeakKeyDictionary = WeakKeyDictionary()  # a model → {which patches are on it: the sha256 of both together}


def weights_of(patcher: ModelPatcher, prefix: str = "") -> dict[str, torch.Tensor]:
    """The weights of a model as they count, by their names behind `prefix`: LoRAs and merges on it are part of them.

    Those that nothing is added to are the model's own tensors.
    """
    found = {}
    for key, (own, *patches) in patcher.get_key_patches(prefix or None).items():
        weight, convert = own
        if patches:
            plain = convert(weight.to("cpu", torch.float32, copy=True), inplace=True)
            weight = comfy.lora.calculate_weight(patches, plain, key)
        found[key.removeprefix(prefix)] = weight
    return found


def key_of(patcher: ModelPatcher, *settings: object) -> str:
    """A sha256 of a model's weights as they count, and of settings."""
    known = _digests.setdefault(patcher.model, {})
    if patcher.patches_uuid not in known:
        weights = {key: value if _readable(value) else value.float() for key, value in weights_of(patcher).items()}
        known[patcher.patches_uuid] = digest(weights)
    return digest({}, known[patcher.patches_uuid], *settings)


def _readable(tensor):
    """Whether its bytes can be read: a quantised one is first brought back to numbers."""
    return is_plain(tensor) or type(tensor) in (torch.Tensor, torch.nn.Parameter)


class VideoEncoder:
    """A VAE of this pack for `Cache.latents`. ValueError for another VAE."""

    def __init__(self, vae: comfy.sd.VAE) -> None:
        self.vae, self.network = vae, network_of(vae)

    @property
    def counting(self) -> Counting:
        return self.network.counting

    @cached_property
    def key(self) -> str:
        return key_of(self.vae.patcher, self.network.config, self.vae.vae_dtype)

    def __call__(self, video: torch.Tensor) -> torch.Tensor:
        """Latents [1, C, T', h, w] on the CPU, fp32, of a video [1, 3, T, H, W] in -1…1."""
        management.throw_exception_if_processing_interrupted()
        return self.vae.encode((video[0].movedim(0, -1) + 1) / 2).float().cpu()

    def decode(self, latents: torch.Tensor, num_frames: int) -> torch.Tensor:
        """Frames [T, H, W, 3] in 0…1, on the CPU, of latents [1, C, T', h, w]."""
        return self.vae.decode(latents, vae_options={"num_frames": num_frames})[0].float().cpu()


class TextEncoder:
    """A CLIP of this pack for `Cache.text`, which reads captions of at most `max_length` tokens (None: its own length).

    ValueError for another kind of text encoder.
    """

    def __init__(self, clip: comfy.sd.CLIP, max_length: int | None = None) -> None:
        refuse_other_clip(clip)
        self.clip, self.max_length = clip, max_length or clip.tokenizer.t5xxl.max_length

    @cached_property
    def key(self) -> str:
        return key_of(self.clip.patcher, self.max_length)

    def __call__(self, caption: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Features [L, C] and mask [L] (1 = a real token), on the CPU; scores in brackets are words like others."""
        management.throw_exception_if_processing_interrupted()
        tokens = self.clip.tokenize(caption, max_length=self.max_length, disable_weights=True)
        (features, told), *_ = self.clip.encode_from_tokens_scheduled(tokens)
        return features[0].float().cpu(), told["attention_mask"][0].long().cpu()
