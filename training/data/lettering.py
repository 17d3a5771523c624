"""Text on pictures: in Pillow's own font, in one of the system's where that lacks a letter, always within its room."""

import unicodedata
from bisect import bisect_right
from functools import cache
from typing import Any

from PIL import ImageDraw, ImageFont

# Fonts that systems have for the letters that Pillow's own, basic Latin, lacks; by the names that Pillow finds them by.
SYSTEM_FONTS = (
    "DejaVuSans.ttf", "arial.ttf", "Arial.ttf", "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "msyh.ttc",
    "YuGothR.ttc", "malgun.ttf", "PingFang.ttc", "Hiragino Sans GB.ttc", "Arial Unicode.ttf", "wqy-zenhei.ttc",
)  # fmt: skip
OWN = ""  # Pillow's
NO_LETTER = "\U0010ffff"


def plain(text: object) -> str:
    """One line of text that any font takes: no line breaks, no control characters, no halves of characters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())


def write(draw: ImageDraw.ImageDraw, x: float, y: float, text: str, size: int, color: str) -> float:
    """Draw a line of text and return where it ends. Letters that no font has become their base letter, else "?"."""
    text, font = _lettering(text, size)
    draw.text((x, y), text, font=font, fill=color)
    return x + font.getlength(text)


def width_of(text: str, size: int) -> float:
    """How many pixels a line of text takes."""
    text, font = _lettering(text, size)
    return font.getlength(text)


def shortened(text: str, size: int, room: float, middle: bool = False) -> str:
    """Text that fits into `room` pixels, its end or its middle replaced by dots."""
    text, font = _lettering(text, size)
    if len(text) < 1000 and font.getlength(text) <= room:
        return text

    def kept(count):
        tail = count // 3 if middle else 0
        return f"{text[: count - tail].rstrip()}…{text[len(text) - tail :]}"

    return kept(_most(len(text) - 1, room, lambda count: font.getlength(kept(count))))


def wrapped(text: str, size: int, room: float, most: int) -> list[str]:
    """At most `most` lines of text, broken between words, or within one that is longer than a line."""
    rest, font = _lettering(text, size)
    lines: list[str] = []
    while rest and len(lines) < most - 1:
        fits = max(1, _most(len(rest), room, _lengths(rest, font)))
        space = rest.rfind(" ", 0, fits + 1)
        end = fits if fits == len(rest) or space <= 0 else space
        lines.append(rest[:end])
        rest = rest[end:].lstrip()
    return [*lines, shortened(rest, size, room)] if rest else lines


def _most(most, room, length):
    """The largest count whose length is within room; no line has more than 400 letters."""
    return max(0, bisect_right(range(min(most, 400) + 1), room, key=length) - 1)


def _lengths(text, font):
    """The width of the first letters of a text by how many they are."""
    return lambda count: font.getlength(text[:count])


def _lettering(text, size):
    """(the text as it can be written, the font for it)."""
    text = plain(text)
    name = next((name for name in (OWN, *SYSTEM_FONTS) if _has_all(name, text)), None)
    if name is not None:
        return text, _font(name, size)
    base = "".join(one for one in unicodedata.normalize("NFKD", text) if not unicodedata.combining(one))
    return "".join(letter if _has(OWN, letter) else "?" for letter in base), _font(OWN, size)


def _has_all(name, text):
    return _font(name, 20) is not None and all(_has(name, letter) for letter in set(text))


@cache
def _has(name: str, letter: str) -> bool:
    """Whether a font has a letter: whether it draws it otherwise than one that no font has."""
    missing, drawn = (_font(name, 20).getmask(one) for one in (NO_LETTER, letter))
    return letter == " " or (missing.size, bytes(missing)) != (drawn.size, bytes(drawn))


@cache
def _font(name: str, size: int) -> Any:
    """The font, or None where this system does not have it."""
    if name == OWN:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None
