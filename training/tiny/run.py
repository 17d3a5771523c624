"""What every training run shares: steps, weight averaging, checkpoints that resume, a log."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
import torch.distributed
from torch.optim.swa_utils import AveragedModel

from ..optimizers import optimizers_for, rise_and_fall

Module = TypeVar("Module", bound=torch.nn.Module)


def rank() -> int:
    """Which of the processes of a distributed run this is; 0 where there is only one."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def _moving_average(most):
    """For AveragedModel: an exponential moving average whose decay begins low and rises to `most`."""
    return lambda average, value, steps: average.lerp(value, 1 - min(most, (1 + int(steps)) / (10 + int(steps))))


class Run(Generic[Module]):
    """One resumable training run of one module.

    Keeps an exponential moving average of the weights, writes a JSON line every `log_every` steps and a checkpoint
    every `save_every`, and continues from the checkpoint in `folder` where there is one.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        module: Module,
        *,
        steps: int,
        learning_rate: float,
        matrix_rate: float = 0.0,
        ema: float = 0.999,
        weight_decay: float = 0.0,
        log_every: int = 25,
        save_every: int = 500,
    ) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.module, self.steps = module, steps
        self.log_every, self.save_every = log_every, save_every
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimizers = optimizers_for(module, learning_rate, matrix_rate, weight_decay)
        self.schedules: list[Any] = [rise_and_fall(optimizer, steps) for optimizer in self.optimizers]
        self.averaged = AveragedModel(module, avg_fn=_moving_average(ema), use_buffers=True)
        self.step, self.seconds = 0, 0.0
        self.sums: dict[str, tuple[float, int]] = {}
        self.checkpoint = self.folder / "checkpoint.pt"
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, weights_only=True)
            module.load_state_dict(state["module"])
            self.averaged.load_state_dict(state["averaged"])
            for part, saved in zip([*self.optimizers, *self.schedules], [*state["optimizers"], *state["schedules"]]):
                part.load_state_dict(saved)
            self.step, self.seconds = state["step"], state["seconds"]
            torch.set_rng_state(state["rng"])

    def __iter__(self) -> Iterator[int]:
        """Yield step numbers; the caller computes a loss and hands it to `update`."""
        started = time.monotonic() - self.seconds
        while self.step < self.steps:
            yield self.step
            self.step += 1
            self.seconds = time.monotonic() - started
            if rank() == 0 and self.step % self.log_every == 0:
                self._log()
            if rank() == 0 and (self.step % self.save_every == 0 or self.step == self.steps):
                self.save()

    def update(self, loss: torch.Tensor, **numbers: float | torch.Tensor) -> None:
        """One optimiser step on `loss`; `numbers` are averaged into the log."""
        self.module.zero_grad(set_to_none=True)
        loss.backward()
        self._average_gradients()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for part in (*self.optimizers, *self.schedules):
            part.step()
        self.averaged.update_parameters(self.module)
        for key, value in {"loss": loss.detach().item(), **numbers}.items():
            total, count = self.sums.get(key, (0.0, 0))
            self.sums[key] = (total + float(value), count + 1)

    def settle(self) -> Module:
        """The module, now with its averaged weights."""
        self.module.load_state_dict(self.averaged.module.state_dict())
        return self.module

    def _average_gradients(self):
        """With several processes (torchrun), each works on a batch of its own and all step by the mean gradient."""
        if not torch.distributed.is_initialized():
            return
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        flat /= torch.distributed.get_world_size()
        for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients])):
            gradient.copy_(mean.view_as(gradient))

    def _log(self):
        means = {key: round(total / count, 5) for key, (total, count) in self.sums.items()}
        self.note(step=self.step, seconds=round(self.seconds, 1), **means)
        self.sums = {}

    def note(self, **entry: object) -> None:
        """Append one line to log.jsonl and print it."""
        line = json.dumps(entry)
        print(line, flush=True)
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(line + "\n")

    def save(self) -> None:
        """Write the checkpoint under a temporary name, then rename it."""
        state = {
            "module": self.module.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedules": [schedule.state_dict() for schedule in self.schedules],
            "averaged": self.averaged.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "rng": torch.get_rng_state(),
        }
        temporary = self.checkpoint.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(self.checkpoint)
