"""What a run made of the same noise as it learned: a row of clips for each time that it was asked."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw

from .contact_sheet import evenly
from .data import media
from .data.lettering import shortened, write

SAMPLE = re.compile(r"step-(\d+)-(\d+)\.mp4")
PAPER, INK, QUIET, EMPTY, EDGE = "#faf9f6", "#28282c", "#808086", "#e4e2dc", 24
FRAMES, MOST_PROMPTS, MOST_ROWS = 4, 4, 6
LABEL, GAP, HEAD = 84, 12, 44


class Sample(NamedTuple):
    """A clip that a run made: after which step, of which prompt, and its file."""

    step: int
    prompt: int
    path: Path


def samples_in(folder: Path) -> list[Sample]:
    """The clips in a run's folder of samples, in the order in which they were made."""
    found = [(SAMPLE.fullmatch(path.name), path) for path in folder.glob("*.mp4")]
    return sorted(Sample(int(match[1]), int(match[2]), path) for match, path in found if match)


def strip(samples: Sequence[Sample], prompts: Sequence[str] = (), width: int = 960) -> Image.Image:
    """Rows by step, columns by prompt, FRAMES of each clip; of many steps the first, the last, and some between."""
    columns = sorted({sample.prompt for sample in samples})[:MOST_PROMPTS]
    steps = sorted({sample.step for sample in samples})
    steps = [steps[place] for place in evenly(len(steps), min(len(steps), MOST_ROWS))]
    if not steps:
        return Image.new("RGB", (width, 1), PAPER)
    room = (width - 2 * EDGE - LABEL - GAP * (len(columns) - 1)) // len(columns)
    rows = [[_clip(samples, step, column, room) for column in columns] for step in steps]
    heights = [max(clip.height for clip in row) + GAP for row in rows]
    image = Image.new("RGB", (width, HEAD + sum(heights) + EDGE - GAP), PAPER)
    draw, top = ImageDraw.Draw(image), HEAD
    for place, column in enumerate(columns):
        left = EDGE + LABEL + place * (room + GAP)
        words = prompts[column] if column < len(prompts) else ""
        write(draw, left, 14, shortened(words, 15, room), 15, INK)
    for step, row, height in zip(steps, rows, heights):
        write(draw, EDGE, top + (height - GAP) // 2 - 10, "before" if step == 0 else f"step {step}", 14, QUIET)
        for place, clip in enumerate(row):
            image.paste(clip, (EDGE + LABEL + place * (room + GAP), top))
        top += height
    return image


def below(upper: Image.Image, lower: Image.Image) -> Image.Image:
    """One picture of two of the same width."""
    whole = Image.new("RGB", (upper.width, upper.height + lower.height), PAPER)
    whole.paste(upper, (0, 0))
    whole.paste(lower, (0, upper.height))
    return whole


def _clip(samples, step, prompt, room):
    """FRAMES of a clip side by side, `room` pixels wide in all; grey where it is not there or cannot be read."""
    side = (room - 2 * (FRAMES - 1)) // FRAMES
    path = next((each.path for each in samples if (each.step, each.prompt) == (step, prompt)), None)
    try:
        frames = _frames(path) if path else []
    except ValueError:
        frames = []
    if not frames:
        return Image.new("RGB", (room, side), EMPTY)
    height = round(side * frames[0].height / frames[0].width)
    image = Image.new("RGB", (room, height), PAPER)
    for place, frame in enumerate(frames):
        image.paste(frame.resize((side, height), Image.Resampling.LANCZOS), (place * (side + 2), 0))
    return image


def _frames(path):
    count = media.probe(path).frames
    places = evenly(count, min(FRAMES, count))
    return [Image.fromarray(frame.movedim(0, -1).contiguous().numpy()) for frame in media.read(path, places)]
