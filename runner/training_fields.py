"""The fields of a training configuration as docs/training.md lists them, made from training/config.py."""

import dataclasses
from typing import Any

from ..training.config import Config

KINDS = {str: "text", bool: "true or false", dict: "a mapping", list: "a list"}
HEAD = "| field | default | allowed | meaning |\n| --- | --- | --- | --- |"


def tables() -> str:
    """Markdown: a table for each section, with each field's default, what is allowed, and what it means."""
    return "\n\n".join(_section(section.name, section.type) for section in dataclasses.fields(Config))


def _section(name, kind):
    fields = dataclasses.fields(kind)
    rows = [f"| `{one.name}` | {_default(one)} | {_allowed(one)} | {one.metadata['help']} |" for one in fields]
    return "\n".join([f"**{name}**: {kind.__doc__}", "", HEAD, *rows])


def _default(one: Any) -> str:
    value = one.default if one.default is not dataclasses.MISSING else one.default_factory()
    if value in ("", {}, []):
        return "empty"
    if isinstance(value, bool):
        return f"`{value}`".lower()
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _allowed(one):
    if "choices" in one.metadata:
        return ", ".join(one.metadata["choices"])
    if "low" in one.metadata:
        form = ",d" if one.type is int else "g"
        return f"{one.metadata['low']:{form}} … {one.metadata['high']:{form}}"
    return KINDS[one.type]
