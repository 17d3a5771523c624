"""What a T5 encoder's file tells of itself: its sizes, and whether its weights are all there.

T5: Raffel et al. 2020; Open-Sora and PixArt read T5 v1.1 XXL.
"""

from collections.abc import Mapping
from typing import Any

from ..shapes_of import StateDict, refuse_misfits
from .identify import identify, refusal

VOCABULARY = 32128  # entries of the embedding table that belongs to T5's tokenizer
# What quantised files keep beside a layer's weight.
QUANTISATION = ("scale_weight", "scale_input", "weight_scale", "weight_scale_2", "input_scale", "comfy_quant")
PROBE = "encoder.block.0.layer.0.SelfAttention.q.weight"


def config_of(state_dict: StateDict) -> dict[str, Any]:
    """Configuration of a T5 encoder, in the words of its configuration file, read from the shapes of its weights.

    Raises ValueError, saying what the file is, where it is no T5 encoder that Open-Sora could read.
    """
    if PROBE not in state_dict or "shared.weight" not in state_dict:
        what, node = identify(state_dict)
        if what is None or "T5" in what:
            sample = ", ".join(sorted(state_dict)[:3]) or "none"
            raise ValueError(f"this is not a whole T5 text encoder; its keys are {sample}, …")
        raise ValueError(refusal(what, node, "a T5 text encoder"))
    vocabulary, d_model = state_dict["shared.weight"].shape
    if vocabulary != VOCABULARY:
        raise ValueError(
            f"this text encoder has a vocabulary of {vocabulary} tokens; Open-Sora reads T5 v1.1 with {VOCABULARY}, "
            "for the official models t5xxl_fp16.safetensors"
        )
    bias = state_dict.get("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight")
    num_heads = bias.shape[1] if bias is not None else 1  # a missing key is listed by check_keys
    gated = "encoder.block.0.layer.1.DenseReluDense.wi_0.weight" in state_dict
    hidden = state_dict.get(f"encoder.block.0.layer.1.DenseReluDense.{'wi_0' if gated else 'wi'}.weight")
    return {
        "model_type": "t5",
        "vocab_size": vocabulary,
        "d_model": d_model,
        "d_kv": state_dict[PROBE].shape[0] // num_heads,
        "d_ff": d_model if hidden is None else hidden.shape[0],
        "num_heads": num_heads,
        "num_layers": len({key.split(".")[2] for key in state_dict if key.startswith("encoder.block.")}),
        "is_gated_act": gated,
        "dense_act_fn": "gelu_pytorch_tanh" if gated else "relu",
    }


def shapes_of(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """key → shape of every weight that an encoder of this configuration has."""
    d_model, d_ff, inner = config["d_model"], config["d_ff"], config["d_kv"] * config["num_heads"]
    shapes = {"shared.weight": (config["vocab_size"], d_model), "encoder.final_layer_norm.weight": (d_model,)}
    shapes["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = (32, config["num_heads"])
    for block in range(config["num_layers"]):
        attention, feed_forward = (f"encoder.block.{block}.layer.{layer}" for layer in (0, 1))
        shapes |= {f"{layer}.layer_norm.weight": (d_model,) for layer in (attention, feed_forward)}
        shapes |= {f"{attention}.SelfAttention.{name}.weight": (inner, d_model) for name in "qkv"}
        shapes[f"{attention}.SelfAttention.o.weight"] = (d_model, inner)
        inputs = ("wi_0", "wi_1") if config["is_gated_act"] else ("wi",)
        shapes |= {f"{feed_forward}.DenseReluDense.{name}.weight": (d_ff, d_model) for name in inputs}
        shapes[f"{feed_forward}.DenseReluDense.wo.weight"] = (d_model, d_ff)
    return shapes


def check_keys(state_dict: StateDict, config: Mapping[str, Any]) -> None:
    """Refuse an encoder with missing, unexpected or misshapen weights, listing them.

    Loaders that are not strict would take what fits and leave the rest to chance.
    """
    shapes = shapes_of(config)
    layers = {key.removesuffix(".weight") for key in shapes}
    beside = {key for key in state_dict if key.rpartition(".")[2] in QUANTISATION and key.rpartition(".")[0] in layers}
    quantised = {key.rpartition(".")[0] for key in beside}  # some formats pack several values into one
    found = {key: tuple(value.shape) for key, value in state_dict.items() if key not in {*beside, "scaled_fp8"}}
    found |= {key: shapes[key] for key in found.keys() & shapes if key.removesuffix(".weight") in quantised}
    refuse_misfits(shapes, found, "this T5 encoder's weights do not fit")
