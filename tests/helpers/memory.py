"""Layers that run out of memory when they are asked to, for the tests of what goes on then."""

from contextlib import contextmanager

import torch


@contextmanager
def memory_limit(size):
    """Gives at_most(n): from now on a layer with size(module, inputs) above n runs out of memory; its result notes them."""
    import comfy.model_management

    handles, refused = [], []

    def at_most(values):
        def check(module, inputs):
            asked = size(module, inputs)
            if asked > values:
                refused.append(asked)
                raise comfy.model_management.OOM_EXCEPTION("no memory left")

        handles.append(torch.nn.modules.module.register_module_forward_pre_hook(check))
        return refused

    yield at_most
    for handle in handles:
        handle.remove()
