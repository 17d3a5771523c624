"""Prompts: the caption cleaning that Open-Sora's models were trained with, and the score suffixes they know."""

import html
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_plus

from .text_repair import repair_unicode, strip_markup

CAMERA_MOTIONS = ("pan left", "pan right", "tilt up", "tilt down", "zoom in", "zoom out", "static")

_SITE = r"[a-zA-Z0-9.\-]+[.](?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b\/?(?!@)"
_FILE = r"(?:png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4)"
_DASHES = (
    r"\u002D\u058A\u05BE\u1400\u1806\u2010-\u2015\u2E17\u2E1A\u2E3A\u2E3B\u2E40\u301C\u3030\u30A0"
    r"\uFE31\uFE32\uFE58\uFE63\uFF0D"
)

# The rules of DeepFloyd IF, which PixArt and Open-Sora trained with: (pattern, replacement, what it is for). Their
# order matters, and so do their oddities: the models have seen captions with exactly these changes.
BEFORE_MARKUP = (
    (r"<person>", "person", "a data set's placeholder that would vanish as a tag"),
    (rf"\b((?:https?:(?:\/{{1,3}}|[a-zA-Z0-9%])|{_SITE}))", "", "web addresses"),
    (rf"\b((?:www:(?:\/{{1,3}}|[a-zA-Z0-9%])|{_SITE}))", "", "web addresses that the first pass uncovered"),
)
AFTER_MARKUP = (
    (r"@[\w\d]+\b", "", "@names"),
    (r"[\u31c0-\u31ef]+", "", "CJK strokes"),
    (r"[\u31f0-\u31ff]+", "", "Katakana phonetic extensions"),
    (r"[\u3200-\u32ff]+", "", "enclosed CJK letters and months"),
    (r"[\u3300-\u33ff]+", "", "CJK compatibility"),
    (r"[\u3400-\u4dbf]+", "", "CJK ideographs, extension A"),
    (r"[\u4dc0-\u4dff]+", "", "Yijing hexagrams"),
    (r"[\u4e00-\u9fff]+", "", "CJK ideographs"),
    (rf"[{_DASHES}]+", "-", "every kind of dash becomes a hyphen"),
    (r"[`´«»“”¨]", '"', "one kind of double quote"),
    (r"[‘’]", "'", "one kind of single quote"),
    (r"&quot;?", "", "quotes that were escaped twice"),
    (r"&amp", "", "ampersands that were escaped twice"),
    (r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", " ", "IP addresses"),
    (r"\d:\d\d\s+$", "", "article numbers at the end"),
    (r"\\n", " ", "line breaks written as two characters"),
    (r"#\d{1,3}\b", "", "#123"),
    (r"#\d{5,}\b", "", "#12345"),
    (r"\b\d{6,}\b", "", "long numbers"),
    (rf"[\S]+\.{_FILE}", "", "file names"),
    (r"[\"\']{2,}", '"', "runs of quotes"),
    (r"[\.]{2,}", " ", "dots of omission"),
    (r"[#®•©™&@·º½¾¿¡§~)(\]\[}{|\\/*]+", " ", "ornaments, brackets and slashes"),
    (r"\s+\.\s+", " ", "full stops that stand alone"),
)
AFTER_REPAIR = (
    (r"\b[a-zA-Z]{1,3}\d{3,15}\b", "", "codes such as jc6640"),
    (r"\b[a-zA-Z]+\d+[a-zA-Z]+\b", "", "codes such as jc6640vc"),
    (r"\b\d+[a-zA-Z]+\d+\b", "", "codes such as 6640vc231, and 1920x1080"),
    (r"(worldwide\s+)?(free\s+)?shipping", "", "shop talk"),
    (r"(free\s)?download(\sfree)?", "", "download links"),
    (r"\bclick\b\s(?:for|on)\s\w+", "", "click for more"),
    (rf"\b{_FILE}(\simage[s]?)?", "", "file types"),
    (r"\bpage\s+\d+\b", "", "page numbers"),
    (r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d+[a-zA-Z\d]*\b", " ", "codes such as j2d1a2a"),
    (r"\b\d+\.?\d*[xх×]\d+\.?\d*\b", "", "sizes; the second x is Cyrillic"),
    (r"\b\s+\:\s+", ": ", "colons that stand alone"),
    (r"(\D[,\./])\b", r"\1 ", "a space after punctuation"),
    (r"\s+", " ", "one space at a time"),
    (r"^[\"\']([\w\W]+)[\"\']$", r"\1", "quotes around the whole"),
    (r"^[\'\_,\-\:;]", "", "punctuation at the start"),
    (r"[\'\_,\-\:\-\+]$", "", "punctuation at the end"),
    (r"^\.\S+$", "", "a lone file ending"),
)


def _compiled(rules):
    return tuple((re.compile(pattern), replacement) for pattern, replacement, _ in rules)


_BEFORE_MARKUP, _AFTER_MARKUP, _AFTER_REPAIR = map(_compiled, (BEFORE_MARKUP, AFTER_MARKUP, AFTER_REPAIR))
_WORD_JOINERS = re.compile(r"[-_]")


def _apply(rules, text):
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
    return text


def _clean_once(text):
    text = unquote_plus(text).strip().lower()
    text = strip_markup(_apply(_BEFORE_MARKUP, text))
    text = _apply(_AFTER_MARKUP, text)
    if len(_WORD_JOINERS.findall(text)) > 3:  # this-is-my-cute-cat is a sentence, state-of-the-art is a word
        text = _WORD_JOINERS.sub(" ", text)
    text = html.unescape(html.unescape(repair_unicode(text))).strip()
    return _apply(_AFTER_REPAIR, text).strip()


def clean_caption(text: str) -> str:
    """The caption as Open-Sora's text encoder sees it: lower case, no links, codes, markup, brackets or CJK.

    The rules of DeepFloyd IF (arXiv 2205.11487's successors use them unchanged), applied twice as in training: the
    second pass takes away what the first uncovered. Returns "" where nothing is left.
    """
    return _clean_once(_clean_once(str(text)))


# Words of Open-Sora 1.3 for a score below each bound, and the word above them all.
_AESTHETIC_WORDS = ((4, "terrible"), (4.5, "very poor"), (5, "poor"), (5.5, "fair"), (6, "good"), (6.5, "very good"))
_MOTION_WORDS = ((0.5, "very low"), (2, "low"), (5, "fair"), (10, "high"), (20, "very high"))


def _word(score, words, above):
    return next((word for bound, word in words if score < bound), above)


# Of a generation, for the aesthetic score, the motion and the camera: the key words of a suffix, and how it is written.
_CAMERA: tuple[str, Callable[[Any], str]] = ("camera motion:", lambda camera: f"camera motion: {camera}.")
SUFFIXES = {
    "1.2": (
        ("aesthetic score:", lambda score: f"aesthetic score: {score:.1f}."),
        ("motion score:", lambda score: f"motion score: {score:.1f}."),
        _CAMERA,
    ),
    "1.3": (
        ("aesthetic score is", lambda score: f"The aesthetic score is {_word(score, _AESTHETIC_WORDS, 'excellent')}."),
        (
            "motion strength is",
            lambda score: f"The motion strength is {_word(score, _MOTION_WORDS, 'extremely high')}.",
        ),
        _CAMERA,
    ),
}


def add_scores(
    text: str,
    aesthetic: float | None = None,
    motion: float | None = None,
    camera: str | None = None,
    version: str = "1.2",
) -> str:
    """`text` with the quality, motion and camera suffixes that the models were trained on, before cleaning.

    Args:
        text: the prompt; a suffix whose key words it already contains is left out.
        aesthetic, motion: scores (about 4…7 and 0…20), None leaves one out. 1.2 writes them with one decimal, 1.3 as
            a word.
        camera: one of `CAMERA_MOTIONS`, None leaves it out.
        version: the generation of the model, "1.2" or "1.3".

    Raises:
        ValueError: another version, or an unknown camera motion.
    """
    if version not in SUFFIXES:
        raise ValueError(f'version is "{version}"; score suffixes exist for "1.2" and "1.3"')
    if camera is not None and camera not in CAMERA_MOTIONS:
        raise ValueError(f'camera is "{camera}"; allowed are {", ".join(CAMERA_MOTIONS)}')
    suffixes = zip((aesthetic, motion, camera), SUFFIXES[version])
    added = [write(value) for value, (key, write) in suffixes if value is not None and key not in text]
    return " ".join((text, *added))


def prompt_schedule(text: str) -> list[tuple[int, str]]:
    """The prompts of a schedule and the run from which each holds: [(0, prompt), (run, prompt), …].

    "|0| sunrise |2| noon" means sunrise for runs 0 and 1, noon from run 2 on; a text without |0| in front is one
    prompt for all. Raises ValueError for a schedule whose numbers do not rise, or that has a number without a prompt.
    """
    if not text.startswith("|0|"):
        return [(0, text)]
    parts = text.split("|")[1:]
    starts, prompts = parts[::2], [part.strip() for part in parts[1::2]]
    if len(prompts) < len(starts):
        raise ValueError(
            f"prompt is {text!r}; after |{starts[-1]} comes no prompt: write |number| prompt |number| prompt"
        )
    numbers = []
    for start in starts:
        try:
            numbers.append(int(start))
        except ValueError:
            raise ValueError(
                f"prompt is {text!r}; between | and | stands the number of a segment, and {start!r} is none"
            ) from None
    if any(later <= earlier for earlier, later in zip(numbers, numbers[1:])):
        raise ValueError(f"prompt is {text!r}; its segments are {numbers}, and they must rise from 0")
    return list(zip(numbers, prompts))


def prompt_for_loop(text: str, loop: int) -> str:
    """The part of a prompt schedule that run `loop` of a long video uses; text and errors as `prompt_schedule`."""
    prompts = prompt_schedule(text)
    return prompts[sum(start <= loop for start, _ in prompts) - 1][1]


__all__ = ["CAMERA_MOTIONS", "add_scores", "clean_caption", "prompt_for_loop", "prompt_schedule"]
