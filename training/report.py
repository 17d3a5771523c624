"""The curve of a run: the loss of each step, its average, and validation by noise band."""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from .objective import BANDS

PAPER, INK, GRID = (250, 249, 246), (40, 40, 44), (222, 220, 214)
POINTS, SMOOTH, JUDGED = (196, 205, 214), (35, 92, 160), (190, 70, 40)
OF_BANDS = {"low": (96, 158, 120), "middle": (206, 152, 60), "high": (128, 98, 168)}
MARGIN = 64


def curve(lines: Sequence[Mapping[str, Any]], width: int = 960, height: int = 540) -> Image.Image:
    """The log's lines as a picture: losses over steps, on a scale that outliers do not stretch."""
    image = Image.new("RGB", (width, height), PAPER)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(13)
    losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    judged = {"validation": [(line["step"], line["validation"]) for line in lines if "validation" in line]}
    judged |= {name: [(line["step"], line[name]) for line in lines if name in line] for name in BANDS}
    smooth = smoothed(losses)
    values = sorted([value for _, value in losses] + [value for points in judged.values() for _, value in points])
    if not values:
        draw.text((MARGIN, MARGIN), "no step yet", INK, font)
        return image
    top = 1.1 * max([values[int(0.98 * (len(values) - 1))], *(value for _, value in smooth)])
    last = max(max((step for step, _ in losses), default=1), 1)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        step, value = point
        across = MARGIN + (width - 2 * MARGIN) * step / last
        return across, height - MARGIN - (height - 2 * MARGIN) * min(value, top) / top

    _grid(draw, font, place, top, last)
    for point in losses:
        x, y = place(point)
        draw.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), POINTS)
    lines_drawn = {"loss of the steps, smoothed": (smooth, SMOOTH, 3), "validation": (judged["validation"], JUDGED, 3)}
    lines_drawn |= {f"validation, {name} noise": (judged[name], OF_BANDS[name], 1) for name in BANDS}
    across: float = MARGIN
    for name, (points, color, thickness) in lines_drawn.items():
        if not points:
            continue
        draw.line([place(point) for point in points], color, thickness, joint="curve")
        for x, y in map(place, points if name.startswith("validation") else ()):
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), color)
        draw.rectangle((across, 22, across + 14, 34), color)
        draw.text((across + 20, 20), name, INK, font)
        across += 44 + draw.textlength(name, font)
    return image


def smoothed(points: Sequence[tuple[float, float]], share: float = 0.05) -> list[tuple[float, float]]:
    """A running mean over about `share` of the points; its beginning is the mean of what there is."""
    keep = 1 - 1 / max(1.0, share * len(points))
    found, mean, weight = [], 0.0, 0.0
    for step, value in points:
        mean, weight = keep * mean + value, keep * weight + 1
        found.append((step, mean / weight))
    return found


def _grid(draw, font, place, top, last):
    for part in range(5):
        value, step = top * part / 4, round(last * part / 4)
        (left, y), (right, _) = place((0, value)), place((last, value))
        draw.line((left, y, right, y), GRID)
        draw.text((left - 8, y), f"{value:.3g}", INK, font, anchor="rm")
        draw.text((place((step, 0))[0], place((0, 0))[1] + 8), f"{step}", INK, font, anchor="mt")
    draw.text((place((last, 0))[0], place((0, 0))[1] + 28), "steps", INK, font, anchor="rt")
