"""What every training run shares: learning-rate schedule, weight averaging, checkpoints that resume, a log."""

import json
import math
import time
from pathlib import Path

import torch
import torch.distributed

from .muon import Muon


def cosine_with_warmup(step, steps, warmup=100):
    """Factor on the learning rate: a linear rise over `warmup` steps, then half a cosine down to 2%."""
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))


def rank():
    """Which of the processes of a distributed run this is; 0 where there is only one."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


class Run:
    """One resumable training run of one module.

    Keeps an exponential moving average of the weights, writes a JSON line every `log_every` steps and a checkpoint
    every `save_every`, and continues from the checkpoint in `folder` where there is one.
    """

    def __init__(
        self,
        folder,
        module,
        *,
        steps,
        learning_rate,
        matrix_rate=0.0,
        ema=0.999,
        weight_decay=0.0,
        log_every=25,
        save_every=500,
    ):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.module, self.steps, self.learning_rate, self.decay = module, steps, learning_rate, ema
        self.log_every, self.save_every = log_every, save_every
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimizers = self._optimizers(module, learning_rate, matrix_rate, weight_decay)
        self.rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        self.average = {key: value.detach().clone() for key, value in module.state_dict().items()}
        self.step, self.seconds, self.sums = 0, 0.0, {}
        self.checkpoint = self.folder / "checkpoint.pt"
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, weights_only=True)
            module.load_state_dict(state["module"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"]):
                optimizer.load_state_dict(saved)
            self.average, self.step, self.seconds = state["average"], state["step"], state["seconds"]
            torch.set_rng_state(state["rng"])

    @staticmethod
    def _optimizers(module, learning_rate, matrix_rate, weight_decay):
        """AdamW for everything, or with a `matrix_rate` Muon for the inner matrices and AdamW for the rest."""
        inner, rest = [], []
        for parameter in module.parameters():
            if parameter.requires_grad:
                inner_matrix = matrix_rate and parameter.ndim >= 2 and min(parameter.flatten(1).shape) >= 16
                (inner if inner_matrix else rest).append(parameter)
        optimizers = [torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, 0.99), weight_decay=weight_decay)]
        return optimizers + ([Muon(inner, lr=matrix_rate)] if inner else [])

    def __iter__(self):
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

    def update(self, loss, **numbers):
        """One optimiser step on `loss`; `numbers` are averaged into the log."""
        factor = cosine_with_warmup(self.step, self.steps)
        for optimizer, rates in zip(self.optimizers, self.rates):
            for group, rate in zip(optimizer.param_groups, rates):
                group["lr"] = rate * factor
        self.module.zero_grad(set_to_none=True)
        loss.backward()
        self._average_gradients()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for key, value in self.module.state_dict().items():
                self.average[key].lerp_(value, 1 - decay) if value.is_floating_point() else self.average[key].copy_(
                    value
                )
        for key, value in {"loss": loss.detach().item(), **numbers}.items():
            total, count = self.sums.get(key, (0.0, 0))
            self.sums[key] = (total + float(value), count + 1)

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

    def note(self, **entry):
        """Append one line to log.jsonl and print it."""
        line = json.dumps(entry)
        print(line, flush=True)
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(line + "\n")

    def save(self):
        """Write the checkpoint under a temporary name, then rename it."""
        state = {
            "module": self.module.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "average": self.average,
            "step": self.step,
            "seconds": self.seconds,
            "rng": torch.get_rng_state(),
        }
        temporary = self.checkpoint.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(self.checkpoint)
