"""What is counted and measured: every network at its official size, alone and as ComfyUI hosts it, on clips of several

sizes; and another's transformer on the same.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
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
FPS = 24.0


class Size(NamedTuple):
    """A clip: pixels, and frames at 24 a second."""

    width: int
    height: int
    frames: int


class Work(NamedTuple):
    """A network, made by build(), and what is done with it: call(network)."""

    build: Callable[[], Any]
    call: Callable[[Any], object]


SIZES = {"240p, 2 s": Size(426, 240, 51), "480p, 4 s": Size(854, 480, 102), "720p, 4 s": Size(1280, 720, 102)}
LENGTHS = {f"480p, {seconds} s": Size(854, 480, frames) for seconds, frames in ((1, 25), (2, 51), (8, 204), (16, 408))}
PICTURES = {"240p": Size(426, 240, 1), "480p": Size(854, 480, 1), "720p": Size(1280, 720, 1)}
KEPT = "480p, 4 s, first frame kept"
FAMILIES: dict[str, tuple[Any, Any, Any]] = {
    "1.0": (STDiT, STDiTConfig, ImageVAE),
    "1.1": (STDiT2, STDiT2Config, ImageVAE),
    "1.2": (STDiT3, STDiT3Config, VideoVAE),
    "1.3": (STDiT3v13, STDiT3v13Config, CausalVAE),
    "PixArt": (PixArt, PixArtConfig, ImageVAE),
}
VAES = {"VAE 1.0, 1.1": ImageVAE, "VAE 1.2": VideoVAE, "VAE 1.3": CausalVAE}
Host = Callable[[type[torch.nn.Module], Any], torch.nn.Module]  # (network, config) -> it, hosted, on the meta device


def clips(family: str) -> dict[str, Size]:
    """Those that a family is counted on, by name; PixArt makes pictures."""
    return PICTURES if family == "PixArt" else {**SIZES, **LENGTHS}


def latent_size(vae: Any, size: Size) -> tuple[int, int, int]:
    """(T, H, W) of the latents that a VAE of this class makes of a clip of about that size."""
    with torch.device("meta"):
        counting = vae()
    return counting.latent_frames(max(counting.nearest_frames(size.frames))), size.height // 8, size.width // 8


def transformer(
    family: str, size: Size, depth: int, host: Host | None = None, kept: bool = False, rows: int = ROWS,
    new: Callable[..., Any] = torch.empty,
) -> Work:  # fmt: skip
    """A call of a transformer with `rows` prompts. `kept`: the first frame is; `host`: hosted, not the network alone;

    `new` makes its inputs.
    """
    kind, configuration, vae = FAMILIES[family]
    config, latents = configuration(depth=depth), latent_size(vae, size)

    def build():
        return kind(config, dtype=DTYPE, device="cuda") if host is None else _empty(host(kind, config))

    def call(network):
        x, t, caption, mask = _inputs(config, latents, rows, kept, new)
        told = (FPS, float(size.height), float(size.width), float(size.frames))
        if host is not None:
            return network(x, t, caption, None, mask, *told)
        return network.run(x, t, caption, None, mask, ClipSizes(*told))

    return Work(build, call)


def others_transformer(module: Any, size: Size, depth: int, kept: bool = False) -> Work:
    """As `transformer`, of version 1.2 by another's code: see `another`."""
    kind, configuration, vae = FAMILIES["1.2"]
    config, latents = configuration(depth=depth), latent_size(vae, size)
    network = module.build(kind(config).state_dict(), depth)

    def call(network):
        x, t, caption, mask = _inputs(config, latents, ROWS, kept, torch.empty)
        told = FPS, float(size.height), float(size.width)
        return module.call(network, x, t, caption, None if mask is None else mask.bool(), *told)

    return Work(lambda: _empty(network.to(DTYPE)), call)


def another(path: Path) -> Any:
    """Another implementation: a module with `build(state_dict, depth)`, the former by the original's keys, and

    `call(network, x, timestep, caption, frame_mask, fps, height, width)`: arguments as of `VideoTransformer.forward`,
    the last three each one number.
    """
    spec = importlib.util.spec_from_file_location("another_implementation", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def vae(name: str, work: str, size: Size, new: Callable[..., Any] = torch.empty) -> Work:
    """A VAE's `work`, "encode" or "decode", of a whole clip."""

    def call(network):
        frames = max(network.nearest_frames(size.frames))
        if work == "encode":
            return network.encode(new(1, 3, frames, size.height, size.width, dtype=DTYPE, device="cuda"))
        latents = (network.latent_channels, *latent_size(VAES[name], size))
        return network.decode(new(1, *latents, dtype=DTYPE, device="cuda"), frames)

    return Work(lambda: _on_gpu(VAES[name]).eval(), call)


def text_encoder(layers: int, tokens: int = 300) -> Work:
    """T5 v1.1 XXL's encoder on one prompt, as transformers has it."""
    from transformers import T5Config, T5EncoderModel  # seconds to import

    sizes = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_heads": 64, "feed_forward_proj": "gated-gelu"}
    config = T5Config(num_layers=layers, vocab_size=128, **sizes)
    text = torch.ones(1, tokens, dtype=torch.long, device="meta")
    return Work(
        lambda: _on_gpu(lambda: T5EncoderModel(config).eval()), lambda t5: t5(torch.zeros_like(text, device="cuda"))
    )


def deep(work: Callable[[int], Work], depth: int) -> Count:
    """What work(depth) costs, from one and two layers: every layer launches the same."""
    return count(*work(1)).repeated(count(*work(2)), depth - 1)


def step(family: str, size: Size, host: Host | None = None, kept: bool = False, rows: int = ROWS) -> Count:
    """What `transformer` costs at its official depth."""
    return deep(lambda depth: transformer(family, size, depth, host, kept, rows), DEPTH)


def _inputs(config, latents, rows, kept, new):
    """Latents, timesteps, captions and frame mask on the GPU."""
    x = new(rows, config.in_channels, *latents, dtype=DTYPE, device="cuda")
    caption = new(rows, config.model_max_length, config.caption_channels, dtype=DTYPE, device="cuda")
    mask = torch.ones(rows, latents[0], device="cuda") if kept else None
    return x, new(rows, device="cuda"), caption, mask


def _on_gpu(build):
    """What build() makes, on "cuda" in 16 bit."""
    torch.set_default_dtype(DTYPE)
    try:
        with torch.device("cuda"):
            return build()
    finally:
        torch.set_default_dtype(torch.float32)


def _empty(network):
    """The network with weights on "cuda" that nobody wrote."""
    for module in network.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = torch.nn.Parameter(_there(weight), requires_grad=False)
        for name, value in module._buffers.items():
            module._buffers[name] = None if value is None else _there(value)
    return network


def _there(tensor):
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
