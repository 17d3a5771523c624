"""Prints how fast the networks are, and writes it as JSON: python run.py bench counted, bench measured."""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..memory_table import table
from . import cases, measured
from .cases import FAMILIES, LENGTHS, SIZES, Host
from .hosts import host

KINDS = 12  # of kernels that a table names
HEAD = ["case", "limit, ms", "counted, ms", "share", "kernels", "GB moved", "GB alive"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python run.py bench", description=__doc__)
    parser.add_argument("what", nargs="+", choices=("counted", "measured"))
    parser.add_argument("--other", type=Path, metavar="FILE", help="code to compare with: see measured.another")
    parser.add_argument("--json", type=Path, metavar="FILE", default=Path("bench.json"), help="where the figures go")
    options = parser.parse_args(arguments)
    found: dict[str, Any] = {}
    if "counted" in options.what:
        found |= counted()
    if "measured" in options.what:
        found |= measure(options.other)
    text = json.dumps(found, indent=1) + "\n"
    part = options.json.with_name(options.json.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(options.json)
    print(f"\nThese figures are in {options.json}.")
    return 0


def counted() -> dict[str, Any]:
    """All tables of the count."""
    hosted, name = host()
    ways: dict[str, Host | None] = {"PyTorch alone": None, name: hosted}
    found: dict[str, Any] = {"transformer": {}, "others": {}}
    for way, by in ways.items():
        rows = found["transformer"][way] = {}
        for family in FAMILIES:
            for size in SIZES if family != "PixArt" else ("480p, 4 s",):
                rows[f"{family}, {size}"] = cases.step(family, SIZES[size], by).figures()
        rows["1.2, 480p, 4 s, first frame kept"] = cases.step("1.2", SIZES["480p, 4 s"], by, kept=True).figures()
        for length, size in LENGTHS.items():
            rows[f"1.2, {length}"] = cases.step("1.2", size, by).figures()
        print(f"\nA guided step, two rows, bf16: {way}\n\n{_figures(rows)}", flush=True)
        print(f"\n1.2, 480p, 4 s, by kernel\n\n{by_kernel('1.2', '480p, 4 s', by)}", flush=True)
        found["exponents"] = {
            "frames": round(_exponent(rows, "1.2, 480p, 8 s", "1.2, 480p, 16 s", 2), 2),
            "pixels": round(_exponent(rows, "1.2, 480p, 4 s", "1.2, 720p, 4 s", (1280 * 720) / (854 * 480)), 2),
        }
        print("\nTwice the {} costs 2^{:.2f}; twice the {} 2^{:.2f}.".format(*_flat(found["exponents"])), flush=True)
    for family, name in (("1.0", "VAE 1.0, 1.1"), ("1.2", "VAE 1.2"), ("1.3", "VAE 1.3")):
        for work in ("encode", "decode"):
            found["others"][f"{name} {work}, 480p, 4 s"] = cases.vae(family, work, SIZES["480p, 4 s"]).figures()
    found["others"]["T5 XXL, 300 tokens"] = cases.text_encoder().figures()
    print(f"\nThe other networks, bf16\n\n{_figures(found['others'])}", flush=True)
    return found


def by_kernel(family: str, size: str, by: Host | None) -> str:
    """Which kernels a call's time goes to."""
    named = sorted(cases.step(family, SIZES[size], by).by_name.items(), key=lambda item: -item[1])[:KINDS]
    return table(["kernel", "ms"], [[name, f"{1e3 * seconds:.1f}"] for name, seconds in named])


def measure(other: Path | None) -> dict[str, Any]:
    """The table of this machine."""
    found = {"cpu": measured.on_cpu(other)}
    rows = []
    for case in ("plain", "kept"):
        for who in ("ours", "other"):
            if who in found["cpu"][case]:
                rows.append([f"{case}, {who}", *found["cpu"][case][who].values()])
        rows.append([f"{case}: products alone, GFLOP/s", found["cpu"][case]["products_gflops"], "", ""])
    print(f"\nTwo depths on this CPU\n\n{table(['call', 'seconds', 'share', 'MB alive'], rows)}", flush=True)
    if torch.cuda.is_available():
        found["gpu"] = {}
        for size in SIZES:
            seconds, counted_ = measured.on_gpu("1.2", size), cases.step("1.2", SIZES[size]).seconds
            found["gpu"][size] = {"ms": round(1e3 * seconds, 1), "counted_ms": round(1e3 * counted_, 1)}
            print(
                f"{torch.cuda.get_device_name()}, 1.2, {size}: {1e3 * seconds:.0f} ms, counted {1e3 * counted_:.0f} ms"
            )
    return found


def _figures(rows):
    return table(HEAD, [[name, *figures.values()] for name, figures in rows.items()])


def _exponent(rows, small, large, ratio):
    return math.log(rows[large]["ms"] / rows[small]["ms"]) / math.log(ratio)


def _flat(pairs):
    return [value for pair in pairs.items() for value in pair]


if __name__ == "__main__":
    raise SystemExit(main())
