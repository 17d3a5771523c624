"""LoRAs and merges on the weights that ComfyUI's own loading passes over."""

import torch
from comfy.model_patcher import ModelPatcher

from ..versions import casts_its_weights, is_dynamic


def patch_the_rest(patcher: ModelPatcher, device: torch.device | None, *_: object) -> None:
    """Called when ComfyUI has loaded a model: lets LoRAs and merges reach what its loading passes over.

    That is, parameters of modules that hold others (the modulation tables of all blocks), and where weights are only
    partly loaded, or when they are used, those of layers that are not ComfyUI's (norms). Buffers, of which the null
    caption is the only one that could differ, stay the model's own.
    """
    for key in patcher.patches:
        part = patcher.model.get_submodule(key.rpartition(".")[0])
        if casts_its_weights(part) or key.rpartition(".")[2] not in part._parameters:
            continue
        # Dynamic loading notes the original of what it cast, and begins with it the next time; the plain one has
        # patched what it notes.
        if is_dynamic(patcher) or key not in patcher.backup:
            patcher.patch_weight_to_device(key, device_to=device)
