"""When memory runs out: how ComfyUI tells, and trying once more with less at once."""

import contextlib

import comfy.model_management as management


def is_out_of_memory(error):
    """Whether ComfyUI takes this exception for the device's memory having run out."""
    known = getattr(management, "is_oom", None)  # newer versions know more than one kind
    return known(error) if known is not None else isinstance(error, management.OOM_EXCEPTION)


def with_less(work, less):
    """work(); whenever memory runs out on it, once more after less(), unless that returns False."""
    while True:
        try:
            return work()
        except Exception as error:
            if not is_out_of_memory(error) or not less():
                raise
        # Here and not above: the exception held on to every tensor of the call that failed.
        management.soft_empty_cache()


def free_memory(patcher, device):
    """Bytes that a model of `patcher` may use on `device`; newer versions count what they could still clear."""
    return getattr(patcher, "get_free_memory", management.get_free_memory)(device)


def on_device(device):
    """A block in which `device` is the current one, where ComfyUI has several."""
    return getattr(management, "cuda_device_context", lambda _: contextlib.nullcontext())(device)
