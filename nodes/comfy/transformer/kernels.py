"""The transformers' operations between their products as ComfyUI can fuse them, where that brings comfy-kitchen."""

import torch
from torch import Tensor, nn

from ....model.transformers.kernels import Kernels, Rotation, is_watched
from ....model.transformers.layers import RMSNorm
from ..versions import kitchen, only_its_weights

LARGEST = 2**31  # places in memory that comfy-kitchen's kernels count to
FUSED = (torch.bfloat16, torch.float16, torch.float32)


class HostKernels(Kernels):
    """On a GPU comfy-kitchen's operations, each where one of its backends has it for these tensors; else PyTorch's.

    `everywhere` takes them on a CPU too, where they are written in PyTorch: for tests.
    """

    def __init__(self, everywhere: bool = False) -> None:
        self.kitchen, self.everywhere = kitchen(), everywhere
        self.known: dict[tuple, bool] = {}

    def __deepcopy__(self, memo: dict) -> "HostKernels":
        """Itself: a copied network computes by the same operations, and modules cannot be copied."""
        return self

    def modulated_norm(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        rows = {"scale": scale[:, :, None], "shift": shift[:, :, None]}
        if self.has("adaln", x=x, **rows):
            return self.kitchen.adaln(x, **rows, eps=1e-6)
        return super().modulated_norm(x, shift, scale)

    def heads(
        self, q: Tensor, k: Tensor, q_norm: nn.Module, k_norm: nn.Module, rotation: Rotation | None, rope_first: bool
    ) -> tuple[Tensor, Tensor]:
        plain = all(type(norm) is RMSNorm and not is_watched(norm) for norm in (q_norm, k_norm))
        turned = isinstance(rotation, Tensor) and rotation.ndim == q.ndim + 1 == 6 and _span(q[0]) < LARGEST
        if self.kitchen is None or not plain or not turned:
            return super().heads(q, k, q_norm, k_norm, rotation, rope_first)
        # All in place: views of one product, which nothing else reads.
        if not rope_first:
            # Detached: what works in place refuses all that wants a gradient, also where none is taken.
            scales = {f"{name}_scale": norm.weight.detach().to(q) for name, norm in (("q", q_norm), ("k", k_norm))}
            if self.has("rms_rope_", q=q[0], k=k[0], freqs_cis=rotation, **scales):
                for clip in zip(q, k):
                    self.kitchen.rms_rope_(*clip, rotation, **scales, epsilon=q_norm.eps)
                return q, k
        if not self.has("apply_rope_", xq=q[0], xk=k[0], freqs_cis=rotation):
            return super().heads(q, k, q_norm, k_norm, rotation, rope_first)
        if not rope_first:
            q, k = q_norm(q), k_norm(k)
        for clip in zip(q, k):
            self.kitchen.apply_rope_(*clip, rotation)
        return (q_norm(q), k_norm(k)) if rope_first else (q, k)

    def has(self, name: str, **given: Tensor) -> bool:
        """Whether comfy-kitchen's operation `name` is to be used on these arguments.

        Not for gradients, which it has none for, nor where a compiler fuses by itself.
        """
        first = next(iter(given.values()))
        if self.kitchen is None or not (first.is_cuda or self.everywhere) or first.dtype not in FUSED:
            return False
        if torch.compiler.is_compiling() or torch.is_grad_enabled():
            return False
        if self.everywhere or not torch.cuda.is_available():  # tensors of no values on a GPU that is not there: counted
            return True
        key = (name, first.dtype, first.shape[-1], first.device)
        if key not in self.known:
            self.known[key] = self.kitchen.registry.get_capable_backend(name, given) != "eager"
        return self.known[key]

    def may_fuse(self, linear: nn.Module, x: Tensor) -> bool:
        return only_its_weights(linear, x) and not torch.compiler.is_compiling()


def _span(tensor):
    """How many places of memory lie between a tensor's first and its last value."""
    return sum((length - 1) * stride for length, stride in zip(tensor.shape, tensor.stride()))
