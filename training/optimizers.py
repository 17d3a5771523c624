"""What steps the weights: AdamW, Muon for matrices; how the learning rate rises and falls, and the average of weights.

Muon (Jordan et al. 2024) is momentum whose matrix is orthogonalised before each step; small models learn in about half
the steps AdamW needs. It is ours: torch.optim.Muon takes nothing but two-dimensional weights, and only new versions of
PyTorch have it. Here convolutions count as matrices of their output channels.
"""

import importlib
import math
from collections.abc import Iterable, Mapping

import torch

LEAST_SIDE = 16  # of a matrix for Muon
MOMENTUM = 0.95  # of Muon
BETAS = (0.9, 0.99)  # of AdamW beside Muon
MEMORY = {"adamw": 2.0, "adamw8bit": 0.5, "prodigy": 4.0, "muon": 1.2}  # fp32 numbers that each keeps of a weight
PACKAGES = {"adamw8bit": ("bitsandbytes.optim", "AdamW8bit"), "prodigy": ("prodigyopt", "Prodigy")}


def optimizer_of(
    kind: str,
    parameters: Iterable[torch.nn.Parameter],
    lr: float,
    *,
    muon_rate: float = 0.02,
    weight_decay: float = 0.0,
    eps: float = 1e-8,
) -> torch.optim.Optimizer:
    """The optimizer "adamw"; "muon" with a rate for matrices beside AdamW for the rest; or one of a package:
    "adamw8bit" (bitsandbytes), "prodigy" (prodigyopt, lr around 1).

    Raises ValueError for another name, and where the package is not installed.
    """
    if kind == "adamw":
        return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, eps=eps)
    if kind == "muon":
        return Muon(parameters, muon_rate, lr, weight_decay=weight_decay, eps=eps)
    if kind not in PACKAGES:
        known = ", ".join(("adamw", *PACKAGES, "muon"))
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


def ema_decay_at(step: int, decay: float, *, warmup: bool = False) -> float:
    """The decay of the average at `step`, from 0 on; with `warmup` it rises from a tenth, and forgets the beginning."""
    return min(decay, (1 + step) / (10 + step)) if warmup else decay


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
    """Matrices by Nesterov momentum, orthogonalised, so that a step's size is not the gradient's; AdamW for the rest.

    Args:
        muon_rate: learning rate of matrices; convolutions count as matrices of their output channels.
        lr, weight_decay, eps: of AdamW (Loshchilov & Hutter 2019).
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        muon_rate: float,
        lr: float,
        weight_decay: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        matrices: list[torch.nn.Parameter] = []
        rest: list[torch.nn.Parameter] = []
        for parameter in parameters:
            matrix = parameter.ndim >= 2 and min(parameter.flatten(1).shape) >= LEAST_SIDE
            (matrices if matrix else rest).append(parameter)
        groups = [{"params": rest, "muon": False}, {"params": matrices, "muon": True, "lr": muon_rate}]
        super().__init__(
            [group for group in groups if group["params"]], {"lr": lr, "weight_decay": weight_decay, "eps": eps}
        )

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """One step of every parameter that has a gradient."""
        for group in self.param_groups:
            move = _muon if group["muon"] else _adamw
            for parameter in group["params"]:
                if parameter.grad is not None:
                    move(parameter, parameter.grad, self.state[parameter], group)


def _muon(parameter, gradient, state, group):
    if not state:
        state["momentum"] = torch.zeros_like(gradient)
    momentum = state["momentum"].lerp_(gradient, 1 - MOMENTUM)
    update = orthogonalise(gradient.lerp(momentum, MOMENTUM).flatten(1))
    update = update * max(1.0, update.shape[0] / update.shape[1]) ** 0.5
    parameter.add_(update.view_as(parameter), alpha=-group["lr"])


def _adamw(parameter, gradient, state, group):
    if not state:
        state |= {"step": 0, "mean": torch.zeros_like(gradient), "square": torch.zeros_like(gradient)}
    state["step"] += 1
    mean = state["mean"].lerp_(gradient, 1 - BETAS[0]) / (1 - BETAS[0] ** state["step"])
    square = state["square"].lerp_(gradient.square(), 1 - BETAS[1]) / (1 - BETAS[1] ** state["step"])
    parameter.mul_(1 - group["lr"] * group["weight_decay"])
    parameter.addcdiv_(mean, square.sqrt_().add_(group["eps"]), value=-group["lr"])
