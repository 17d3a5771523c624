"""The transformers as a ComfyUI hosts them, for counting and measuring."""

import importlib
from functools import partial

from .cases import DTYPE, Host


def hosts() -> tuple[dict[str, Host | None], str]:
    """The ways that a transformer runs, by name: alone and by the ComfyUI that is importable; and that one's name.

    ComfyUI is started as with --cpu where there is no GPU. "comfy-kitchen" is what it takes of that as installed, "and
    Triton" what it takes with --enable-triton-backend.
    """
    rooms = f"{__package__.rpartition('.runner.')[0]}.nodes.comfy"
    counted, versions = (importlib.import_module(f"{rooms}.{room}") for room in ("transformer.counted", "versions"))
    ways: dict[str, Host | None] = {"PyTorch alone": None}
    named = {"comfy-kitchen": False, "and Triton": True} if versions.kitchen() else {"ComfyUI": False}
    ways |= {way: partial(counted.hosted_on_gpu, dtype=DTYPE, triton=triton) for way, triton in named.items()}
    return ways, versions.name()
