"""The transformers as a ComfyUI hosts them on a GPU, for counting: no model is loaded, no GPU is needed."""

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch

from .cases import DTYPE, Host


def host_of(comfyui: Path) -> tuple[Host, str]:
    """(host, what it is: its version and whether it brings comfy-kitchen) of the ComfyUI in a folder.

    It is imported into this process, as started with --cpu, and stays.
    """
    sys.path.insert(0, str(comfyui))
    arguments, sys.argv = sys.argv, ["main.py", "--cpu"]
    try:
        importlib.import_module("comfy.options").enable_args_parsing()
        operations = importlib.import_module("comfy.ops").disable_weight_init
    finally:
        sys.argv = arguments
    package = __package__.rpartition(".runner.")[0]
    rooms = f"{package}.nodes.comfy"
    hosted = importlib.import_module(f"{rooms}.transformer.network").hosted
    # The attention that ComfyUI takes on a GPU; that of --cpu asks for free memory.
    attention = importlib.import_module(f"{rooms}.transformer.attention")
    attention.optimized_attention = importlib.import_module("comfy.ldm.modules.attention").attention_pytorch
    kitchen = importlib.import_module(f"{rooms}.versions").kitchen()

    def host(kind: type[torch.nn.Module], config: Any) -> torch.nn.Module:
        network = hosted(kind)(config, dtype=DTYPE, operations=operations)
        for module in network.modules():
            for name, weight in module._parameters.items():
                if weight is not None:
                    there = torch.empty(weight.shape, dtype=weight.dtype, device="cuda")
                    module._parameters[name] = torch.nn.Parameter(there, requires_grad=False)
            for name, value in module._buffers.items():
                module._buffers[name] = value if value is None else torch.empty_like(value, device="cuda")
        return network

    version = importlib.import_module("comfyui_version").__version__
    return host, f"ComfyUI {version}, {'with' if kitchen else 'without'} comfy-kitchen"
