"""Checkpoints: tell the family, build its module, and load it key by key."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from ..files import strip_prefixes, unwrap
from ..shapes_of import StateDict, refuse_misfits
from ..transformers.pixart import PixArt
from ..transformers.stdit import STDiT
from ..transformers.stdit2 import STDiT2
from ..transformers.stdit3 import STDiT3
from ..transformers.stdit3_v1_3 import STDiT3v13
from ..vaes.image import ImageVAE
from ..vaes.v1_2 import VideoVAE
from ..vaes.v1_3 import CausalVAE
from .identify import TRANSFORMERS, VAES, family_of, refuse

NETWORKS: tuple[Any, ...] = (STDiT, STDiT2, STDiT3, STDiT3v13, PixArt, VideoVAE, ImageVAE, CausalVAE)
CLASSES: dict[str, tuple[Any, Any]] = {network.family: (network, network.Config) for network in NETWORKS}
A_TRANSFORMER, A_VAE = "an Open-Sora transformer", "an Open-Sora VAE"


class Plan(NamedTuple):
    """A checked checkpoint: the class to build, its configuration, and the weights by that class's own keys."""

    network: Any
    config: Any
    weights: dict

    def build(self, **build: Any) -> nn.Module:
        """The module on the meta device; `build` is what its constructor takes beside that."""
        with torch.device("meta"):
            return self.network(self.config, **build)


def plan_transformer(state_dict: Mapping, config: Mapping | None = None) -> Plan:
    """The `Plan` of a transformer. Arguments and errors as `load_transformer`."""
    return _plan(state_dict, config, TRANSFORMERS, A_TRANSFORMER)


def plan_vae(state_dict: Mapping, config: Mapping | None = None) -> Plan:
    """The `Plan` of a video VAE. Arguments and errors as `load_vae`."""
    return _plan(state_dict, config, VAES, A_VAE)


def load_transformer(state_dict: Mapping, config: Mapping | None = None, **build: Any) -> nn.Module:
    """The transformer module for these weights, ready to call.

    Args:
        state_dict: key → tensor by the original's names, in a training run's wrapper or not; tensors are used as they
            are, not copied.
        config: the original's configuration keys, for what weights cannot tell; what they tell must agree.
        build: `operations`, `attention` as `STDiT3` takes them.

    Raises:
        ValueError: another kind of file, or missing, unexpected or misshapen keys (listed).
    """
    return _load(plan_transformer(state_dict, config), build)


def load_vae(state_dict: Mapping, config: Mapping | None = None, **build: Any) -> nn.Module:
    """The video VAE module for these weights, ready to call. Arguments and errors as `load_transformer`.

    `config` keys: spatial_norm_groups, temporal_norm_groups, chunk_frames, shift, scale.
    """
    return _load(plan_vae(state_dict, config), build)


def _plan(state_dict, config, families, wanted):
    """Everything that can be refused is refused here, before memory is touched."""
    state_dict = unwrap(state_dict)
    family = family_of(state_dict)
    if family not in families:
        refuse(state_dict, wanted)
    network, config_class = CLASSES[family]
    weights = getattr(network, "own_keys", dict)(strip_prefixes(dict(state_dict)))
    found = config_class.from_weights(weights, config)
    with torch.device("meta"):
        module = network(found)
    check_keys(module, weights, network.OPTIONAL)
    missing = [key for key in network.OPTIONAL if key not in weights]
    if missing:
        computed = module.computed()
        weights.update((key, computed[key]) for key in missing)
    return Plan(network, found, weights)


def _load(plan, build):
    """Build, then put the tensors in place as they are."""
    module = plan.build(**build)
    module.load_state_dict(plan.weights, strict=True, assign=True)
    return module.eval().requires_grad_(False)


def check_keys(module: nn.Module, state_dict: StateDict, optional: Collection[str] = ()) -> None:
    """Refuse weights whose keys or shapes are not the module's, listing them; `optional` ones may be missing."""
    own, found = (
        {key: tuple(value.shape) for key, value in each.items()} for each in (module.state_dict(), state_dict)
    )
    refuse_misfits(own, found, f"these weights do not fit {type(module).__name__}", optional)
