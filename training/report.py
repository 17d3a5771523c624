"""The curve of a run: how validation changed since the beginning, by noise band, and the loss of each step."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from PIL import Image, ImageDraw

from .data.lettering import write
from .objective import BANDS

PAPER, INK, QUIET, GRID = "#faf9f6", "#28282c", "#808086", "#e4e2dc"
POINTS, SMOOTH, JUDGED = "#c3ccd6", "#235ca0", "#be4628"
OF_BANDS = {"low": "#4f9a70", "middle": "#c98a1c", "high": "#8062a8"}
LEFT, RIGHT, HEAD, FOOT, TITLE = 64, 176, 52, 30, 34  # room around the panels, and above each; in pixels
FINE = 2  # drawn so many times larger, then made smaller: lines without steps
LEAST = 2.0  # per cent that the scale of validation spans at least: less is nothing
MOST = 100.0  # per cent above the beginning that it shows: what is worse has fallen apart
BETTER = 0.5  # per cent below the beginning that count as learned

Points = list[tuple[float, float]]


class Panel(NamedTuple):
    """A chart's room in pixels and its scale: steps 0 … last across, low … high upwards."""

    left: float
    top: float
    right: float
    bottom: float
    last: float
    low: float
    high: float

    def place(self, step: float, value: float) -> tuple[float, float]:
        """Where a point is drawn; what is beyond the scale is at its edge."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.left + (self.right - self.left) * step / self.last, self.bottom - (self.bottom - self.top) * share


def curve(lines: Sequence[Mapping[str, Any]], width: int = 960, height: int = 540) -> Image.Image:
    """The log's lines as a picture, RGB of `width` x `height` pixels.

    Above, where there is validation, how far it is below the beginning, in per cent, all of it and by noise band, with
    the best step marked; below, the loss of each step and its running mean, on a scale that outliers do not stretch.
    """
    image = Image.new("RGB", (FINE * width, FINE * height), PAPER)
    draw = ImageDraw.Draw(image)
    losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    judged = {
        name: [(line["step"], line[name]) for line in lines if name in line and math.isfinite(line[name])]
        for name in ("validation", *BANDS)
    }
    judged = {name: changes(points) for name, points in judged.items() if points}
    _write(draw, LEFT, 20, verdict(lines), 17, INK)
    if losses or judged:
        last = max([1.0, *(step for points in (losses, *judged.values()) for step, _ in points)])
        rows = 2 if losses and judged else 1
        room = (height - HEAD - FOOT) / rows
        tops = iter([HEAD + row * room + TITLE for row in range(rows)])
        if judged:
            _validation(draw, judged, (LEFT, top := next(tops), width - RIGHT, top + room - TITLE - 32), last)
        if losses:
            _losses(draw, losses, (LEFT, top := next(tops), width - RIGHT, top + room - TITLE), last)
    return image.reduce(FINE)


def changes(points: Sequence[tuple[float, float]]) -> Points:
    """How far each value is from the first, in per cent of it; below 0 is better."""
    first = points[0][1] or 1.0
    return [(step, 100 * (value / first - 1)) for step, value in points]


def verdict(lines: Sequence[Mapping[str, Any]]) -> str:
    """A line that says how far a run is, and whether more steps are likely to help."""
    step = max((line["step"] for line in lines if "loss" in line), default=0)
    judged = [(line["step"], line["validation"]) for line in lines if "validation" in line]
    if not step:
        return "no step yet"
    if not judged:
        return f"step {step}; nothing is held back to judge by, so look at samples"
    best, value = min(judged, key=lambda one: one[1])
    below = 100 * (1 - value / judged[0][1]) if judged[0][1] else 0.0
    if len(judged) == 1:
        return f"step {step}; not judged yet since the beginning"
    if below < BETTER:
        return f"step {step}; validation is {value:.4f} at best, hardly below the beginning: little is learned yet"
    rest = "still falling, more steps may help" if best == judged[-1][0] else "no better since then"
    return f"step {step}; best at step {best}: validation {value:.4f}, {below:.1f} % below the beginning; {rest}"


def smoothed(points: Sequence[tuple[float, float]], share: float = 0.1) -> Points:
    """A running mean over about `share` of the points; its beginning is the mean of what there is."""
    keep = 1 - 1 / max(1.0, share * len(points))
    found, mean, weight = [], 0.0, 0.0
    for step, value in points:
        mean, weight = keep * mean + value, keep * weight + 1
        found.append((step, mean / weight))
    return found


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers within low … high: at most `most`, by 1, 2 or 5 of a power of ten."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    steps = (power * times for times in (1, 2, 5, 10, 20))
    return next(found for found in (_multiples(low, high, step) for step in steps) if len(found) <= most)


def _multiples(low, high, step):
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(step * number, 12) for number in range(first, last + 1)]


def _validation(draw, judged, room, last):
    values = [value for points in judged.values() for _, value in points]
    low, high = min(0, *values), min(max(0, *values), MOST)
    rest = max(0.1 * (high - low), (LEAST - (high - low)) / 2)
    panel = Panel(*room, last, low - rest, high + rest)
    _grid(draw, panel, "Validation, on clips that are not trained on: change since the beginning", "{:g} %")
    colors = {**OF_BANDS, "validation": JUDGED}
    words = {"validation": "all noise", **{name: f"{name} noise" for name in BANDS}}
    for name, color in colors.items():
        if name in judged:
            _line(draw, [panel.place(*point) for point in judged[name]], color, 3 if name == "validation" else 1.6)
    ends = {name: panel.place(*points[-1])[1] for name, points in judged.items()}
    for name, y in apart(ends, 19).items():
        change = judged[name][-1][1]
        said = f"{words[name]} {change:+.1f} %" if change <= MOST else f"{words[name]} > +{MOST:g} %"
        _write(draw, panel.right + 12, y - 9, said, 15 if name == "validation" else 14, colors[name])
    if "validation" in judged:
        x, y = panel.place(*min(judged["validation"], key=lambda one: one[1]))
        _disc(draw, x, y, 6, JUDGED)
        _disc(draw, x, y, 3.5, PAPER)


def _losses(draw, losses, room, last):
    mean = smoothed(losses)
    usual = sorted(value for _, value in losses)[int(0.95 * (len(losses) - 1))]
    top = max(1.15 * usual, 1e-9)
    panel = Panel(*room, last, 0.0, top)
    _grid(draw, panel, "Loss of the steps: it jumps with the noise that each draws; the line is the mean", "{:g}")
    for point in losses:
        _disc(draw, *panel.place(*point), 1.8, POINTS)
    places = [panel.place(*point) for point in mean]
    _line(draw, places, SMOOTH, 2.5)
    _write(draw, panel.right + 12, places[-1][1] - 9, f"mean {mean[-1][1]:.3g}", 15, SMOOTH)


def apart(places: Mapping[str, float], least: float) -> dict[str, float]:
    """The same places, moved so that neighbours are `least` from one another; their order stays."""
    names = sorted(places, key=lambda name: places[name])
    found = dict(places)
    for _ in range(100):
        for above, below in zip(names, names[1:]):
            missing = least - (found[below] - found[above])
            if missing > 0:
                found[above] -= missing / 2
                found[below] += missing / 2
    return found


def _grid(draw, panel, title, form):
    _write(draw, panel.left, panel.top - TITLE + 6, title, 14, QUIET)
    for value in ticks(panel.low, panel.high):
        (left, y), (right, _) = panel.place(0, value), panel.place(panel.last, value)
        _line(draw, [(left, y), (right, y)], QUIET if value == 0 else GRID, 1)
        _write(draw, left - 8, y - 8, form.format(value), 13, QUIET, end=True)
    for step in ticks(0, panel.last, 7):
        if step == int(step):
            _write(draw, panel.place(step, 0)[0], panel.bottom + 5, f"{int(step)}", 13, QUIET, end=None)
    _write(draw, panel.right + 36, panel.bottom + 5, "steps", 13, QUIET)


def _line(draw, places, color, thickness):
    places = [(FINE * x, FINE * y) for x, y in places]
    if len(places) > 1:
        draw.line(places, color, round(FINE * thickness), joint="curve")
    for x, y in places[:: max(1, len(places) - 1)]:  # round ends
        draw.ellipse((x - thickness, y - thickness, x + thickness, y + thickness), color)


def _disc(draw, x, y, radius, color):
    draw.ellipse([FINE * (at + side) for side in (-radius, radius) for at in (x, y)], color)


def _write(draw, x, y, text, size, color, end=False):
    """Text whose left side is at x, or its right one where `end` is true, or its middle where it is None."""
    if end is not False:
        length = write(ImageDraw.Draw(Image.new("L", (1, 1))), 0, 0, text, FINE * size, "white") / FINE
        x -= length if end else length / 2
    write(draw, FINE * x, FINE * y, text, FINE * size, color)
