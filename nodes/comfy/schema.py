"""Node definitions for every ComfyUI from 0.3.75 on: the V3 API, minus the keywords a version does not know yet."""

from comfy_api.latest import ComfyExtension, io

from .versions import known

CATEGORY = "Open-Sora"


def advanced(item: io.Input) -> io.Input:
    """An input that newer pages fold away until it is asked for. (Older versions have no such keyword, and show it.)"""
    item.advanced = True
    return item


def schema(group: str, *, search_aliases: str, shows_report: bool = False, **keywords: object) -> io.Schema:
    """An `io.Schema` in the category Open-Sora/`group`.

    `search_aliases`: what else the node may be looked for by, with commas.
    `shows_report`: the page draws what the node returns for it, so also when a later run takes the node from the cache.
    """
    keywords |= {"category": f"{CATEGORY}/{group}", "search_aliases": search_aliases.split(", ")}
    return io.Schema(**known(io.Schema.__init__, {**keywords, "has_intermediate_output": shows_report}))


__all__ = ["CATEGORY", "ComfyExtension", "advanced", "io", "schema"]
