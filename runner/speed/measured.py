"""Measures this machine: a call of the transformer beside the speed of its own products, and beside another's code.

On a CPU two depths of Open-Sora 1.2's transformer at full width, on 5 x 30 x 53 latents and two rows, in fp32; on a GPU
the cases that are counted, in seconds. What is compared takes turns, and the fastest of several turns counts.
"""

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ...model.transformers.skeleton import ClipSizes
from ...model.transformers.stdit3 import STDiT3, STDiT3Config
from ...training.live_bytes import LiveBytes
from .cases import DTYPE, FAMILIES, ROWS, SIZES, latent_size

LATENTS, PIXELS = (5, 30, 53), (240, 426)
FPS = 24.0


def fastest(works: dict[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """Seconds of the fastest of `turns` calls of each; they take turns, so that a busy machine is so for all."""
    best = dict.fromkeys(works, float("inf"))
    for turn in range(turns + 1):  # the first only warms up
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if turn:
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def another(path: Path) -> Any:
    """Another implementation: a module with `build(state_dict, depth)`, the former by the original's keys, and

    `call(network, x, timestep, caption, frame_mask, fps, height, width)`, arguments as of `VideoTransformer.forward`.
    """
    spec = importlib.util.spec_from_file_location("another_implementation", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def on_cpu(other: Path | None = None, turns: int = 3, depth: int = 2, width: int = 1152) -> dict[str, Any]:
    """Figures of one call: seconds, share of the products' speed, bytes alive at once; the other's, and the difference.

    Each without and with a kept first frame.
    """
    torch.manual_seed(0)
    network = STDiT3(STDiT3Config(depth=depth, hidden_size=width)).eval()
    for weight in network.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.05)
    module = None if other is None else another(other)
    built = None if module is None else module.build(network.state_dict(), depth)
    T, H, W = LATENTS
    x, caption = torch.randn(ROWS, 4, T, H, W), torch.randn(ROWS, 300, 4096)
    t, fps, height, wide = (torch.full((ROWS,), value) for value in (500.0, FPS, *map(float, PIXELS)))
    first = (torch.arange(T) != 0).expand(ROWS, -1)
    found: dict[str, Any] = {"threads": torch.get_num_threads()}
    with torch.no_grad():
        for name, mask in (("plain", None), ("kept", first)):
            calls: dict[str, Callable[[], Any]] = {}
            calls["ours"] = lambda mask=mask: network(x, t, caption, None, mask, fps, height, wide)  # type: ignore[misc]
            if module is not None:
                calls["other"] = lambda mask=mask: module.call(built, x, t, caption, mask, fps, height, wide)  # type: ignore[misc]
            with FlopCounterMode(display=False) as counter:
                ours = calls["ours"]()
            products, product_flops = _products(width, ROWS * T * -(-H // 2) * -(-W // 2))
            seconds = fastest({**calls, "products": products}, turns)
            rate = product_flops / seconds["products"]
            found[name] = {"products_gflops": round(rate / 1e9, 1)}
            for who, call in calls.items():
                with LiveBytes() as alive:
                    call()
                share = counter.get_total_flops() / rate / seconds[who]
                found[name][who] = {
                    "seconds": round(seconds[who], 3), "share": round(share, 3), "peak_mb": round(alive.peak / 1e6, 1)
                }  # fmt: skip
            if "other" in calls:
                gap = (calls["other"]() - ours).abs().max() / ours.abs().max()
                found[name]["difference"] = float(f"{gap:.1e}")
    return found


def _products(width, tokens):
    """The products of a block, to be run alone, and their FLOP."""
    pairs = [
        (torch.randn(tokens, into), torch.randn(into, out))
        for into, out in ((width, 3 * width), (width, width), (width, 4 * width), (4 * width, width))
    ]
    flops = sum(2 * tokens * weight.numel() for _, weight in pairs)
    return lambda: [x @ weight for x, weight in pairs], flops


def on_gpu(family: str, size: str, turns: int = 5) -> float:
    """Seconds of one call of a transformer with random weights on the GPU that is there."""
    kind, configuration, _ = FAMILIES[family]
    config = configuration()
    network = kind(config, dtype=DTYPE, device="cuda").eval()
    T, H, W = latent_size(family, SIZES[size])
    x = torch.randn(ROWS, config.in_channels, T, H, W, dtype=DTYPE, device="cuda")
    caption = torch.randn(ROWS, config.model_max_length, config.caption_channels, dtype=DTYPE, device="cuda")
    told = ClipSizes(FPS, float(SIZES[size].height), float(SIZES[size].width), float(SIZES[size].frames))

    def call():
        network.run(x, torch.full((ROWS,), 500.0, device="cuda"), caption, None, None, told)
        torch.cuda.synchronize()

    with torch.inference_mode():
        return fastest({"call": call}, turns)["call"]
