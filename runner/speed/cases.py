"""What is counted: every network at its official size, alone and as ComfyUI hosts it, for clips of several sizes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from ...model.transformers.pixart import PixArt, PixArtConfig
from ...model.transformers.skeleton import ClipSizes
from ...model.transformers.stdit import STDiT, STDiTConfig
from ...model.transformers.stdit2 import STDiT2, STDiT2Config
from ...model.transformers.stdit3 import STDiT3, STDiT3Config
from ...model.transformers.stdit3_v1_3 import STDiT3v13, STDiT3v13Config
from ...model.vaes.image import ImageVAE
from ...model.vaes.v1_2 import VideoVAE
from ...model.vaes.v1_3 import CausalVAE
from .roofline import Count, count

DTYPE = torch.bfloat16
ROWS = 2  # with the prompt and without
DEPTH = 28


class Size(NamedTuple):
    """A clip: pixels, and frames at 24 a second."""

    width: int
    height: int
    frames: int


SIZES = {"240p, 2 s": Size(426, 240, 51), "480p, 4 s": Size(854, 480, 102), "720p, 4 s": Size(1280, 720, 102)}
LENGTHS = {f"480p, {seconds} s": Size(854, 480, frames) for seconds, frames in ((1, 25), (2, 51), (8, 204), (16, 408))}
FAMILIES: dict[str, tuple[Any, Any, Any]] = {
    "1.0": (STDiT, STDiTConfig, ImageVAE),
    "1.1": (STDiT2, STDiT2Config, ImageVAE),
    "1.2": (STDiT3, STDiT3Config, VideoVAE),
    "1.3": (STDiT3v13, STDiT3v13Config, CausalVAE),
    "PixArt": (PixArt, PixArtConfig, ImageVAE),
}
Host = Callable[[type[torch.nn.Module], Any], torch.nn.Module]  # (network, config) -> it, hosted, on "cuda"


def latent_size(family: str, size: Size) -> tuple[int, int, int]:
    """(T, H, W) of the latents that the family makes of a clip; a picture for PixArt."""
    with torch.device("meta"):
        vae = FAMILIES[family][2]()
    frames = 1 if family == "PixArt" else max(vae.nearest_frames(size.frames))
    return vae.latent_frames(frames), size.height // 8, size.width // 8


def step(family: str, size: Size, host: Host | None = None, kept: bool = False, rows: int = ROWS) -> Count:
    """One call of a transformer with `rows` prompts; `kept`: the first frame is; `host`: not the network alone.

    Two depths are counted and the rest follows, since every depth launches the same.
    """
    kind, configuration, _ = FAMILIES[family]
    T, H, W = latent_size(family, size)

    def at(depth: int) -> Count:
        config = configuration(depth=depth)

        def build():
            return kind(config, dtype=DTYPE, device="cuda") if host is None else host(kind, config)

        def call(network):
            x = torch.empty(rows, config.in_channels, T, H, W, dtype=DTYPE, device="cuda")
            caption = torch.empty(rows, config.model_max_length, config.caption_channels, dtype=DTYPE, device="cuda")
            t, mask = torch.empty(rows, device="cuda"), torch.ones(rows, T, device="cuda") if kept else None
            told = (24.0, float(size.height), float(size.width), float(size.frames))
            if host is not None:
                return network(x, t, caption, None, mask, *told)
            return network.run(x, t, caption, None, mask, ClipSizes(*told))

        return count(build, call)

    return at(1).repeated(at(2), DEPTH - 1)


def vae(family: str, work: str, size: Size) -> Count:
    """A VAE's `work`, "encode" or "decode", of a whole clip."""

    def call(network):
        frames = max(network.nearest_frames(size.frames))
        if work == "encode":
            return network.encode(torch.empty(1, 3, frames, size.height, size.width, dtype=DTYPE, device="cuda"))
        latents = (network.latent_channels, *latent_size(family, size))
        return network.decode(torch.empty(1, *latents, dtype=DTYPE, device="cuda"), frames)

    return count(lambda: _on_gpu(FAMILIES[family][2]), call)


def text_encoder(tokens: int = 300) -> Count:
    """T5 v1.1 XXL's encoder on one prompt, as transformers has it."""
    from transformers import T5Config, T5EncoderModel  # seconds to import

    sizes = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_heads": 64, "feed_forward_proj": "gated-gelu"}

    def at(layers: int) -> Count:
        config = T5Config(num_layers=layers, vocab_size=128, **sizes)
        text = torch.ones(1, tokens, dtype=torch.long, device="meta")
        return count(
            lambda: _on_gpu(lambda: T5EncoderModel(config).eval()), lambda t5: t5(torch.empty_like(text, device="cuda"))
        )

    return at(1).repeated(at(2), 23)


def _on_gpu(build):
    """What build() makes, on "cuda" in 16 bit."""
    torch.set_default_dtype(DTYPE)
    try:
        with torch.device("cuda"):
            return build()
    finally:
        torch.set_default_dtype(torch.float32)
