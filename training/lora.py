"""Low-rank adaptation: small matrices beside the Linear layers of a transformer's blocks (Hu et al. 2021).

A layer gives W x + (alpha / rank) B A x; A is drawn, B begins at zero, so training begins at the model as it is.
`branches` says which blocks learn: in space (what a frame looks like), over time (how it moves), or both.
"""

import difflib
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

BRANCHES = ("all", "look", "motion")
PREFIX = "diffusion_model."  # in front of a network's own names: under it LoRA loaders of ComfyUI find every model's
DOWN, UP, ALPHA = "lora_A.weight", "lora_B.weight", "alpha"


class LoRALinear(nn.Module):
    """A Linear layer whose weight stays, with the two matrices that learn."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.base, self.scale = base, alpha / rank
        device = base.weight.device
        self.down = nn.Parameter(torch.empty(rank, base.in_features, device=device, dtype=torch.float32))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank, device=device, dtype=torch.float32))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        change = (x.to(self.down.dtype) @ self.down.T) @ self.up.T
        return self.base(x) + self.scale * change.to(x.dtype)


def branch_of(name: str) -> str | None:
    """ "look" or "motion" for the name of a module inside a transformer's blocks; None for what is in no block.

    1.2 and 1.3 have blocks of their own over time. A block of 1.0 and 1.1 holds both: all but its attention over time
    counts as look.
    """
    parts = name.split(".")
    if parts[0] == "temporal_blocks" or (parts[0] == "blocks" and "attn_temp" in parts):
        return "motion"
    return "look" if parts[0] in ("blocks", "spatial_blocks") else None


def inject(network: nn.Module, rank: int, alpha: float, branches: str = "all", seed: int = 0) -> list[nn.Parameter]:
    """Put LoRALinear in the place of each Linear layer in the blocks of `branches`; everything else is frozen.

    Returns the parameters that learn; their first values follow from `seed`. Raises ValueError for branches that are
    none of BRANCHES, a rank below 1, and a network that has no such branch (an image model has no motion).
    """
    if branches not in BRANCHES:
        near = difflib.get_close_matches(str(branches), BRANCHES, 1, 0)[0]
        raise ValueError(f"branches is {branches!r}; it must be one of {', '.join(BRANCHES)}; the nearest is {near}")
    if rank < 1:
        raise ValueError(f"rank is {rank}; it must be at least 1, the usual ones are 4 to 64")
    network.requires_grad_(False)
    found = [
        (name, part)
        for name, part in network.named_modules()
        if isinstance(part, nn.Linear) and branch_of(name) and branches in ("all", branch_of(name))
    ]
    if not found:
        raise ValueError(
            f"branches is {branches!r}, but this {getattr(network, 'family', 'network')} has none; use all"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, part in found:
            owner, _, last = name.rpartition(".")
            setattr(network.get_submodule(owner), last, LoRALinear(part, rank, alpha))
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def layers(network: nn.Module) -> dict[str, LoRALinear]:
    """{name in the network: layer} of what `inject` has put there."""
    return {name: part for name, part in network.named_modules() if isinstance(part, LoRALinear)}


def state_dict(network: nn.Module) -> dict[str, Tensor]:
    """The LoRA as files hold it: A and B by PEFT's names, and alpha, under "diffusion_model." + the layer's name."""
    found: dict[str, Tensor] = {}
    for name, layer in layers(network).items():
        found[f"{PREFIX}{name}.{DOWN}"] = layer.down.detach()
        found[f"{PREFIX}{name}.{UP}"] = layer.up.detach()
        found[f"{PREFIX}{name}.{ALPHA}"] = torch.tensor(layer.scale * layer.down.shape[0])
    return found


def load_state_dict(network: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Take the values of a LoRA's file, and its alpha, into the layers of `inject`.

    Raises ValueError where it was made for another model, rank or other branches, naming the first key that differs.
    """
    own = layers(network)
    expected = {f"{PREFIX}{name}.{part}" for name in own for part in (DOWN, UP)}
    given = {key for key in state_dict if not key.endswith(ALPHA)}
    if expected != given:
        key = min(expected ^ given)
        has, lacks = ("the file", "the model") if key in given else ("the model", "the file")
        raise ValueError(f"this LoRA is for other layers: {has} has {key}, {lacks} has not; branches or model differ")
    for name, layer in own.items():
        for part, parameter in ((DOWN, layer.down), (UP, layer.up)):
            value = state_dict[f"{PREFIX}{name}.{part}"]
            if value.shape != parameter.shape:
                raise ValueError(
                    f"this LoRA is for another size: {name}.{part} is {tuple(value.shape)}, here it must be "
                    f"{tuple(parameter.shape)}; the rank or the model differs"
                )
            parameter.data.copy_(value)
        alpha = state_dict.get(f"{PREFIX}{name}.{ALPHA}")
        if alpha is not None:
            layer.scale = float(alpha) / layer.down.shape[0]


@torch.no_grad()
def merge(network: nn.Module, strength: float = 1.0) -> None:
    """Add the LoRA to the weights, in place, and put the plain Linear layers back."""
    for name, layer in layers(network).items():
        change = (layer.up @ layer.down) * (layer.scale * strength)
        layer.base.weight += change.to(layer.base.weight)
        owner, _, last = name.rpartition(".")
        setattr(network.get_submodule(owner), last, layer.base)
