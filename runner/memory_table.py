"""Prints what the official models need of memory, as docs/memory.md shows it: python run.py bench memory.

Runs in the prepared environment (PyTorch, no ComfyUI, no weights, no GPU): every network runs at its official size with
tensors that have a shape and no values, and the bytes that are alive at once are counted.
"""

from collections.abc import Callable

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ..model.transformers.skeleton import ClipSizes
from ..model.transformers.stdit import STDiT, STDiTConfig
from ..model.transformers.stdit2 import STDiT2, STDiT2Config
from ..model.transformers.stdit3 import STDiT3, STDiT3Config
from ..model.transformers.stdit3_v1_3 import STDiT3v13, STDiT3v13Config
from ..model.vaes.image import ImageVAE
from ..model.vaes.slicing import Slices, in_slices
from ..model.vaes.v1_2 import VideoVAE
from ..model.vaes.v1_3 import CausalVAE
from ..training.live_bytes import LiveBytes

SIZES = {"240p": (426, 240), "360p": (640, 360), "480p": (854, 480), "720p": (1280, 720)}
LENGTHS = {"2 s": 51, "4 s": 102, "8 s": 204, "16 s": 408}  # frames at 24 a second
DTYPE = torch.bfloat16
# Version: transformer, its sizes, its VAE.
MODELS = {
    "1.0": (STDiT, STDiTConfig, ImageVAE),
    "1.1": (STDiT2, STDiT2Config, ImageVAE),
    "1.2": (STDiT3, STDiT3Config, VideoVAE),
    "1.3": (STDiT3v13, STDiT3v13Config, CausalVAE),
}
SLICE = 2**26  # values; 0.13 GB
T5_WEIGHTS = 4_762_310_656  # of the T5 v1.1 XXL encoder
CPU = torch.device("cpu")


def peak_bytes(build: Callable[[], torch.nn.Module], inputs: Callable[[torch.nn.Module], Callable[[], object]]) -> int:
    """The most bytes alive at once in work(), where work = inputs(build()); what it is given does not count."""
    torch.set_default_dtype(DTYPE)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode():
            work = inputs(build())
            with LiveBytes() as counted:
                work()
    finally:
        torch.set_default_dtype(torch.float32)
    return counted.peak


def transformer_peak(version: str, width: int, height: int, frames: int, batch: int = 1) -> int:
    """Bytes of activations of one call for a clip of this size, `batch` prompts together."""
    kind, sizes, vae = MODELS[version]
    config = sizes(depth=2)  # every block frees what it took, so more of them need no more
    with torch.device("meta"):
        counting = vae()
    frames = max(counting.nearest_frames(frames)) if version == "1.3" else frames
    shape = (batch, config.in_channels, counting.latent_frames(frames), -(-height // 8), -(-width // 8))

    def inputs(network):
        x, t = torch.empty(shape), torch.full((batch,), 500.0)
        caption = torch.empty(batch, config.model_max_length, config.caption_channels)
        mask = torch.ones(batch, config.model_max_length, dtype=torch.int32)
        told = [[float(value)] * batch for value in (24, height, width, frames)]
        return lambda: network.run(x, t, caption, mask, None, ClipSizes(*told))

    return peak_bytes(lambda: kind(config), inputs)


def vae_peak(
    kind: type[torch.nn.Module], work: str, width: int, height: int, images: int | None = None, sliced: bool = False
) -> int:
    """Bytes to encode or decode (`work`) one chunk of 17 frames, so many images at once, or by slices."""

    def inputs(network):
        if images is not None:
            network.images_at_once = images
        if work == "encode":
            x = torch.empty(1, 3, 17, height, width)
        else:
            x = torch.empty(1, network.latent_channels, network.latent_frames(17), -(-height // 8), -(-width // 8))
        arguments = (x,) if work == "encode" else (x, 17)

        def run():
            with in_slices(Slices(SLICE, CPU, CPU) if sliced else None):
                getattr(network, work)(*arguments)

        return run

    return peak_bytes(kind, inputs)


def weights_of(build: Callable[[], torch.nn.Module]) -> int:
    """Bytes of a network's weights in 16 bits."""
    with torch.device("meta"):
        return 2 * sum(weight.numel() for weight in build().parameters())


def gigabytes(size: int) -> str:
    """As the tables write it."""
    return f"{size / 1e9:.2f}" if size < 1e10 else f"{size / 1e9:.1f}"


def table(heads: list, rows: list[list]) -> str:
    """Markdown."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def weights_table() -> str:
    """What lies in memory while a network works."""
    rows = [["T5 v1.1 XXL, encoder", gigabytes(2 * T5_WEIGHTS)]]
    for version, (kind, sizes, _) in MODELS.items():
        rows.append([f"transformer {version} (XL/2)", gigabytes(weights_of(lambda: kind(sizes())))])  # noqa: B023
    vaes = (("VAE 1.0, 1.1", ImageVAE), ("VAE 1.2", VideoVAE), ("VAE 1.3", CausalVAE))
    rows += [[name, gigabytes(weights_of(kind))] for name, kind in vaes]
    return table(["weights", "GB"], rows)


def transformer_table() -> str:
    """Activations of one call, by size and length."""
    rows = []
    for size, (width, height) in SIZES.items():
        for length, frames in LENGTHS.items():
            peaks = [gigabytes(transformer_peak(version, width, height, frames)) for version in MODELS]
            rows.append([f"{size}, {length}", frames, *peaks, gigabytes(12 * frames * width * height)])
    return table(["clip", "frames", *MODELS, "the clip as images"], rows)


def vae_table() -> str:
    """A chunk of frames, by size; the length of the clip does not matter."""
    ways = [
        (kind, work, options)
        for kind, many in ((VideoVAE, ({"images": 4}, {"images": 1})), (CausalVAE, ({},)))
        for options in (*many, {"images": 1, "sliced": True} if kind is VideoVAE else {"sliced": True})
        for work in ("encode", "decode")
    ]
    rows = [
        [size, *(gigabytes(vae_peak(kind, work, width, height, **options)) for kind, work, options in ways)]
        for size, (width, height) in SIZES.items()
    ]
    names = {4: "four at once", 1: "one at once"}

    def head(kind, work, options):
        way = "slices" if options.get("sliced") else names.get(options.get("images"), "whole")
        return f"{'1.3' if kind is CausalVAE else '1.0-1.2'} {work}, {way}"

    return table(["frame", *(head(*way) for way in ways)], rows)


def main() -> None:
    """Print the tables."""
    for title, make in (("Weights", weights_table), ("Transformer", transformer_table), ("VAE", vae_table)):
        print(f"\n{title}, GB (16 bit)\n\n{make()}", flush=True)


if __name__ == "__main__":
    main()
