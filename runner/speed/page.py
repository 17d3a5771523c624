"""docs/performance.md: its tables and pictures, from the figures beside it."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..memory_table import table
from . import cards, charts
from .cases import FAMILIES, KEPT, PICTURES, SIZES, VAES, clips

Figures = Mapping[str, Any]
BEFORE, OTHER = "before", "the original"
MAIN = "480p, 4 s"


def steps(found: Figures) -> str:
    """A guided step of every family by every way; the columns on the right are of the last."""
    past, last = found.get("before", {}).get("transformer", {}), list(found["transformer"])[-1]
    named = {BEFORE: past, OTHER: found.get("other", {}), **found["transformer"]}
    ways = {way: rows for way, rows in named.items() if rows}
    heads = ["case", "limit", *ways, "of the limit", "kernels", "GB moved", "GB alive"]
    rows = []
    for family in FAMILIES:
        for clip in PICTURES if family == "PixArt" else (*SIZES, KEPT):
            case = f"{family}, {clip}"
            times = [_time(each[case]["ms"]) if case in each else "" for each in ways.values()]
            rows.append([case, *_told(found["transformer"][last][case], past.get(case), times)])
    return table(heads, rows)


def of_clips(found: Figures) -> str:
    """Every network on every clip, in milliseconds, and the exponents of cost."""
    columns = sorted(clips("1.2"), key=lambda name: clips("1.2")[name])
    rows = []
    last = list(found["transformer"].values())[-1]
    for name in (*FAMILIES, *(f"{vae} {work}" for vae in VAES for work in ("encode", "decode"))):
        if name != "PixArt":
            source = last if name in FAMILIES else found["others"]
            times = [_time(source[f"{name}, {clip}"]["ms"]) for clip in columns]
            exponents = found["exponents"][name]
            rows.append([name, *times, f"{exponents['frames']:.2f}", f"{exponents['pixels']:.2f}"])
    return table(["network", *columns, "exponent in frames", "in pixels"], rows)


def others(found: Figures) -> str:
    """The VAEs on a clip, and the text encoder."""
    past = found.get("before", {}).get("others", {})
    rows = []
    for case, figures in found["others"].items():
        if case.endswith(MAIN) or case.startswith("T5"):
            times = [*([_time(past[case]["ms"])] if past else []), _time(figures["ms"])]
            rows.append([case, *_told(figures, past.get(case), times)])
    heads = ["case", "limit", *([BEFORE] if past else []), "counted"]
    return table([*heads, "of the limit", "kernels", "GB moved", "GB alive"], rows)


def kinds(found: Figures) -> str:
    """Which kernels a step's time goes to, in milliseconds."""
    ways = {**({BEFORE: found["before"]["kinds"]} if "before" in found else {}), **found["kinds"]}
    names = {name: max(way.get(name, 0.0) for way in ways.values()) for way in ways.values() for name in way}
    order = sorted(names, key=lambda name: (name == "all others", -names[name]))
    return table(
        ["kernel", *ways],
        [[f"`{name}`", *(f"{way[name]:.1f}" if name in way else "" for way in ways.values())] for name in order],
    )


def measured(found: Figures) -> str:
    """What a machine was measured at."""
    if "cpu" not in found:
        return "Not yet: `python run.py bench measured --json docs/performance.json` does it."
    machine, cpu = found["machine"], found["cpu"]
    where = f"{machine['cpu']}, {machine['threads']} threads, PyTorch {machine['torch']}, fp32."
    rows = []
    for case, words in (("plain", "1.2, depth 2"), ("kept", "1.2, depth 2, first frame kept")):
        for who, name in (("ours", ""), ("other", f" – {OTHER}")):
            if who in cpu[case]:
                rows.append([words + name, *_measures(cpu[case][who]), f"{cpu[case]['products_gflops']:.0f}"])
    for name, figures in found["vaes"].items():
        if name != "products_gflops":
            rows.append([f"{name}, 17 frames", *_measures(figures), f"{found['vaes']['products_gflops']:.0f}"])
    heads = ["call", "seconds", "of the products' speed", "MB alive", "products, GFLOP/s"]
    text = f"{where}\n\n{table(heads, rows)}"
    if "gpu" in found:
        figures = [[name, *row.values()] for name, row in found["gpu"].items()]
        heads = [machine["gpu"], "ms", "counted", "GB alive", "counted"]
        text += f"\n\n{table(heads, figures)}"
    return text


TABLES: dict[str, Callable[[Figures], str]] = {
    "steps": steps,
    "clips": of_clips,
    "others": others,
    "kinds": kinds,
    "measured": measured,
    "cards": lambda found: table(cards.HEADS, cards.rows(found["cards"])),
}


def with_tables(text: str, found: Figures) -> str:
    """The page with its tables, each between <!-- bench: NAME --> and <!-- end -->, as these figures are."""

    def made(match: re.Match[str]) -> str:
        return f"<!-- bench: {match[1]} -->\n\n{TABLES[match[1]](found)}\n\n<!-- end -->"

    return re.sub(r"<!-- bench: (\w+) -->.*?<!-- end -->", made, text, flags=re.DOTALL)


def write(figures: Path) -> None:
    """Make the tables and pictures of the page beside a file of figures anew."""
    found = json.loads(figures.read_text(encoding="utf-8"))
    page = figures.with_suffix(".md")
    page.write_text(with_tables(page.read_text(encoding="utf-8"), found), encoding="utf-8")
    for name, picture in charts.pictures(found).items():
        charts.save(picture, figures.with_name(f"{figures.stem}_{name}.png"), digest(found))


def digest(found: Figures) -> str:
    """Tells figures apart: pictures carry that of theirs."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]


def _told(figures, past, times):
    """A case's cells: its limit, `times`, and the rest as it was and is."""

    def change(name, form):
        now = form.format(figures[name])
        return now if past is None or form.format(past[name]) == now else f"{form.format(past[name])} → {now}"

    changes = [change("kernels", "{:,}"), change("moved_gb", "{:,.0f}"), change("peak_gb", "{:.2f}")]
    return [_time(figures["limit_ms"]), *times, f"{figures['share']:.0%}".replace("%", " %"), *changes]


def _time(value):
    return f"{value:,.0f}"


def _measures(figures):
    return f"{figures['seconds']:.2f}", f"{100 * figures['share']:.0f} %", f"{figures['peak_mb']:.0f}"
