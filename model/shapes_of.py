"""What the keys and shapes of a state dict tell of its network's configuration."""

import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import Tensor

StateDict = Mapping[str, Tensor]  # of a checkpoint
DEFAULT_HEAD_DIM = 72  # every official transformer's; only asked where the weights do not show it


# What the weights of every family of transformers tell.
COMMON = "depth hidden_size caption_channels model_max_length in_channels patch_size pred_sigma".split()


def count_blocks(state_dict: Iterable[str], pattern: str) -> int:
    """How many different first groups of the regular expression `pattern` the keys show."""
    matches = (re.match(pattern, key) for key in state_dict)
    return len({match.group(1) for match in matches if match})


Shapes = Mapping[str, tuple[int, ...]]


def refuse_misfits(own: Shapes, found: Shapes, what: str, optional: Collection[str] = ()) -> None:
    """ValueError, beginning with `what` and listing them, for keys that are missing or unexpected and other shapes."""
    shared = sorted(own.keys() & found.keys())
    problems = {
        "missing keys": sorted(own.keys() - found.keys() - set(optional)),
        "unexpected keys": sorted(found.keys() - own.keys()),
        "wrong shapes": [f"{key} {found[key]} instead of {own[key]}" for key in shared if found[key] != own[key]],
    }
    listed = [
        f"{len(keys)} {kind}: {', '.join(keys[:8])}{', …' * (len(keys) > 8)}" for kind, keys in problems.items() if keys
    ]
    if listed:
        raise ValueError(f"{what}. {'; '.join(listed)}")


def shape_of(state_dict: StateDict, key: str, rank: int, otherwise: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a weight that tells sizes; `otherwise` where it is missing or odd, which `check_keys` then lists."""
    tensor = state_dict.get(key)
    return tuple(tensor.shape) if tensor is not None and tensor.ndim == rank else otherwise


def shared_config(cls: Any, state_dict: StateDict, config: Mapping[str, Any]) -> dict[str, Any]:
    """What every family of transformers shows alike, as keyword arguments of its configuration, the class `cls`."""
    _, size = shape_of(state_dict, "final_layer.scale_shift_table", 2, (2, cls.hidden_size))
    hidden_size, in_channels, *patch = shape_of(
        state_dict, "x_embedder.proj.weight", 2 + len(cls.PATCH), (size, cls.in_channels, *cls.PATCH)
    )
    out_channels = in_channels * math.prod(patch)
    _, features = shape_of(state_dict, "y_embedder.y_proj.fc1.weight", 2, (size, cls.caption_channels))
    length = config.get("model_max_length") or cls.model_max_length
    max_length, caption_channels = shape_of(state_dict, "y_embedder.y_embedding", 2, (length, features))
    mlp_size, _ = shape_of(state_dict, f"{cls.BLOCKS}.0.mlp.fc1.weight", 2, (4 * hidden_size, hidden_size))
    out_size, _ = shape_of(state_dict, "final_layer.linear.weight", 2, (2 * out_channels, size))
    return {
        "depth": count_blocks(state_dict, rf"{cls.BLOCKS}\.(\d+)\."),
        "hidden_size": hidden_size,
        "caption_channels": caption_channels,
        "model_max_length": max_length,
        "in_channels": in_channels,
        "patch_size": (1, *patch)[-3:],
        "mlp_ratio": mlp_size / hidden_size,
        "pred_sigma": out_size == 2 * out_channels,
    }


def normed_heads(state_dict: StateDict, hidden_size: int, config: Mapping[str, Any]) -> tuple[bool, int]:
    """(whether queries and keys are normalised, number of heads) where those norms or rope.freqs show a head's size."""
    norms = [tensor for key, tensor in state_dict.items() if key.endswith(".q_norm.weight")]
    head_dim = norms[0].numel() if norms else 2 * shape_of(state_dict, "rope.freqs", 1, (0,))[0]
    return bool(norms), heads_of(hidden_size, config, head_dim)


def agree(found: object, config: Mapping[str, Any], *names: str) -> None:
    """ValueError where `config` contradicts what the weights say: COMMON and the attributes `names` of `found`."""
    for name in (*COMMON, *names):
        if name in config and config[name] is not None:
            given = tuple(config[name]) if isinstance(config[name], (list, tuple)) else config[name]
            if given != getattr(found, name):
                raise ValueError(f"config says {name} = {given}, but the weights say {getattr(found, name)}")


def heads_of(hidden_size: int, config: Mapping[str, Any], head_dim: int = 0) -> int:
    """The number of attention heads: from `head_dim` where weights show it, else from `config`, else heads of 72.

    Raises ValueError for a number that does not divide `hidden_size`.
    """
    if head_dim:
        return max(1, hidden_size // head_dim)
    heads = config.get("num_heads") or max(1, hidden_size // DEFAULT_HEAD_DIM)
    if hidden_size % heads:
        raise ValueError(
            f"num_heads is {heads}, which does not divide these weights' hidden_size of {hidden_size}; "
            "set num_heads to what the model was trained with"
        )
    return heads
