"""What steps the weights: AdamW, Muon for matrices, and how the learning rate rises and falls.

Muon (Jordan et al. 2024) is momentum whose matrix is orthogonalised before each step; small models learn in about half
the steps AdamW needs. It is ours: torch.optim.Muon takes nothing but two-dimensional weights, and only new versions of
PyTorch have it. Here convolutions count as matrices of their output channels.
"""

import importlib
import math
from collections.abc import Iterable, Mapping

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

WARM_UP = 100  # steps
LEAST_RATE = 0.02  # of the learning rate, at the end
LEAST_SIDE = 16  # of a matrix for Muon
MEMORY = {"adamw": 2.0, "adamw8bit": 0.5, "prodigy": 4.0}  # fp32 numbers that each keeps of a weight
PACKAGES = {"adamw8bit": ("bitsandbytes.optim", "AdamW8bit"), "prodigy": ("prodigyopt", "Prodigy")}


def optimizers_for(
    module: torch.nn.Module, learning_rate: float, matrix_rate: float = 0.0, weight_decay: float = 0.0
) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or with a `matrix_rate` Muon for the inner matrices and AdamW for the rest: a list."""
    inner: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for parameter in module.parameters():
        if parameter.requires_grad:
            matrix = matrix_rate and parameter.ndim >= 2 and min(parameter.flatten(1).shape) >= LEAST_SIDE
            (inner if matrix else rest).append(parameter)
    adam = torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, 0.99), weight_decay=weight_decay)
    return [adam, *([Muon(inner, lr=matrix_rate)] if inner else [])]


def optimizer_of(
    kind: str, parameters: Iterable[torch.nn.Parameter], lr: float, *, weight_decay: float = 0.0, eps: float = 1e-8
) -> torch.optim.Optimizer:
    """The optimizer "adamw", or one of a package: "adamw8bit" (bitsandbytes), "prodigy" (prodigyopt, lr around 1).

    Raises ValueError for another name, and where the package is not installed.
    """
    if kind == "adamw":
        return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, eps=eps)
    if kind not in PACKAGES:
        known = ", ".join(("adamw", *PACKAGES))
        raise ValueError(f"optimizer is {kind!r}; it must be one of {known}; the usual one is adamw")
    module, name = PACKAGES[kind]
    try:
        found = getattr(importlib.import_module(module), name)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ValueError(
            f"optimizer is {kind!r}, which needs the package {package}: pip install {package}; adamw needs none"
        ) from error
    return found(parameters, lr=lr, weight_decay=weight_decay)


def rate_at(step: int, lr: float, *, warmup: int, steps: int, schedule: str = "constant") -> float:
    """The learning rate of `step` (from 0 on): rising over `warmup` steps, then `schedule`, constant or cosine to 0."""
    if step < warmup or schedule == "constant":
        return _rising(step, warmup, lr)
    done = (step - warmup) / max(1, steps - warmup)
    return lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def rise_and_fall(optimizer: torch.optim.Optimizer, steps: int) -> SequentialLR:
    """The schedule of a run of so many steps: a linear rise over WARM_UP, then half a cosine down to LEAST_RATE."""
    rise = LinearLR(optimizer, 1 / WARM_UP, total_iters=WARM_UP - 1)
    least = LEAST_RATE * optimizer.param_groups[0]["initial_lr"]
    fall = CosineAnnealingLR(optimizer, max(1, steps - WARM_UP), eta_min=least)
    return SequentialLR(optimizer, [rise, fall], [WARM_UP])


def warmup(step: int, steps: int, lr: float, version: str = "1.2") -> float:
    """The learning rate that Open-Sora uses at `step`, from 0 on, when it rises over `steps` to `lr`, and then.

    1.3 begins 1e-6 higher all the way up.
    """
    return _rising(step, steps, lr) + (1e-6 if version == "1.3" and step < steps else 0.0)


def _rising(step, steps, lr):
    return lr if step >= steps else lr * (step + 1) / (steps + 1)


@torch.no_grad()
def ema_update(average: torch.nn.Module, module: torch.nn.Module, decay: float) -> None:
    """Move the module `average` towards `module`, in place: average · decay + module · (1 - decay).

    As Open-Sora averages: parameters that are frozen or called pos_embed stay, and buffers too.
    """
    learned = {name: p for name, p in module.named_parameters() if p.requires_grad and name != "pos_embed"}
    ema_update_of(dict(average.named_parameters()), learned, decay)


@torch.no_grad()
def ema_update_of(averages: Mapping[str, torch.Tensor], values: Mapping[str, torch.Tensor], decay: float) -> None:
    """Move `averages` towards the values of the same names, in place; what has no value stays."""
    for name, value in values.items():
        averages[name].mul_(decay).add_(value.to(averages[name]), alpha=1 - decay)


def orthogonalise(matrix: torch.Tensor, iterations: int = 4) -> torch.Tensor:
    """The nearest semi-orthogonal matrix, roughly: four Newton-Schulz iterations of the quintic tuned for speed."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; the step's size does not depend on the gradient's."""

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter.grad)
                buffer = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(buffer, group["momentum"]).flatten(1)
                update = orthogonalise(update) * max(1.0, update.shape[0] / update.shape[1]) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update.view_as(parameter), alpha=-group["lr"])
