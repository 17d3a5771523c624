"""Node definitions for every ComfyUI from 0.3.75 on: the V3 API, minus the keywords a version does not know yet."""

import inspect

from comfy_api.latest import ComfyExtension, io

CATEGORY = "Open-Sora"


def _known(function, keywords):
    """`keywords` without those that `function` does not take: one unknown keyword would drop the whole pack."""
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return keywords
    return {name: value for name, value in keywords.items() if name in parameters}


def advanced(item):
    """An input that newer pages fold away until it is asked for. (Older versions have no such keyword, and show it.)"""
    item.advanced = True
    return item


def schema(group, **keywords):
    """An `io.Schema` in the category Open-Sora/`group`."""
    return io.Schema(**_known(io.Schema.__init__, {"category": f"{CATEGORY}/{group}", **keywords}))


__all__ = ["CATEGORY", "ComfyExtension", "advanced", "io", "schema"]
