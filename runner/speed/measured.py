"""Measures this machine: calls of the networks beside the speed of its own products, and beside another's code.

On a CPU two depths of Open-Sora 1.2's transformer at full width, on 5 x 30 x 53 latents and two rows, and the VAEs on
17 small frames, in fp32; on a GPU what is counted, in seconds and bytes beside the count. What is compared takes turns,
and the fastest of several turns counts.
"""

import gc
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ...model.transformers.stdit3 import STDiT3, STDiT3Config
from ...training.live_bytes import LiveBytes
from . import cases
from .cases import FAMILIES, FPS, PICTURES, ROWS, SIZES, VAES, Host, Work
from .roofline import Count, count

LATENTS, PIXELS = (5, 30, 53), (240, 426)
CHUNK, SMALL = 17, 32  # frames of a chunk; sides of a frame that a CPU takes a second or two for


def fastest(works: Mapping[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """Seconds of the fastest of `turns` calls of each; they take turns, so that a busy machine is so for all."""
    best = dict.fromkeys(works, float("inf"))
    for turn in range(turns + 1):  # the first only warms up
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if turn:
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def on_cpu(other: Path | None = None, turns: int = 3, depth: int = 2, width: int = 1152) -> dict[str, Any]:
    """Figures of one call: seconds, share of the products' speed, bytes alive at once; the other's, and the difference.

    Each without and with a kept first frame.
    """
    torch.manual_seed(0)
    network = STDiT3(STDiT3Config(depth=depth, hidden_size=width)).eval()
    for weight in network.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.05)
    module = None if other is None else cases.another(other)
    T, H, W = LATENTS
    x, caption = torch.randn(ROWS, 4, T, H, W), torch.randn(ROWS, 300, 4096)
    told = FPS, *map(float, PIXELS)
    t, first = torch.full((ROWS,), 500.0), (torch.arange(T) != 0).expand(ROWS, -1)
    products = _products(width, ROWS * T * -(-H // 2) * -(-W // 2))
    found: dict[str, Any] = {}
    with torch.no_grad():
        built = None if module is None else module.build(network.state_dict(), depth)
        for name, mask in (("plain", None), ("kept", first)):
            calls = {"ours": lambda mask=mask: network(x, t, caption, None, mask, *told)}
            if module is not None:
                calls["other"] = lambda mask=mask: module.call(built, x, t, caption, mask, *told)
            flops = dict.fromkeys(calls, _flops(calls["ours"]))  # what the work needs, whoever does it
            found[name] = _figures(calls, flops, products, turns)
            if module is not None:
                ours, others = (call() for call in calls.values())
                found[name]["difference"] = float(f"{(others - ours).abs().max() / ours.abs().max():.1e}")
    return found


def vaes_on_cpu(turns: int = 2, small: int = SMALL) -> dict[str, Any]:
    """As `on_cpu`, of every VAE's encode and decode of a chunk of frames of `small` x `small` pixels."""
    calls: dict[str, Callable[[], Any]] = {}
    for name, kind in VAES.items():
        vae = kind().eval()
        video = torch.randn(1, 3, CHUNK, small, small)
        latents = torch.randn(1, vae.latent_channels, vae.latent_frames(CHUNK), small // 8, small // 8)
        calls[f"{name} encode"] = lambda vae=vae, video=video: vae.encode(video)  # type: ignore[misc]
        calls[f"{name} decode"] = lambda vae=vae, latents=latents: vae.decode(latents, CHUNK)  # type: ignore[misc]
    with torch.no_grad():
        flops = {name: _flops(call) for name, call in calls.items()}
        return _figures(calls, flops, _products(1152, 4050), turns)


def machine() -> dict[str, Any]:
    """What measures: its processor, and how many threads PyTorch takes of it."""
    name = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():  # Linux has no better name in `platform`
        lines = information.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return {"cpu": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


def on_gpu(ways: Mapping[str, Host | None], turns: int = 5) -> dict[str, dict[str, float]]:
    """Milliseconds and gigabytes of calls with random weights on the GPU that is there, beside their counts."""
    found = {}
    for name, (work, counted) in _gpu_cases(ways).items():
        try:
            found[name] = beside(work, counted(), turns)
        except torch.cuda.OutOfMemoryError:
            print(f"{name}: more than this GPU has", flush=True)
        gc.collect()
        torch.cuda.empty_cache()
    return found


def beside(work: Work, counted: Count, turns: int) -> dict[str, float]:
    """One call of `work` measured: milliseconds, on a GPU bytes alive at once too; and what it was counted at."""
    gpu = torch.cuda.is_available()
    with torch.inference_mode():
        network = work.build()
        for weight in (*network.parameters(), *network.buffers()):
            if weight.is_floating_point():
                weight.normal_(std=0.02)

        def call() -> None:
            work.call(network)
            if gpu:
                torch.cuda.synchronize()

        before = torch.cuda.memory_allocated() if gpu else 0
        figures = {"ms": round(1e3 * fastest({"call": call}, turns)["call"], 1), "counted_ms": counted.figures()["ms"]}
        if gpu:
            peak = (torch.cuda.max_memory_allocated() - before) / 1e9
            torch.cuda.reset_peak_memory_stats()
            figures |= {"peak_gb": round(peak, 2), "counted_peak_gb": counted.figures()["peak_gb"]}
    return figures


def _gpu_cases(ways):
    """Name: (work, its count) of the transformers by every way, of the VAEs and the text encoder."""
    found: dict[str, tuple[Work, Callable[[], Count]]] = {}
    for way, by in ways.items():
        for family in FAMILIES:
            for clip, size in (PICTURES if family == "PixArt" else SIZES).items():
                work = cases.transformer(family, size, cases.DEPTH, by, new=torch.randn)
                found[f"{family}, {clip}, {way}"] = work, lambda f=family, s=size, by=by: cases.step(f, s, by)
    for name in VAES:
        for task in ("encode", "decode"):
            for clip, size in SIZES.items():
                work = cases.vae(name, task, size, torch.randn)
                found[f"{name} {task}, {clip}"] = work, lambda work=work: count(*work)
    found["T5 XXL, 300 tokens"] = cases.text_encoder(24), lambda: cases.deep(cases.text_encoder, 24)
    return found


def _flops(call):
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def _products(width, tokens):
    """The products of a block, to be run alone, and their FLOP."""
    pairs = [
        (torch.randn(tokens, into), torch.randn(into, out))
        for into, out in ((width, 3 * width), (width, width), (width, 4 * width), (4 * width, width))
    ]
    flops = sum(2 * tokens * weight.numel() for _, weight in pairs)
    return lambda: [x @ weight for x, weight in pairs], flops


def _figures(calls, flops, products, turns):
    """Of each call; and how fast the products are in the same turns."""
    alone, product_flops = products
    seconds = fastest({**calls, "products": alone}, turns)
    rate = product_flops / seconds["products"]
    found: dict[str, Any] = {"products_gflops": round(rate / 1e9, 1)}
    for name, call in calls.items():
        with LiveBytes() as alive:
            call()
        share = flops[name] / rate / seconds[name]
        found[name] = {
            "seconds": round(seconds[name], 3), "share": round(share, 3), "peak_mb": round(alive.peak / 1e6, 1)
        }  # fmt: skip
    return found
