"""The network with its loss, as processes share it; what it does with memory, and what it says where that runs out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..config import TrainConfig
from ..objective import Drawn, Objective, loss

Loss = Callable[[nn.Module, Sequence[Drawn], Objective], Tensor]  # of each example, [B]
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate", "cannot allocate")


class Learner(nn.Module):
    """The network with its loss: one call a batch, which is what several processes exchange gradients around."""

    def __init__(
        self, network: nn.Module, objective: Objective, autocast: torch.dtype | None = None, loss: Loss | None = None
    ) -> None:
        super().__init__()
        self.network, self.objective, self.autocast, self.loss = network, objective, autocast, loss

    def forward(self, batch: Sequence[Drawn]) -> Tensor:
        device = next(self.network.parameters()).device.type
        with torch.autocast(device, self.autocast) if self.autocast else contextlib.nullcontext():
            return (self.loss or loss)(self.network, batch, self.objective).float()


def learner_of(network: nn.Module, objective: Objective, settings: TrainConfig, loss: Loss | None = None) -> Learner:
    """A network with its loss as `settings` have it computed: in which precision, and what is kept for the way back."""
    if settings.gradient_checkpointing:
        recompute_blocks(network)
    autocast = torch.bfloat16 if settings.precision == "bf16" and settings.kind == "full" else None
    return Learner(network, objective, autocast, loss)


def recompute_blocks(network: Any) -> None:
    """Gradient checkpointing: each block's activations are computed again on the way back (Chen et al. 2016)."""

    def run_block(index: int, block: Callable[..., Tensor], x: Tensor, caption: Any, t: Tensor) -> Tensor:
        return checkpoint(block, x, caption, t, use_reentrant=False)

    network.run_block = run_block


@contextlib.contextmanager
def says_what_fits(batch: Sequence[Drawn], settings: TrainConfig) -> Iterator[None]:
    """Where memory runs out inside the block: a ValueError that names the batch's size and the settings that help."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not (isinstance(error, MemoryError) or any(words in str(error).lower() for words in OUT_OF_MEMORY)):
            raise
        sizes = max(batch, key=lambda drawn: drawn.clean.numel()).sizes
        helps = [f"a batch size below {len(batch)}"] if len(batch) > 1 else []
        helps += [] if settings.gradient_checkpointing else ["gradient_checkpointing"]
        helps += [] if settings.precision == "bf16" else ["precision bf16"]
        helps += [] if settings.kind == "lora" else ["kind lora"]
        raise ValueError(
            f"out of memory at {len(batch)} clips of {sizes['num_frames']:g} frames, {sizes['width']:g}x"
            f"{sizes['height']:g}: {' or '.join([*helps, 'a smaller bucket'])} helps "
            f"({(str(error) or 'no memory').splitlines()[0]})"
        ) from error
