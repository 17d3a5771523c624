"""Prints how fast the networks are, and writes it as JSON: python run.py bench counted, bench measured.

Where a page of the same name lies beside the JSON, as docs/performance.md does, its tables and pictures follow.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from . import cards, cases, measured, page
from .cases import FAMILIES, KEPT, SIZES, VAES
from .hosts import hosts
from .roofline import count

KINDS = 12  # of kernels that are told apart
LONGER = ("480p, 8 s", "480p, 16 s")
LARGER = {"PixArt": ("480p", "720p")}  # than 480p, 4 s for all others


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python run.py bench", description=__doc__)
    parser.add_argument("what", nargs="+", choices=("counted", "measured"))
    parser.add_argument("--other", type=Path, metavar="FILE", help="code to compare with: see cases.another")
    parser.add_argument("--json", type=Path, metavar="FILE", default=Path("bench.json"), help="where the figures go")
    options = parser.parse_args(arguments)
    found: dict[str, Any] = json.loads(options.json.read_text(encoding="utf-8")) if options.json.exists() else {}
    if "counted" in options.what:
        found |= counted(options.other)
        for name in ("steps", "clips", "others", "kinds", "cards"):
            print(f"\n{page.TABLES[name](found)}", flush=True)
    if "measured" in options.what:
        found |= measure(options.other)
        print(f"\n{page.TABLES['measured'](found)}", flush=True)
    part = options.json.with_name(options.json.name + ".part")
    part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    part.replace(options.json)
    print(f"\nThese figures are in {options.json}.")
    if options.json.with_suffix(".md").exists():
        page.write(options.json)
    return 0


def counted(other: Path | None = None) -> dict[str, Any]:
    """All that is counted, by case; `exponents` are those of cost in frames and in pixels."""
    ways, name = hosts()
    found: dict[str, Any] = {"comfyui": name, "transformer": {}, "others": {}, "kinds": {}, "exponents": {}}
    for way, by in ways.items():
        rows = found["transformer"][way] = {}
        for family in FAMILIES:
            for clip, size in cases.clips(family).items():
                rows[f"{family}, {clip}"] = cases.step(family, size, by).figures()
            if family != "PixArt":
                rows[f"{family}, {KEPT}"] = cases.step(family, SIZES["480p, 4 s"], by, kept=True).figures()
            found["exponents"][family] = _exponents(rows, family)
        found["kinds"][way] = _kinds(cases.step("1.2", SIZES["480p, 4 s"], by))
        print(f"Counted: {way}", flush=True)
    if other is not None:
        module = cases.another(other)
        found["other"] = {
            f"1.2, {clip}": _other(module, size, kept)
            for clip, size, kept in (*((*each, False) for each in SIZES.items()), (KEPT, SIZES["480p, 4 s"], True))
        }
    for vae in VAES:
        for work in ("encode", "decode"):
            for clip, size in cases.clips(vae).items():
                found["others"][f"{vae} {work}, {clip}"] = count(*cases.vae(vae, work, size)).figures()
            found["exponents"][f"{vae} {work}"] = _exponents(found["others"], f"{vae} {work}")
    found["others"]["T5 XXL, 300 tokens"] = cases.deep(cases.text_encoder, 24).figures()
    return found | {"cards": cards.needs()}


def measure(other: Path | None) -> dict[str, Any]:
    """All that is measured on this machine."""
    found: dict[str, Any] = {"machine": measured.machine(), "cpu": measured.on_cpu(other)}
    found["vaes"] = measured.vaes_on_cpu()
    if torch.cuda.is_available():
        found["machine"]["gpu"] = torch.cuda.get_device_name()
        found["gpu"] = measured.on_gpu(hosts()[0])
    return found


def _other(module, size, kept):
    return cases.deep(lambda depth: cases.others_transformer(module, size, depth, kept), cases.DEPTH).figures()


def _kinds(counted):
    """Milliseconds by kind of kernel, the longest first, the shorter together."""
    named = sorted(counted.by_name.items(), key=lambda item: -item[1])
    kinds = {name: round(1e3 * seconds, 1) for name, seconds in named[:KINDS]}
    return kinds | {"all others": round(counted.figures()["ms"] - sum(kinds.values()), 1)}


def _exponents(rows, name):
    """e, so that n times the frames, and n times the pixels, cost n^e times as much."""

    def exponent(small, large, side):
        first, second = (cases.clips(name)[clip] for clip in (small, large))
        return math.log(rows[f"{name}, {large}"]["ms"] / rows[f"{name}, {small}"]["ms"]) / math.log(
            side(second) / side(first)
        )

    larger = exponent(*LARGER.get(name, ("480p, 4 s", "720p, 4 s")), lambda size: size.width * size.height)
    found = {"pixels": round(larger, 2)}
    return found if name in LARGER else found | {"frames": round(exponent(*LONGER, lambda size: size.frames), 2)}


if __name__ == "__main__":
    raise SystemExit(main())
