"""ComfyUI's own nodes, called in this process with their default values, and graphs of them."""

import contextlib
import importlib

import torch


def stock(module, name, *positional, **inputs):
    """The outputs of node class `name` in ComfyUI's `module` (nodes, comfy_extras.nodes_…), old schema or new."""
    # In newer versions this one and nodes_latent import each other, which goes well from this side only.
    importlib.import_module("comfy_extras.nodes_post_processing")
    node = getattr(importlib.import_module(module), name)
    if hasattr(node, "define_schema"):
        declared = node.define_schema().inputs
        defaults = {each.id: each.default for each in declared if getattr(each, "default", None) is not None}
        choices = {each.id: each.options[0] for each in declared if getattr(each, "options", None)}
        given = {**choices, **defaults, **inputs}
        optional = {each.id for each in declared if each.optional} - set(inputs) - set(defaults)
        result = node.execute(*positional, **{key: value for key, value in given.items() if key not in optional})
        return getattr(result, "args", result)
    declared = node.INPUT_TYPES()
    defaults = {
        key: entry[1]["default"]
        for key, entry in declared["required"].items()
        if len(entry) > 1 and "default" in entry[1]
    }
    return getattr(node(), node.FUNCTION)(**{**defaults, **inputs})


def ksampler(model, positive, negative, latent, sampler="euler", scheduler="simple", steps=4, cfg=4.0, denoise=1.0):
    """Samples of KSampler."""
    return stock(
        "nodes", "KSampler", model=model, seed=5, steps=steps, cfg=cfg, sampler_name=sampler, scheduler=scheduler,
        positive=positive, negative=negative, latent_image=latent, denoise=denoise,
    )[0]["samples"]  # fmt: skip


def ksampler_advanced(model, positive, negative, latent, first, last, steps=4, cfg=4.0, sampler="euler"):
    """LATENT of KSampler Advanced from step `first` to `last`; later parts add no noise, earlier ones leave theirs."""
    return stock(
        "nodes", "KSamplerAdvanced", model=model, noise_seed=5, steps=steps, cfg=cfg, sampler_name=sampler,
        scheduler="simple", positive=positive, negative=negative, latent_image=latent,
        add_noise="enable" if first == 0 else "disable", start_at_step=first, end_at_step=last,
        return_with_leftover_noise="enable" if last < steps else "disable",
    )[0]  # fmt: skip


def sampler_custom_advanced(model, positive, negative, latent, sampler="euler", sigmas="simple", steps=4, cfg=4.0):
    """Samples of SamplerCustomAdvanced; `sigmas` are a scheduler's name for BasicScheduler, or SIGMAS."""
    custom = "comfy_extras.nodes_custom_sampler"
    if not torch.is_tensor(sigmas):
        sigmas = stock(custom, "BasicScheduler", model=model, scheduler=sigmas, steps=steps, denoise=1.0)[0]
    return stock(
        custom,
        "SamplerCustomAdvanced",
        noise=stock(custom, "RandomNoise", noise_seed=5)[0],
        guider=stock(custom, "CFGGuider", model=model, positive=positive, negative=negative, cfg=cfg)[0],
        sampler=stock(custom, "KSamplerSelect", sampler_name=sampler)[0],
        sigmas=sigmas,
        latent_image=latent,
    )[0]["samples"]


@contextlib.contextmanager
def computed(model):
    """A list that grows by one whenever the network of MODEL is really run, caches aside."""
    calls = []
    hook = model.model.diffusion_model.x_embedder.register_forward_pre_hook(lambda module, given: calls.append(1))
    try:
        yield calls
    finally:
        hook.remove()
