"""Text repair with the standard library: markup out, broken Unicode mended, as caption cleaning needs it.

Ours, as the original's Beautiful Soup and ftfy are not among what ComfyUI brings, and the pack installs nothing else.
"""

import html
import re
import unicodedata
from html.entities import codepoint2name, html5
from html.parser import HTMLParser

# Elements whose content is no prose; their text never reaches a caption.
HIDDEN_ELEMENTS = frozenset(("script", "style", "template", "rt", "rp"))
VOID_ELEMENTS = frozenset(
    (
        "area base br col embed hr img input keygen link menuitem meta param source track wbr basefont bgsound "
        "command frame image isindex nextid spacer "
    ).split()
)
# Named entities that stand for one character, with or without their semicolon.
ENTITIES = {name.rstrip(";"): character for name, character in html5.items()}
ENTITIES.update({name: chr(code) for code, name in codepoint2name.items()})


class _Prose(HTMLParser):
    """Collects the text that a reader of the page would see, in the order of the source."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.pieces: list[str] = []
        self._open: list[str] = []
        self._hidden: list[int] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID_ELEMENTS:
            self._open.append(tag)
            if tag in HIDDEN_ELEMENTS:
                self._hidden.append(len(self._open))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass  # <tag/> opens nothing, so nothing needs to be closed

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass  # a closing tag closes what was left open inside it
            while self._hidden and self._hidden[-1] > len(self._open):
                self._hidden.pop()

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.pieces.append(data)

    def handle_entityref(self, name: str) -> None:
        self.handle_data(ENTITIES.get(name, f"&{name}"))

    def handle_charref(self, name: str) -> None:
        digits, base, known = (name[1:], 16, r"[0-9a-f]+") if name[0] in "xX" else (name, 10, r"[0-9]+")
        number = re.match(known, digits, re.IGNORECASE)
        if number is None:
            self.handle_data(digits)
            return
        self.handle_data(_character(int(number[0], base)) + digits[number.end() :])

    def unknown_decl(self, data: str) -> None:
        if data[:6].upper() == "CDATA[":
            self.handle_data(data[6:])


def _character(code):
    """The character that a page author meant by `code`: below 256 a Windows-1252 byte, above it Unicode."""
    try:
        return bytes([code]).decode("cp1252") if 0 < code < 256 else chr(code or 0xFFFD)
    except (UnicodeDecodeError, ValueError, OverflowError):
        return "\ufffd"


def strip_markup(text: str) -> str:
    """`text` without HTML tags, comments and declarations, its character references resolved.

    Scripts, style sheets, templates and ruby readings vanish with their tags. A lone `<` or `&` stays.
    """
    parser = _Prose()
    try:
        parser.feed(text)
        parser.close()
    except AssertionError:  # html.parser gives up on a few malformed declarations
        return text
    return "".join(parser.pieces)


# UTF-8 read as Windows-1252 (its five unassigned bytes passed through) is the usual damage. After lower-casing only
# three- and four-byte sequences can still be told: the capitals that start two-byte ones are gone.
_CHARACTER_OF = {byte: bytes([byte]).decode("cp1252", errors="ignore") or chr(byte) for byte in range(0x80, 0x100)}
_BYTE_OF = {chr(byte): byte for byte in range(0x100)} | {c: byte for byte, c in _CHARACTER_OF.items()}
_CONTINUATION = "".join(re.escape(_CHARACTER_OF[byte]) for byte in range(0x80, 0xC0)) + "\x80-\x9f "
_SEQUENCES = re.compile(f"(?<![{_CONTINUATION[:-1]}])(?:[à-ï][{_CONTINUATION}]{{2}}|[ð-ô][{_CONTINUATION}]{{3}})+")
# A space in such a sequence was byte A0, the no-break space; the lead bytes are those where that is likely.
_LOST_A0 = re.compile(
    b"[\xe2\xe3] [\x80-\x84\x86-\x9f\xa1-\xbf]|[\xe0-\xe3][\x80-\x84\x86-\x9f\xa1-\xbf] "
    b"|\xf0 [\x80-\xbf]{2}|\xf0[\x80-\xbf] [\x80-\xbf]|\xf0[\x80-\xbf]{2} "
)

# Neighbours that no language writes, by the kinds of characters that Windows-1252 gives to such bytes.
_KINDS = {
    "control": "\x80-\x9f",
    "odd": "¦¤¨¬¯¸ƒˆ˜†‡‰ªº\ufffd",
    "letter": "ßà-ñœšž",
    "money": "¢£¥€",
    "opening": "‚„‹•¡«¿©‘“",
    "closing": "›®»”™",
    "number": "²³¹±¼½¾×µ÷",
    "law": "¶§",
}
_NEIGHBOURS = (
    "[{control}]",
    "[{odd}{letter}{opening}{closing}{money}{number}{law}][{odd}]",
    "[{odd}][{letter}{opening}{closing}{money}{number}{law}]",
    "[{closing}{money}{number}][{letter}]",
    "[{letter}{closing}][{money}]",
    "[{letter}{money}{closing}][{opening}][{number}]",
    "[{letter}{money}{number}{law}][{closing}][{opening}]",
    "[{money}{number}][{opening}]",
    r"[{letter}][{opening}{closing}]\w",
    "œ[^A-Za-z]",
    "×[²³]",
    "à[²µ¹¼½¾]",
)
_SUSPICIOUS = re.compile("|".join(_NEIGHBOURS).format(**_KINDS))


def _reread(text):
    """`text` as UTF-8 where its characters are the bytes of some, whole or in places; else unchanged."""
    if not _SUSPICIOUS.search(text):
        return text
    try:
        data = bytes(_BYTE_OF[character] for character in text)
        return _LOST_A0.sub(lambda match: match[0].replace(b" ", b"\xa0"), data).decode("utf-8")
    except (KeyError, UnicodeDecodeError):
        return _SEQUENCES.sub(lambda match: _reread(match[0]) if match[0] != text else text, text)


_LIGATURES = {
    ord(character): unicodedata.normalize("NFKD", character) for character in "ĳŉǳǆǉǌĲǱǲǄǅǇǈǊǋﬀﬁﬂﬃﬄﬆ"
} | {ord("ﬅ"): "ſt"}  # fmt: skip
_WIDTHS = {0x3000: " "} | {code: unicodedata.normalize("NFKC", chr(code)) for code in range(0xFF01, 0xFFEF)}
_QUOTES = dict.fromkeys((700, *range(8216, 8220)), "'") | dict.fromkeys(range(8220, 8224), '"')
_LINE_BREAKS = {0x0D: "\n", 0x2028: "\n", 0x2029: "\n"}
_CONTROLS = dict.fromkeys(
    (*range(0x09), 0x0B, *range(0x0E, 0x20), 0x7F, *range(0x206A, 0x2070), 0xFEFF, *range(0xFFF9, 0xFFFD))
)
_CHARACTERS = _LIGATURES | _WIDTHS | _QUOTES | _LINE_BREAKS


def repair_unicode(text: str) -> str:
    """`text` with the damage that copying and pasting does undone.

    UTF-8 that was read as Windows-1252, control characters, ligatures, full-width letters, curly quotes, line breaks
    of other systems, terminal colours and lone surrogates; composed to NFC. Repeats until nothing changes.
    """
    while True:
        before = text
        text = _reread(html.unescape(text) if "<" not in text else text)
        text = re.sub("[\x80-\x9f]", lambda match: _CHARACTER_OF[ord(match[0])], text)
        text = text.translate(_CHARACTERS)
        text = re.sub("[\ud800-\udfff]", "\ufffd", re.sub("[\ud800-\udbff][\udc00-\udfff]", _join_surrogates, text))
        text = re.sub("\x1b\\[[\\d;]*[a-zA-Z]", "", text).translate(_CONTROLS)
        text = unicodedata.normalize("NFC", text)
        if text == before:
            return text


def _join_surrogates(match):
    return match[0].encode("utf-16", "surrogatepass").decode("utf-16")
