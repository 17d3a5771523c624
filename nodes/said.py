"""Words that a node sends to the page: English that still knows its template and values, for translation."""

from collections.abc import Iterable, Sequence


class Said(str):
    """A str; `words` is [template, {name: value}], the values in turn words of that kind where they were said."""

    words: list


def said(template: str, **values: object) -> Said:
    """The template, a text with {name} for each of `values`, filled in. The page says it in its own language.

    Templates stand in web/words/LANGUAGE.json, so each is written out where it is said.
    """
    text = Said(template.format(**values))
    text.words = [template, {name: words_of(value) for name, value in values.items()}]
    return text


def words_of(value: object) -> object:
    """What the page gets to say a value: [template, values] of what was said; another value as it is."""
    return value.words if isinstance(value, Said) else value


def listed(parts: Sequence[str]) -> str:
    """Words one after the other: "a, b and c"."""
    *rest, last = parts
    return said("{one} and {other}", one=chained("{one}, {other}", rest), other=last) if rest else last


def chained(template: str, parts: Iterable[str]) -> str:
    """Words put together two by two by a template of {one} and {other}."""
    whole, *rest = parts
    for part in rest:
        whole = said(template, one=whole, other=part)
    return whole
