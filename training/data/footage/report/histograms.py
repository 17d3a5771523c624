"""Histograms of scores as pictures: what is kept in yellow, what is left out in grey above it."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from ...lettering import shortened, width_of, write
from ...panels import CARD, MUTED, TEXT, TRACK, USED
from .account import Score

BINS, BINS_OF_FEW, FEW = 44, 22, 60  # bars; where there are few shots
PADDING, HEAD, FOOT = 20, 56, 34  # of a panel; in pixels
LEFT_OUT = "#6c7499"


class Scale(NamedTuple):
    """The least and the largest value, and where one between them is drawn, 0…1."""

    low: float
    high: float
    place: Callable[[float], float]


def scale(values: Sequence[float]) -> Scale:
    """An even scale, or one drawn out at its low end where a few values are far above the rest."""
    values = sorted(values)
    low, high = values[0], values[-1]
    usual = values[int(0.9 * (len(values) - 1))]
    if high - low <= 5 * (usual - low):
        return Scale(low, high, lambda value: (value - low) / ((high - low) or 1))
    unit = max(values[len(values) // 2] - low, (high - low) / 1000)
    end = math.asinh((high - low) / unit)
    return Scale(low, high, lambda value: math.asinh((value - low) / unit) / end)


def counts(score: Score, kept: Sequence[bool]) -> tuple[list[int], list[int]]:
    """How many rows of each bar are kept, and how many are left out."""
    known = [(value, stays) for value, stays in zip(score.values, kept) if value is not None]
    bins = BINS if len(known) > FEW else BINS_OF_FEW
    place = scale([value for value, _ in known]).place
    found = [0] * bins, [0] * bins
    for value, stays in known:
        found[not stays][min(int(place(value) * bins), bins - 1)] += 1
    return found


def histogram(score: Score, kept: Sequence[bool], width: int, height: int) -> Image.Image:
    """A panel of so many pixels: the score's name, its bars, its least and largest value. Heights go by the root.

    Args:
        kept: whether each row is kept, in the order of the score's values.
    """
    image = Image.new("RGB", (width, height), CARD)
    draw = ImageDraw.Draw(image)
    end = write(draw, PADDING, 14, shortened(score.label, 20, width - 2 * PADDING), 20, TEXT)
    note = shortened(score.note, 14, width - end - 14 - PADDING) if end + 60 < width else ""
    write(draw, end + 14, 20, note, 14, MUTED)
    kept_counts, left_out = counts(score, kept)
    most = max(map(sum, zip(kept_counts, left_out)))
    floor, room, bins = height - FOOT, width - 2 * PADDING, len(kept_counts)
    for place, (stays, goes) in enumerate(zip(kept_counts, left_out)):
        left, right = (round(PADDING + room * (place + side) / bins) for side in (0, 1))
        for count, color in ((stays + goes, LEFT_OUT), (stays, USED)):
            if count:
                top = floor - max(2, round((floor - HEAD) * math.sqrt(count / most)))
                draw.rectangle((left + 1, top, right - 1, floor - 1), fill=color)
    draw.rectangle((PADDING, floor, width - PADDING, floor), fill=TRACK)
    low, high = (value_said(end) for end in scale([value for value in score.values if value is not None])[:2])
    write(draw, PADDING, floor + 8, low, 14, MUTED)
    write(draw, width - PADDING - width_of(high, 14), floor + 8, high, 14, MUTED)
    return image


def value_said(value: float | None) -> str:
    """A score as one reads it: "4.95", "174,080", "–" where there is none."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.3g}"
