"""Transformers whose matrices a file keeps in 8 or 4 bits, as ComfyUI writes and reads them (scaled fp8, mxfp8, nvfp4).

Each quantised layer has its own word on how it is (`comfy_quant`) and its scales beside its weight. ComfyUI's layers
take these tensors as they are, and multiply with them where a card can.
"""

import json
from collections.abc import Mapping

import torch

from ...model.files import strip_prefixes, unwrap
from ...model.shapes_of import StateDict

MARK = "comfy_quant"
BESIDE = (MARK, "weight_scale", "weight_scale_2", "input_scale", "pre_quant_scale")
TWO_A_BYTE = ("nvfp4",)  # formats that pack two values of a row into a byte


def split(state_dict: Mapping) -> tuple[StateDict, StateDict]:
    """(state dict as of a file that is not quantised, what its quantised layers take as it is: their weights and more).

    In the first, quantised weights are stand-ins without values, of the shape that they have once brought back.
    """
    whole = strip_prefixes(dict(unwrap(state_dict)))
    layers = {key.rpartition(".")[0]: mark for key, mark in whole.items() if key.rpartition(".")[2] == MARK}
    plain, own = {}, {}
    for key, tensor in whole.items():
        layer, _, name = key.rpartition(".")
        if layer not in layers or name not in (*BESIDE, "weight"):
            plain[key] = tensor
            continue
        own[key] = tensor
        if name == "weight":
            rows, columns = tensor.shape
            packed = 2 if _format(layers[layer]) in TWO_A_BYTE else 1
            plain[key] = torch.empty(rows, columns * packed, dtype=torch.bfloat16, device="meta")
    return plain, own


def _format(mark):
    """What a layer's mark, JSON in bytes, calls its format."""
    return json.loads(bytes(mark.tolist())).get("format")
