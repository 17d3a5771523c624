"""The transformers as a ComfyUI hosts them, for counting."""

import importlib
import sys
from functools import partial
from pathlib import Path

from .cases import DTYPE, Host


def host_of(comfyui: Path) -> tuple[Host, str]:
    """(host, name) of the ComfyUI in a folder, which is imported into this process, as with --cpu, and stays."""
    if str(comfyui) not in sys.path:
        sys.path.insert(0, str(comfyui))
    arguments, sys.argv = sys.argv, ["main.py", "--cpu"]
    try:  # before the pack's own modules, which ask it for its device as they are imported
        importlib.import_module("comfy.options").enable_args_parsing()
        rooms = f"{__package__.rpartition('.runner.')[0]}.nodes.comfy"
        counted = importlib.import_module(f"{rooms}.transformer.counted")
    finally:
        sys.argv = arguments
    return partial(counted.hosted_on_gpu, dtype=DTYPE), importlib.import_module(f"{rooms}.versions").name()
