"""Puts a checkpoint's tensors into a module one by one, so that memory never holds more than one model."""

import torch


def assign_weights(module, state_dict, device, dtype_of):
    """Give every parameter and buffer of `module` its tensor from `state_dict`, cast and copied one at a time.

    The module may have been built on the meta device, so nothing is allocated twice; a memory-mapped state dict is
    only read. Keys must have been checked before.

    Args:
        device: where the weights go.
        dtype_of: (key, submodule) -> torch.dtype, the dtype a tensor is kept in.
    """
    for prefix, part in module.named_modules():
        own = [*part._parameters, *part._buffers]
        for name in own:
            if getattr(part, name) is None:
                continue
            key = f"{prefix}.{name}" if prefix else name
            tensor = state_dict[key].to(device=device, dtype=dtype_of(key, part), copy=True)
            if name in part._parameters:
                part._parameters[name] = torch.nn.Parameter(tensor, requires_grad=False)
            else:
                part._buffers[name] = tensor
