"""What a run needs to go on as if it had never stopped, and how another run is told from it."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from .. import checkpoints
from .steps import Place


def state_of(trainer: Any) -> dict[str, Any]:
    """What a checkpoint of a `Trainer` holds: plain values and tensors, so that reading it runs nothing."""
    return {
        "parameters": {name: value.detach() for name, value in trainer.parameters.items()},
        "average": trainer.average,
        "optimizer": trainer.optimizer.state_dict(),
        "step": trainer.step,
        "epoch": trainer.place.epoch,
        "seen": trainer.place.seen,
        "seconds": trainer.seconds,
        "best": trainer.best,
        "about": json.dumps(trainer.about, sort_keys=True),
    }


@torch.no_grad()
def restore(trainer: Any, state: Mapping[str, Any]) -> None:
    """Put a checkpoint's values into a `Trainer`. How the average and the optimiser go on, the settings of now decide.

    Raises ValueError for the checkpoint of another run, naming what differs.
    """
    refuse_other_run(trainer.folder, trainer.about, json.loads(state["about"]))
    for name, value in state["parameters"].items():
        trainer.parameters[name].copy_(value)
    for name, mean in trainer.average.items():
        mean.copy_(state["average"].get(name, trainer.parameters[name]))
    chosen = [{name: value for name, value in group.items() if name in ("weight_decay", "eps")}
              for group in trainer.optimizer.param_groups]  # fmt: skip
    trainer.optimizer.load_state_dict(state["optimizer"])
    for group, own in zip(trainer.optimizer.param_groups, chosen):
        group.update(own)
    trainer.step, trainer.place = state["step"], Place(state["epoch"], state["seen"])
    trainer.seconds, trainer.best = state["seconds"], _best_of(trainer.folder, state)


def _best_of(folder, state):
    """{"step", "loss"} of the best weights: those of the checkpoint, or of a validation that came right behind it."""
    path = folder / "best.safetensors"
    if not path.exists():
        return state["best"]
    with safe_open(path, "pt") as file:
        about = file.metadata()
    kept = {"step": int(about["step"]), "loss": float(about["loss"])}
    better = kept["step"] <= state["step"] and kept["loss"] < state["best"].get("loss", math.inf)
    return kept if better else state["best"]


def refuse_another(folder: Path, about: Mapping[str, Any]) -> None:
    """As `refuse_other_run` of what a folder holds, for those who have not written anything there yet."""
    path = folder / "about.json"
    if path.exists() and any(folder.glob(checkpoints.PATTERN)):
        refuse_other_run(folder, about, json.loads(path.read_text(encoding="utf-8")))


def refuse_other_run(folder: Path, about: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """ValueError where a run in `folder` was about something else."""
    for name, value in about.items():
        if name in before and before[name] != value:
            raise ValueError(
                f"save.folder: the run in {folder} has {name} {before[name]}, this one {value}; choose another folder, "
                f"or the same {name}"
            )
