"""The pictures of docs/performance.md: on paper of their own, so that they can be read on light and on dark pages."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from ...training.data.lettering import width_of
from ...training.data.lettering import write as letter
from .cases import SIZES, VAES

PAPER, INK, QUIET, GRID, LIMIT = "#faf9f6", "#28282c", "#707076", "#e4e2dc", "#c8283c"
OF_WAYS = {"the original": "#96969f", "before": "#c4aa78", "PyTorch alone": "#8ab4dc"}
OF_HOSTS = ("#3f83c4", "#1c5a9c")
OF_LINES = ("#1c5a9c", "#4f9a70", "#be4628", "#8062a8", "#c98a1c", "#708090", "#2a2a2e")
GROUPS = {  # of kernels
    "products": ("#1c5a9c", ("addmm", "mm", "bmm", "baddbmm", "_addmm_activation", "convolution")),
    "attention": ("#4f9a70", ("attention",)),
    "norms, rotations": (
        "#8062a8",
        ("native_layer_norm", "_fused_rms_norm", "rms_norm", "adaln", "rms_rope_", "apply_rope_"),
    ),
    "element by element": (
        "#c98a1c",
        ("mul", "add", "addcmul", "addcmul_", "gelu", "silu", "pow", "mean", "neg", "rsqrt"),
    ),
    "copies": ("#be4628", ("clone", "_to_copy", "copy_", "cat", "stack")),
    "all others": ("#a8a8ae", ()),
}
WIDTH, FINE = 960, 2  # pixels; drawn so many times larger, then made smaller
CASE, CLIP = "1.2, {}", "{}, 480p, {} s"
SECONDS = (1, 2, 4, 8, 16)


def pictures(found: Mapping[str, Any]) -> dict[str, Image.Image]:
    """All of them by name."""
    return {"steps": steps(found), "clips": of_clips(found), "kinds": kinds(found)}


def save(picture: Image.Image, path: Path, figures: str) -> None:
    """Write a small PNG that says which figures it shows."""
    told = PngInfo()
    told.add_text("figures", figures)
    picture.quantize(48, Image.Quantize.MEDIANCUT).save(path, "PNG", optimize=True, pnginfo=told)


def steps(found: Mapping[str, Any]) -> Image.Image:
    """A step of 1.2 as bars: another's, before, and by every way now; a line where the products alone would be."""
    past, other = found.get("before", {}).get("transformer", {}), found.get("other", {})
    ways = {"the original": other, "before": past, **found["transformer"]}
    ways = {way: rows for way, rows in ways.items() if CASE.format("480p, 4 s") in rows}
    bar, gap = 24, 26
    canvas = Canvas(74 + len(SIZES) * (bar * len(ways) + gap), "One guided step of Open-Sora 1.2, counted for an H100")
    top = 58.0
    for clip in SIZES:
        case, left = CASE.format(clip), 120
        scale = (WIDTH - left - 250) / max(rows[case]["ms"] for rows in ways.values())
        canvas.write(24, top + bar * len(ways) / 2 - 10, clip, 15)
        for place, (way, rows) in enumerate(ways.items()):
            end, y = left + rows[case]["ms"] * scale, top + place * bar
            canvas.box(left, y, end, y + bar - 4, colour_of(way, ways))
            canvas.write(end + 8, y, f"{rows[case]['ms']:,.0f} ms   {way}", 14)
        limit = left + next(iter(found["transformer"].values()))[case]["limit_ms"] * scale
        canvas.box(limit - 1, top - 6, limit + 1, top + bar * len(ways) + 2, LIMIT)
        top += bar * len(ways) + gap
    canvas.write(
        24, top - 10, "Red: what the matrix products and attention alone take. Each size has its own scale.", 13, QUIET
    )
    return canvas.done()


def of_clips(found: Mapping[str, Any]) -> Image.Image:
    """Milliseconds by seconds of video at 480p, both on logarithmic scales: steps of the families, decoding of VAEs."""
    last = list(found["transformer"].values())[-1]
    rows = {**{f"{family}, a step": (last, family) for family in ("1.0", "1.1", "1.2", "1.3")}}
    rows |= {f"{vae}, decoding": (found["others"], f"{vae} decode") for vae in VAES}
    lines = {
        name: [source[CLIP.format(key, seconds)]["ms"] for seconds in SECONDS] for name, (source, key) in rows.items()
    }
    low, high = (side(value for line in lines.values() for value in line) for side in (min, max))
    canvas = Canvas(440, "Milliseconds by seconds of video at 480p, counted for an H100")
    left, right, top, bottom = 84, WIDTH - 210, 58, 390

    def place(seconds, value):
        across = left + (right - left) * math.log2(seconds) / math.log2(SECONDS[-1])
        return across, bottom - (bottom - top) * math.log(value / low) / math.log(high / low)

    for seconds in SECONDS:
        x, _ = place(seconds, low)
        canvas.box(x, top, x + 1, bottom, GRID)
        canvas.write(x - 10, bottom + 8, f"{seconds} s", 13, QUIET)
    for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1):
        _, y = place(1, 10**power)
        canvas.box(left, y, right, y + 1, GRID)
        canvas.write(left - 10 - width_of(f"{10**power:,}", 13), y - 8, f"{10**power:,}", 13, QUIET)
    ends = []
    for colour, (name, values) in zip(OF_LINES, lines.items()):
        points = [place(*point) for point in zip(SECONDS, values)]
        canvas.line(points, colour, dotted=name.startswith("VAE"))
        ends.append((points[-1][1], name, colour))
    free = 0.0
    for y, name, colour in sorted(ends):  # names beside the lines' ends, one below the other
        free = max(free + 18, y - 9)
        canvas.write(right + 12, free, name, 14, colour)
    return canvas.done()


def kinds(found: Mapping[str, Any]) -> Image.Image:
    """Where a step's time goes: bars of the ways, made of groups of kernels."""
    ways = {**({"before": found["before"]["kinds"]} if "before" in found else {}), **found["kinds"]}
    canvas = Canvas(96 + 44 * len(ways), "Where a step of 1.2 at 480p and 4 s goes, ms")
    left, top = 150, 88
    scale = (WIDTH - left - 90) / max(sum(kernels.values()) for kernels in ways.values())
    x = float(left)
    for group, (colour, _) in GROUPS.items():
        canvas.box(x, 60, x + 12, 72, colour)
        x = canvas.write(x + 18, 57, group, 13) + 20
    for place, (way, kernels) in enumerate(ways.items()):
        y, x = top + 44 * place, float(left)
        canvas.write(24, y + 6, way, 15)
        for group, size in grouped(kernels).items():
            canvas.box(x, y, x + size * scale, y + 30, GROUPS[group][0])
            if size * scale > 34:
                canvas.write(x + 6, y + 7, f"{size:.0f}", 13, PAPER)
            x += size * scale
        canvas.write(x + 8, y + 6, f"{sum(kernels.values()):,.0f}", 14)
    return canvas.done()


def grouped(kernels: Mapping[str, float]) -> dict[str, float]:
    """Milliseconds by group of those of each kind of kernel."""
    sizes = dict.fromkeys(GROUPS, 0.0)
    for name, size in kernels.items():
        sizes[next((group for group, (_, names) in GROUPS.items() if name in names), "all others")] += size
    return sizes


def colour_of(way: str, ways: Mapping[str, Any]) -> str:
    """A way's; those of a ComfyUI have their own by their order."""
    hosts = [name for name in ways if name not in OF_WAYS]
    return OF_WAYS[way] if way in OF_WAYS else OF_HOSTS[hosts.index(way) % len(OF_HOSTS)]


class Canvas:
    """Paper to draw on in pixels, drawn finer than it is shown."""

    def __init__(self, height: int, title: str) -> None:
        self.image = Image.new("RGB", (FINE * WIDTH, FINE * height), PAPER)
        self.draw = ImageDraw.Draw(self.image)
        self.write(24, 18, title, 18)

    def write(self, x: float, y: float, text: str, size: int, colour: str = INK) -> float:
        """Text from (x, y) on; returns where it ends."""
        return letter(self.draw, FINE * x, FINE * y, text, FINE * size, colour) / FINE

    def box(self, left: float, top: float, right: float, bottom: float, colour: str) -> None:
        """A filled box."""
        self.draw.rectangle((FINE * left, FINE * top, FINE * right, FINE * bottom), fill=colour)

    def line(self, points: list[tuple[float, float]], colour: str, dotted: bool) -> None:
        """A line through points with a dot on each; `dotted`: the dots alone are filled by paper."""
        self.draw.line([(FINE * x, FINE * y) for x, y in points], fill=colour, width=2 * FINE, joint="curve")
        for x, y in points:
            around = (FINE * (x - 4), FINE * (y - 4), FINE * (x + 4), FINE * (y + 4))
            self.draw.ellipse(around, fill=PAPER if dotted else colour, outline=colour, width=2 * FINE)

    def done(self) -> Image.Image:
        """The picture."""
        return self.image.reduce(FINE)
