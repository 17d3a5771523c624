"""The transformers as this ComfyUI hosts them on a GPU, for counting what they cost: it needs no GPU, and no model."""

from typing import Any

import comfy.ldm.modules.attention as backends
import comfy.ops
import torch
from torch import nn

from ....model.transformers.kernels import use
from . import attention
from .kernels import HostKernels
from .network import hosted


class WithoutTriton(HostKernels):
    """What comfy-kitchen's CUDA backend has for the networks: its `rms_rope_` takes no heads of 72 channels."""

    def has(self, name: str, **given: torch.Tensor) -> bool:
        """As the parent's."""
        return name != "rms_rope_" and super().has(name, **given)


def hosted_on_gpu(kind: type[nn.Module], config: Any, dtype: torch.dtype, triton: bool) -> nn.Module:
    """A network of model/ as it is hosted on a GPU, without weights: they are on the meta device.

    `triton`: whether comfy-kitchen's Triton backend is taken for enabled, where the GPU is not there to ask.
    """
    attention.optimized_attention = backends.attention_pytorch  # a GPU's; that of --cpu asks for free memory
    network = hosted(kind)(config, dtype=dtype, operations=comfy.ops.disable_weight_init)
    if not triton:
        use(network, WithoutTriton())
    return network
