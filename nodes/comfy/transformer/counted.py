"""The transformers as this ComfyUI hosts them on a GPU, for counting what they cost: it needs no GPU, and no model."""

from typing import Any

import comfy.ldm.modules.attention as backends
import comfy.ops
import torch
from torch import nn

from . import attention
from .network import hosted


def hosted_on_gpu(kind: type[nn.Module], config: Any, dtype: torch.dtype) -> nn.Module:
    """A network of model/, hosted, with weights on "cuda" that have no values; to be called under FakeTensorMode."""
    attention.optimized_attention = backends.attention_pytorch  # a GPU's; that of --cpu asks for free memory
    network = hosted(kind)(config, dtype=dtype, operations=comfy.ops.disable_weight_init)
    for module in network.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                there = torch.empty(weight.shape, dtype=weight.dtype, device="cuda")
                module._parameters[name] = nn.Parameter(there, requires_grad=False)
        for name, value in module._buffers.items():
            module._buffers[name] = value if value is None else torch.empty_like(value, device="cuda")
    return network
