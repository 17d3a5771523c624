"""The parts of pictures that say something: headings, lines of text, what is left out and why, one below another."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

from .lettering import shortened, wrapped, write

MARGIN, GAP = 44, 20  # the picture's edge, between what stands side by side; in pixels
PADDING = 12  # within a card
BACKGROUND, CARD, TRACK, TEXT, MUTED, USED, WARNING = (
    "#181a26", "#222536", "#3c425c", "#f5f6fa", "#9aa1bf", "#ffc43d", "#ff7a70",
)  # fmt: skip


def blank(width: int, height: int) -> Image.Image:
    """Nothing, of so many pixels."""
    return Image.new("RGB", (width, height), BACKGROUND)


def text_line(text: str, size: int, color: str, width: int) -> Image.Image:
    """A line of text within the margins."""
    image = blank(width, size + 12)
    write(ImageDraw.Draw(image), MARGIN, 4, shortened(text, size, width - 2 * MARGIN), size, color)
    return image


def heading(name: str, count: str, width: int, color: str = TEXT) -> Image.Image:
    """A heading, what it counts beside it, a rule below."""
    image = blank(width, 78)
    draw = ImageDraw.Draw(image)
    room = width - 2 * MARGIN
    end = write(draw, MARGIN, 26, shortened(name, 26, room * 0.7), 26, color)
    write(draw, end + 16, 33, count, 18, MUTED)
    draw.rectangle((MARGIN, 64, width - MARGIN, 65), fill=TRACK)
    return image


def left_out_line(name: str, reason: str, width: int, color: str = TEXT) -> Image.Image:
    """A line, or more, of what is left out: its name and why."""
    room = width - 2 * MARGIN
    name = shortened(name, 17, room * 0.4, middle=True)
    reasons = wrapped(reason, 17, room * 0.6 - 24, 3) or [""]
    image = blank(width, 26 * len(reasons) + 6)
    draw = ImageDraw.Draw(image)
    write(draw, MARGIN, 2, name, 17, color)
    for index, words in enumerate(reasons):
        write(draw, MARGIN + room * 0.4 + 24, 2 + 26 * index, words, 17, MUTED)
    return image


def counted(count: int, what: str) -> str:
    """ "1 clip", "12,000 clips"."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def stacked(images: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one width, one below another."""
    whole = Image.new("RGB", (images[0].width, sum(image.height for image in images)), BACKGROUND)
    y = 0
    for image in images:
        whole.paste(image, (0, y))
        y += image.height
    return whole
