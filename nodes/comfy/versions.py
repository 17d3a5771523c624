"""Where ComfyUI's versions differ: every question that the pack asks of them, with the version that brought the answer.

The pack runs on ComfyUI 0.3.75 and later. Nothing outside this file asks what a ComfyUI has.
"""

import contextlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import comfy.cli_args
import comfy.model_management as management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import ComfyAPI, io

from ...model.shapes_of import StateDict


def known(function: Callable, keywords: dict) -> dict:
    """`keywords` without those that `function` does not take: one unknown keyword in a schema drops the whole pack.

    For io.Schema: search_aliases, and from 0.19 on has_intermediate_output.
    """
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return keywords
    return {name: value for name, value in keywords.items() if name in parameters}


def running_server() -> Any:
    """The server that runs this ComfyUI, or None: it is set as the server starts, and nodes run without one too."""
    from server import PromptServer  # not there where nodes run without a server

    return getattr(PromptServer, "instance", None)


def node_replacement() -> tuple[Callable, type] | None:
    """(register, NodeReplace) for nodes of packs that are not installed, from 0.14 on; None before."""
    register = getattr(getattr(ComfyAPI(), "node_replacement", None), "register", None)
    replacement = getattr(io, "NodeReplace", None)
    return None if register is None or replacement is None else (register, replacement)


def tells_of_graphs() -> bool:
    """Whether files may carry the graph that made them: unless ComfyUI was started with --disable-metadata."""
    return not getattr(comfy.cli_args.args, "disable_metadata", False)


def name() -> str:
    """Of the ComfyUI that runs: its version, and whether it brings comfy-kitchen."""
    from comfyui_version import __version__

    return f"ComfyUI {__version__}, {'with' if kitchen() else 'without'} comfy-kitchen"


# --- loading


def patcher_of(
    module: torch.nn.Module, load_device: torch.device, offload_device: torch.device, disable_dynamic: bool = False
) -> ModelPatcher:
    """A ModelPatcher around a module; from 0.12 on of the kind that ComfyUI chose as it started, unless forbidden."""
    plain = comfy.model_patcher.ModelPatcher
    kind = plain if disable_dynamic else getattr(comfy.model_patcher, "CoreModelPatcher", plain)
    return kind(module, load_device=load_device, offload_device=offload_device)


def is_dynamic(patcher: ModelPatcher) -> bool:
    """Whether weights keep the file's own tensors until they are used: from 0.12 on, where the device can do it."""
    return getattr(patcher, "is_dynamic", lambda: False)()


def loaded_as_they_are(patcher: ModelPatcher, weights: StateDict) -> bool:
    """Whether loading is dynamic; then the model of `patcher` has been given the tensors of a file, uncast (0.12)."""
    if getattr(patcher, "is_dynamic", lambda: False)():
        patcher.model.load_model_weights(dict(weights), "", assign=True)
        return True
    return False


def archive_dtypes(network: torch.nn.Module) -> None:
    """Note the dtypes that a network is built with, for what casts its weights when they are used (0.12)."""
    getattr(management, "archive_model_dtypes", lambda network: None)(network)


def casts_its_weights(part: torch.nn.Module) -> bool:
    """Whether a module is one of ComfyUI's layers, which patch their weights themselves."""
    return hasattr(part, "comfy_cast_weights")


def clip_with_weights(
    target: object, state_dict: StateDict, tokenizer_data: dict, parameters: int, options: dict, disable_dynamic: bool
) -> comfy.sd.CLIP:
    """A comfy.sd.CLIP. From 0.4 on it goes to its device while it is made, and takes its weights by then."""
    taken = inspect.signature(comfy.sd.CLIP.__init__).parameters
    newer = {"state_dict": [state_dict], "disable_dynamic": disable_dynamic}  # the latter came with dynamic loading
    newer = {name: value for name, value in newer.items() if name in taken}
    clip = comfy.sd.CLIP(target, tokenizer_data=tokenizer_data, parameters=parameters, model_options=options, **newer)
    if "state_dict" not in newer:
        clip.load_sd(state_dict)
    return clip


def marked(state_dict: StateDict, metadata: dict) -> tuple[StateDict, dict | None]:
    """(state dict in which each quantised layer says how it is, what ComfyUI's layers for such files want, or None).

    `metadata` is the file's own. Raises ValueError where this ComfyUI, before 0.4, cannot read quantised transformers.
    """
    read = _marked(state_dict, metadata)
    if read:
        return read
    if _is_quantised(state_dict, metadata) or "scaled_fp8" in state_dict:
        raise ValueError(
            "this transformer is quantised in a way that this version of ComfyUI cannot read; update ComfyUI, or use a "
            "file in bf16 with weight_dtype fp8_e4m3fn"
        )
    return state_dict, None


def _marked(state_dict, metadata):
    if hasattr(comfy.utils, "convert_old_quants"):
        state_dict, _ = comfy.utils.convert_old_quants(dict(state_dict), model_prefix="", metadata=metadata)
        return state_dict, comfy.utils.detect_layer_quantization(state_dict, "")
    return None


def _is_quantised(state_dict, metadata):
    return "_quantization_metadata" in metadata or any(key.endswith(".comfy_quant") for key in state_dict)


def quantised_text_encoder(state_dict: StateDict, metadata: dict) -> tuple[StateDict, dict]:
    """(state dict as this ComfyUI wants it, model options) for a file that may be quantised; 0.4 reads more kinds.

    Raises ValueError for a kind that it cannot read.
    """
    read = _marked(state_dict, metadata)
    if read:
        state_dict, found = read
        return state_dict, {} if found is None else {"quantization_metadata": found}
    if _is_quantised(state_dict, metadata):
        raise ValueError(
            "this text encoder is quantised in a way that this version of ComfyUI cannot read; update ComfyUI, or use "
            "t5xxl_fp16.safetensors or t5xxl_fp8_e4m3fn_scaled.safetensors"
        )
    marker = state_dict.get("scaled_fp8")
    if marker is None:
        return state_dict, {}
    dtype = torch.float8_e4m3fn if marker.dtype == torch.float32 else marker.dtype
    return {key: tensor for key, tensor in state_dict.items() if key != "scaled_fp8"}, {"scaled_fp8": dtype}


# --- running


def kitchen() -> Any:
    """comfy-kitchen, if this ComfyUI brings it and it has the operations that the transformers take from it."""
    try:
        import comfy_kitchen
    except ImportError:
        return None
    wanted = ("adaln", "apply_rope_", "rms_rope_", "registry")
    return comfy_kitchen if all(hasattr(comfy_kitchen, name) for name in wanted) else None


def only_its_weights(linear: Any, x: torch.Tensor) -> bool:
    """Whether a linear layer is no more than its weight and bias beside `x`: nothing patches or casts them."""
    if not isinstance(linear, comfy.ops.disable_weight_init.Linear) or linear.comfy_cast_weights:
        return False
    weight, bias = linear.weight, linear.bias
    beside = all(each is not None and each.dtype == x.dtype and each.device == x.device for each in (weight, bias))
    return beside and not linear.weight_function and not linear.bias_function


def free_memory(patcher: ModelPatcher, device: torch.device) -> int:
    """Bytes that a model of `patcher` may use on `device`; from 0.12 on with what it could still clear."""
    return getattr(patcher, "get_free_memory", management.get_free_memory)(device)


def on_device(device: torch.device) -> contextlib.AbstractContextManager:
    """A block in which `device` is the current one, where ComfyUI has several (0.23)."""
    return getattr(management, "cuda_device_context", lambda _: contextlib.nullcontext())(device)


def vae_output_dtype(vae: comfy.sd.VAE) -> torch.dtype:
    """The dtype of what a VAE hands on, a choice of the user's from 0.18 on."""
    return getattr(vae, "vae_output_dtype", lambda: torch.float32)()


def with_less(work: Callable[[], torch.Tensor], less: Callable[[], bool]) -> torch.Tensor:
    """work(); whenever memory runs out on it, once more after less(), unless that returns False."""
    while True:
        try:
            return work()
        except Exception as error:
            if not _is_out_of_memory(error) or not less():
                raise
        # Here and not above: the exception held on to every tensor of the call that failed.
        management.soft_empty_cache()


def _is_out_of_memory(error):
    """Whether ComfyUI takes this exception for the device's memory having run out; 0.17 knows more than one kind."""
    known_kinds = getattr(management, "is_oom", None)
    return known_kinds(error) if known_kinds is not None else isinstance(error, management.OOM_EXCEPTION)


def has_anchor(window: object) -> bool:
    """Whether a context window has a latent in front that only gives context, by causal_window_fix (0.21)."""
    anchor = getattr(window, "causal_anchor_index", None)
    return anchor is not None and anchor >= 0


def retained(model_options: dict) -> Sequence[int]:
    """The positions that context windows keep for latents of the same index (latent_retain_index_list, 0.26)."""
    return getattr(model_options.get("context_handler"), "latent_retain_index_list", ())
