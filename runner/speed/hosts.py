"""The transformers as a ComfyUI hosts them, for counting."""

import importlib
from functools import partial

from .cases import DTYPE, Host


def host() -> tuple[Host, str]:
    """(host, name) of the ComfyUI that is importable, started as with --cpu where there is no GPU."""
    rooms = f"{__package__.rpartition('.runner.')[0]}.nodes.comfy"
    counted, versions = (importlib.import_module(f"{rooms}.{room}") for room in ("transformer.counted", "versions"))
    return partial(counted.hosted_on_gpu, dtype=DTYPE), versions.name()
