"""How the recipe trains: the trainer's runs, of transformers and of networks whose loss follows from the step alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy
import torch
from torch import Tensor, nn

from .. import checkpoints
from ..config import SaveConfig, TrainConfig
from ..data.draws import seed_of
from ..trainer.processes import Processes
from ..trainer.run import Run

Module = TypeVar("Module", bound=nn.Module)
LossOf = Callable[[numpy.random.Generator], tuple[Tensor, dict[str, Any]]]
EVERY = 250  # steps between checkpoints
SHOWN = 25  # of so many steps one is printed


class Fit(Run):
    """A run whose step is a call of `loss_of`, which gives the loss and what else the log is to know.

    It draws from the generator that it is given, and from PyTorch's own: both are seeded by the number of the step.
    """

    loss_of: LossOf

    def steps(self) -> Iterator[tuple[int]]:
        """Their numbers."""
        return ((number,) for number in range(self.step, self.settings.steps))

    def backward(self, number: int) -> tuple[float, dict[str, Any]]:  # type: ignore[override]
        """Gradients of the loss of a step."""
        seed = seed_of(self.settings.seed, self.folder.name, number)
        torch.manual_seed(seed)
        loss, told = self.loss_of(numpy.random.default_rng(seed))
        loss.backward()
        return loss.item(), {name: round(float(value), 5) for name, value in told.items()}


def fit(
    folder: Path,
    network: Module,
    loss_of: LossOf,
    steps: int,
    learning_rate: float,
    *,
    parts: Iterable[nn.Module] = (),
    memory: dict[str, Any] | None = None,
    **options: Any,
) -> Module:
    """The network, trained (or trained on, where it was stopped), with averaged weights.

    Args:
        loss_of: as `Fit` calls it.
        parts: what of the network learns; empty: all.
        memory: plain values that `loss_of` changes: they are kept with the weights.
        options: as `settings` takes them.
    """
    network.requires_grad_(not parts)
    for part in parts:
        part.requires_grad_(True)
    alone = Processes("cpu", alone=True)
    run = Fit(network, settings(steps, learning_rate, **options), saving(folder), processes=alone, on_step=tell)
    run.loss_of = loss_of
    run.memory = {} if memory is None else memory
    return finish(run)


def settings(
    steps: int, learning_rate: float, *, muon_rate: float = 0.0, ema: float = 0.999, **options: Any
) -> TrainConfig:
    """How weights move in the recipe: Muon where it has a rate, rising over 100 steps and falling as half a cosine."""
    return TrainConfig(
        kind="full", steps=steps, learning_rate=learning_rate, warmup=min(100, steps // 3), schedule="cosine", ema=ema,
        ema_warmup=True, optimizer="muon" if muon_rate else "adamw", muon_rate=muon_rate, **options,
    )  # fmt: skip


def saving(folder: Path) -> SaveConfig:
    """What a run of the recipe leaves in its folder."""
    return SaveConfig(folder=str(folder), every_steps=EVERY, validate_every=EVERY, sample_every=EVERY)


def tell(entry: dict[str, Any]) -> None:
    """Print some lines of the log."""
    if entry["step"] % SHOWN == 0 or "loss" not in entry:
        print(json.dumps({name: round(v, 6) if isinstance(v, float) else v for name, v in entry.items()}), flush=True)


def finish(run: Run) -> Any:
    """The network of a run, with the weights that it ends in; SystemExit where it was stopped before."""
    run.run()
    if run.stopping or not run.finished:  # at its last step, too: what comes next is not to begin
        raise SystemExit(f"stopped at step {run.step}; the same command goes on")
    run.result()
    return run.network.eval().requires_grad_(False)


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """What `make()` gives, tensors and plain values, from `path` where it was made before: dear work is done once."""
    if not path.exists():
        found = make()
        checkpoints.write(path, lambda temporary: torch.save(found, temporary))
    return torch.load(path, weights_only=True)
