"""Puts a checkpoint's tensors into a module, so that memory never holds more than one model."""

from collections.abc import Callable

import torch

from ...model.shapes_of import StateDict

DtypeOf = Callable[[str, torch.nn.Module], torch.dtype]  # of a key and the module that has it


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether it is a tensor of floating point numbers and no quantised one, which only its own layer understands."""
    return type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.is_floating_point()


def assign_weights(
    module: torch.nn.Module,
    state_dict: StateDict,
    device: torch.device,
    dtype_of: DtypeOf,
    as_they_are: StateDict = {},  # noqa: B006 — only read
) -> None:
    """Give every parameter and buffer of `module` its tensor from `state_dict`, cast and copied; quantised ones not.

    The module may have been built on the meta device, so nothing is allocated twice; a memory-mapped state dict is
    only read. Newer ComfyUIs build layers whose weights are not there at all before they load, so it is they that
    put them into their places. Keys must have been checked before.

    Args:
        device: where the weights go.
        dtype_of: the dtype that a tensor is kept in.
        as_they_are: tensors that layers take uncast, in place of those of `state_dict` or beside them.
    """
    parts = dict(module.named_modules())
    weights = {}
    for key, tensor in state_dict.items():
        if is_plain(tensor) and key not in as_they_are:
            tensor = tensor.to(device=device, dtype=dtype_of(key, parts[key.rpartition(".")[0]]), copy=True)
        weights[key] = tensor
    weights |= as_they_are
    module.eval().requires_grad_(False)
    module.load_state_dict(weights, strict=False, assign=True)


def note_dtypes(module: torch.nn.Module, dtype_of: DtypeOf) -> None:
    """Tell newer ComfyUIs, which keep a file's own tensors until they are used, what to cast each of them to then."""
    for prefix, part in module.named_modules():
        for name in (*part._parameters, *part._buffers):
            key = f"{prefix}.{name}" if prefix else name
            setattr(part, f"{name}_comfy_model_dtype", dtype_of(key, part))
