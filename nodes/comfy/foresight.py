"""What is known before a run: the sentences that ComfyUI's validation shows at a node's inputs, and what is wired.

`validate_inputs` of a node names the inputs that it judges. ComfyUI then leaves their ranges to it, does not pass those
that a wire feeds, and writes what it returns at each of them. It shows a node nothing but its own numbers; `Node` sees
the rest.
"""

import os
from contextvars import ContextVar
from functools import lru_cache

from ...model.checkpoints.loading import plan_vae
from ...model.files import read_model
from . import files
from .schema import io
from .vae.network import HOSTED, HostedVAE
from .versions import running_server

KNOWS_ITSELF = [io.Hidden.unique_id]  # for `hidden` of a schema: lets `Node.of` find the node in its prompt
_prompt = ContextVar("prompt", default=None)


def listen() -> None:
    """Have every prompt that is posted remembered while it is checked."""
    server = running_server()
    if server is not None:
        server.add_on_prompt_handler(_remember)


def _remember(posted):
    _prompt.set(posted.get("prompt"))  # a request has a context of its own
    return posted


def told(*checks: tuple) -> bool | str:
    """What `validate_inputs` returns: True, or the sentence of the first check that refuses.

    A check is (function, *arguments), and raises ValueError; with an argument of None, one that only a run knows, it is
    left out.
    """
    for check, *arguments in checks:
        if any(argument is None for argument in arguments):
            continue
        try:
            check(*arguments)
        except ValueError as error:
            return str(error)
        except (TypeError, LookupError):  # a value of another type, or none of a combo's: not for these checks to say
            continue
    return True


class Node:
    """A node of the prompt that is being checked: `kind`, its ID, and `inputs`, numbers or wires."""

    def __init__(self, prompt: object, node_id: str | None) -> None:
        self.prompt = prompt if isinstance(prompt, dict) else {}
        node = self.prompt.get(node_id) or {}
        self.kind, self.inputs = node.get("class_type"), node.get("inputs") or {}

    @classmethod
    def of(cls, node_class: type[io.ComfyNode]) -> "Node":
        """The node whose `validate_inputs` is called; one without inputs where ComfyUI does not tell which it is."""
        return cls(_prompt.get(), node_class.hidden and node_class.hidden.unique_id)

    def wired(self, name: str) -> bool:
        """Whether a wire feeds the input."""
        return isinstance(self.inputs.get(name), list)

    def constant(self, name: str) -> object:
        """The value of an input; None where a wire feeds it, and where it is left out."""
        return None if self.wired(name) else self.inputs.get(name)

    def before(self, name: str) -> "Node | None":
        """The Node that feeds the input, or None."""
        return Node(self.prompt, self.inputs[name][0]) if self.wired(name) and self.inputs[name] else None

    def network(self) -> HostedVAE | None:
        """The network, without weights, of the VAE file that is wired to `vae`; None where only a run knows it."""
        loader = self.before("vae")
        name = loader.constant("vae_name") if loader and loader.kind == "OpenSoraLoadVAE" else None
        if not isinstance(name, str):
            return None
        try:
            path = files.path_of(name, "vae", "vae")
            return _network(path, os.stat(path).st_mtime_ns)
        except (ValueError, OSError):  # the loader will say it
            return None


@lru_cache(maxsize=8)
def _network(path, changed):
    """The network of a file as it is since the time `changed`."""
    state_dict, _, config = read_model(path)
    plan = plan_vae(state_dict, config)
    return HOSTED[plan.network.family](plan.config)
