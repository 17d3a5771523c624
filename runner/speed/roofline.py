"""Counts what a GPU would take for a call, without one: tensors have a shape, a device "cuda" and no values.

Each kernel that is launched takes as long as its arithmetic or its reading and writing does, whichever is longer, and a
moment to start. Attention is one kernel that reads q, k and v and writes its result; views cost nothing. The count
depends on no machine and repeats to the digit (Williams et al. 2009: the roofline model).
"""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from ...training.live_bytes import LiveBytes

FLOPS, BYTES, LAUNCH = 800e12, 2.9e12, 4e-6  # of an H100: products in 16 bit a second, bytes a second, seconds a kernel
# What starts no kernel.
FREE = frozenset(
    "_reshape_alias _unsafe_view alias as_strided chunk detach device diagonal empty empty_like empty_strided expand "
    "lift_fresh narrow new_empty permute select slice split split_with_sizes squeeze t transpose unbind unfold "
    "unsqueeze view view_as_complex view_as_real".split()
)
OVERWRITTEN = frozenset("copy_ fill_ zero_".split())  # written without being read


@dataclass
class Count:
    """What a call comes to: seconds, kernels, bytes read and written, FLOP of its products, bytes alive at once."""

    seconds: float = 0.0
    kernels: int = 0
    moved: int = 0
    flops: int = 0
    peak: int = 0
    by_name: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # seconds of each kind of kernel

    @property
    def limit(self) -> float:
        """Seconds that the products alone take."""
        return self.flops / FLOPS

    def add(self, name: str, flops: int, moved: int) -> None:
        """One kernel."""
        seconds = max(flops / FLOPS, moved / BYTES) + LAUNCH
        self.seconds += seconds
        self.kernels += 1
        self.moved += moved
        self.flops += flops
        self.by_name[name] += seconds

    def repeated(self, more: "Count", times: int) -> "Count":
        """This call with `times` as often again what `more`, a call one layer deeper, has more than it."""

        def grown(own: Any, other: Any) -> Any:
            return own + times * (other - own)

        names = {name: grown(self.by_name.get(name, 0.0), seconds) for name, seconds in more.by_name.items()}
        fields = ("seconds", "kernels", "moved", "flops")
        return Count(*(grown(getattr(self, each), getattr(more, each)) for each in fields), more.peak, names)

    def figures(self) -> dict[str, float]:
        """For tables and files, in round numbers."""
        return {
            "limit_ms": round(1e3 * self.limit, 1),
            "ms": round(1e3 * self.seconds, 1),
            "share": round(self.limit / self.seconds, 3),
            "kernels": self.kernels,
            "moved_gb": round(self.moved / 1e9, 1),
            "peak_gb": round(self.peak / 1e9, 2),
        }


def count(build: Callable[[], Any], call: Callable[[Any], object]) -> Count:
    """What `call(build())` costs; both see tensors without values, and what `build` makes is not counted."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        built = build()
        with LiveBytes() as alive, _Attention() as attention, _Kernels() as kernels:
            attention.count = kernels.count
            call(built)
    kernels.count.peak = alive.peak
    return kernels.count


class _Kernels(TorchDispatchMode):
    """Counts what is launched on "cuda"."""

    def __init__(self) -> None:
        super().__init__()
        self.count = Count()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        packet = function._overloadpacket
        given, made = _tensors((args, kwargs)), _tensors(result)
        if packet.__name__ in FREE or not any(each.device.type == "cuda" for each in (*given, *made)):
            return result
        changed = [
            each
            for argument, value in zip(function._schema.arguments, args)
            if argument.alias_info is not None and argument.alias_info.is_write
            for each in _tensors(value)
        ]
        moved = sum(map(_bytes, given)) + sum(map(_bytes, changed or made))
        if packet.__name__ in OVERWRITTEN:
            moved -= _bytes(changed[0])
        self.count.add(packet.__name__, _flops(packet, args, kwargs, result), moved)
        return result


class _Attention(TorchFunctionMode):
    """Takes PyTorch's attention for one fused kernel, whose result lies in memory token by token."""

    count: Count

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is not F.scaled_dot_product_attention:
            return function(*args, **kwargs)
        q, k, v, mask = _attention_inputs(*args, **kwargs)
        *rows, heads, N, D = q.shape
        out = torch.empty(*rows, N, heads, v.shape[-1], dtype=q.dtype, device=q.device).transpose(-3, -2)
        moved = sum(_bytes(each) for each in (q, k, v, out, mask) if each is not None)
        flops = 2 * math.prod(rows) * heads * N * k.shape[-2] * (D + v.shape[-1])
        self.count.add("attention", flops, moved)
        return out


def _attention_inputs(query, key, value, attn_mask=None, *others, **named):
    return query, key, value, attn_mask


def _tensors(values):
    return [each for each in tree_leaves(values) if isinstance(each, Tensor)]


def _bytes(tensor):
    """What a tensor takes in memory; expanded sides are stored once."""
    return tensor.element_size() * math.prod(
        length for length, stride in zip(tensor.shape, tensor.stride()) if stride != 0
    )


def _flops(packet, args, kwargs, result):
    if packet is torch.ops.aten._addmm_activation:
        return 2 * math.prod(args[1].shape) * args[2].shape[-1]
    return flop_registry[packet](*args, **kwargs, out_val=result) if packet in flop_registry else 0
