"""What the transformers compute between their matrix products: norms, modulation, gates, rotations, activations.

On a GPU these wait for memory, not for arithmetic: what counts is how often the tokens are read and written. `Kernels`
has each as the fewest passes that PyTorch offers; a host may hand in a subclass that takes fewer (`use`).
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

Rotation = Tensor | list[Tensor]  # matrices, as `rotations` gives; what `rotate` takes


def turns(positions: Tensor, frequencies: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021): the rotation of each pair of channels at positions [...], [..., P, 2, 2].

    frequencies [P]; everything in fp32.
    """
    return rotations(positions.float()[..., None] * frequencies.to(positions.device).float())


def rotations(angles: Tensor) -> Tensor:
    """The matrices ((cos, -sin), (sin, cos)) of angles [...], [..., 2, 2]."""
    cosines, sines = angles.cos(), angles.sin()
    return torch.stack([cosines, -sines, sines, cosines], dim=-1).unflatten(-1, (2, 2))


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn neighbouring pairs of x [..., D] by `rotation`, which broadcasts to [..., D / 2, 2, 2].

    Of a list each entry turns the first channels of its equal share of D, as many as it has.
    """
    if isinstance(rotation, list):
        turned = []
        for share, own in zip(x.chunk(len(rotation), dim=-1), rotation):
            reach = 2 * own.shape[-3]
            turned += [rotate(share[..., :reach], own), share[..., reach:]]
        return torch.cat(turned, dim=-1)
    pairs = x.unflatten(-1, (-1, 1, 2))
    out = rotation[..., 0] * pairs[..., 0]
    add = torch.addcmul if torch.is_grad_enabled() else Tensor.addcmul_
    return add(out, rotation[..., 1], pairs[..., 1]).flatten(-2).to(x.dtype)


def rotate_over(x: Tensor, rotation: Tensor) -> Tensor:
    """`rotate`, written over x: in one pass, since a pair turns as a complex number does."""
    torch.view_as_complex(x.unflatten(-1, (-1, 2))).mul_(torch.view_as_complex(rotation[..., 0].contiguous()))
    return x


def writes_over(x: Tensor) -> bool:
    """Whether a result is to be written over x, where nothing else reads that.

    On a CPU new memory costs as much as a pass. Not where gradients are taken, nor where a compiler plans memory.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    return x.device.type == "cpu" and x.dtype == torch.float32


class Kernels:
    """The operations by PyTorch alone. x, h [B, T, S, C]; shift, scale, gate [B, T or 1, C]."""

    def modulated_norm(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """Adaptive layer norm (DiT, Peebles & Xie 2022): a norm without weights, eps 1e-6, times 1 + scale, + shift."""
        h = F.layer_norm(x, x.shape[-1:], eps=1e-6)
        return torch.addcmul(shift[:, :, None], h, 1 + scale[:, :, None], out=h if writes_over(h) else None)

    def gated_sum(self, x: Tensor, h: Tensor, gate: Tensor) -> Tensor:
        """x + gate · h."""
        return torch.addcmul(x, gate[:, :, None], h)

    def heads(
        self, q: Tensor, k: Tensor, q_norm: nn.Module, k_norm: nn.Module, rotation: Rotation | None, rope_first: bool
    ) -> tuple[Tensor, Tensor]:
        """Queries and keys [B, T, S, heads, head_dim], normalised, then turned by `rotation`; turned first if asked.

        `rotation` broadcasts to [B, T, S, heads, head_dim / 2, 2, 2]; None turns nothing. q and k may be overwritten.
        """
        turn: Callable[[Tensor, Any], Tensor] = rotate
        if writes_over(q) and not (is_watched(q_norm) or is_watched(k_norm)):
            q_norm, k_norm = (getattr(norm, "over", norm) for norm in (q_norm, k_norm))
            turn = rotate_over if isinstance(rotation, Tensor) else rotate
        if rotation is None:
            return q_norm(q), k_norm(k)
        if rope_first:
            return q_norm(turn(q, rotation)), k_norm(turn(k, rotation))
        return turn(q_norm(q), rotation), turn(k_norm(k), rotation)

    def linear_gelu(self, linear: Any, x: Tensor) -> Tensor:
        """tanh-GELU of linear(x), at the end of the product where PyTorch can: the largest tensor of a block."""
        if torch.is_grad_enabled() or is_watched(linear):
            return F.gelu(linear(x), approximate="tanh")
        if self.may_fuse(linear, x) and not torch.is_autocast_enabled(x.device.type):
            # Neither has a public name. On CUDA this one's GELU is tanh's form; on a CPU it is not.
            if x.is_cuda:
                out = torch._addmm_activation(linear.bias, x.flatten(0, -2), linear.weight.t(), use_gelu=True)
                return out.unflatten(0, x.shape[:-1])
            if ONEDNN and x.device.type == "cpu" and x.dtype == torch.float32:
                return torch.ops.mkldnn._linear_pointwise(x, linear.weight, linear.bias, "gelu", [], "tanh")
        return torch.ops.aten.gelu_(linear(x), approximate="tanh")

    def may_fuse(self, linear: Any, x: Tensor) -> bool:
        """Whether `linear` is no more than its weight and bias, so that it may be computed past its `forward`."""
        return type(linear) is nn.Linear and linear.weight.dtype == x.dtype


def is_watched(module: nn.Module) -> bool:
    """Whether hooks or a `forward` of its own see each call of a module."""
    own = module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    return bool(own) or _has_any_global_hook()


ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
PLAIN = Kernels()


def use(network: nn.Module, kernels: Kernels) -> None:
    """Let the layers of `network` compute by `kernels`."""
    for module in network.modules():
        if hasattr(module, "kernels"):
            module.kernels = kernels  # type: ignore[assignment]
