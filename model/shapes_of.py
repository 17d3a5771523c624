"""What the keys and shapes of a state dict tell about the sizes of its network."""

import re

DEFAULT_HEAD_DIM = 72  # every official transformer's; only asked where the weights do not show it


def count_blocks(state_dict, pattern):
    """How many different first groups of the regular expression `pattern` the keys show."""
    matches = (re.match(pattern, key) for key in state_dict)
    return len({match.group(1) for match in matches if match})


def shape_of(state_dict, key, rank, otherwise):
    """The shape of a weight that tells sizes; `otherwise` where it is missing or odd, which `check_keys` then lists."""
    tensor = state_dict.get(key)
    return tuple(tensor.shape) if tensor is not None and tensor.ndim == rank else otherwise


def agree(found, config, names):
    """Raise ValueError where `config` contradicts what the weights say: the attributes `names` of `found`."""
    for name in names:
        if name in config and config[name] is not None:
            given = tuple(config[name]) if isinstance(config[name], (list, tuple)) else config[name]
            if given != getattr(found, name):
                raise ValueError(f"config says {name} = {given}, but the weights say {getattr(found, name)}")


def heads_of(hidden_size, config, head_dim=0):
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
