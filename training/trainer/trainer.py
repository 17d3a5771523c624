"""The trainer: steps over a data set, validation by noise band, checkpoints that resume, samples while it runs."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from .. import checkpoints
from ..config import SaveConfig, TrainConfig
from ..data.examples import Examples
from ..objective import Drawn, Objective
from ..optimizers import MEMORY, ema_update_of, optimizer_of, rate_at
from .judging import judged
from .learner import learner_of, says_what_fits
from .processes import Processes
from .resuming import restore, state_of
from .steps import Draws, Place, Schedule, Step
from .stopping import Stopped, stoppable


class Trainer:
    """Trains the parameters of a network that require gradients, on examples whose encodings are cached.

    Args:
        network: a transformer of model/, perhaps with LoRA layers; its parameters that learn are fp32.
        examples: what it learns; `validation`: what it is judged by, of other files, perhaps empty.
        objective: what is drawn and which loss.
        settings, saving: how weights move, and what is kept where.
        about: what the checkpoint must agree with when it is resumed: name → value, for the message.
        budget: tokens of a batch for each process, of padding and packing; 0: those of the largest bucket.
        sample: called with (network, step) where a sample is due, with the averaged weights in place.
        on_step: called with each log line; returns True to stop, which saves first.
        asked: whether someone wants it to stop, for what takes longer than a step: the first trial and validation.
        say: where messages go.
    """

    def __init__(
        self,
        network: nn.Module,
        examples: Examples,
        objective: Objective,
        settings: TrainConfig,
        saving: SaveConfig,
        *,
        validation: Examples | None = None,
        about: dict[str, Any] | None = None,
        budget: int = 0,
        processes: Processes | None = None,
        sample: Callable[[nn.Module, int], Any] | None = None,
        on_step: Callable[[dict[str, Any]], bool | None] = lambda entry: None,
        asked: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = print,
    ) -> None:
        self.network, self.examples, self.validation, self.objective = network, examples, validation, objective
        self.settings, self.saving, self.about = settings, saving, about or {}
        self.processes = processes or Processes("cpu")
        self.sample, self.on_step, self.asked = sample, on_step, asked
        self.say = say if self.processes.first else lambda words: None
        self.folder = Path(saving.folder)
        if not len(examples):
            raise ValueError("the data set has no clip that can be used; see the list of what is left out and why")
        self.parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.learner = learner_of(network.to(self.processes.device), objective, settings)
        self.shared = self.processes.share(self.learner)
        self.optimizer = optimizer_of(
            settings.optimizer,
            list(self.parameters.values()),
            settings.learning_rate,
            weight_decay=settings.weight_decay,
            eps=settings.eps,
        )
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()} if settings.ema else {}
        self.step, self.place, self.seconds = 0, Place(), 0.0
        self.best: dict[str, float] = {}
        self.log = checkpoints.Log(self.folder)
        self.stopping, self.signals = False, 0
        null_caption: Tensor = network.null_caption.detach().float().cpu()  # type: ignore[union-attr,operator]
        self.draws = Draws(examples, objective, null_caption, settings.seed)
        self.schedule = Schedule(
            self.draws, rank=self.processes.rank, ranks=self.processes.count, accumulate=settings.accumulate,
            budget=budget, workers=settings.workers,
        )  # fmt: skip

    # A run, from beginning to end

    def run(self) -> dict[str, float]:
        """Train to the last step, or until someone stops it; returns {"step", "loss"} of the best weights.

        Goes on from the newest whole checkpoint in the folder. Raises ValueError where the loss is no number, where
        memory does not suffice, and where the checkpoint belongs to another model or data set.
        """
        with self._signals():
            self.resume()
            if self.step < self.settings.steps:
                self.try_largest()
            if self._judgement_is_missing():
                self.judge()
            (stopped,) = self.processes.any(self.stopping)
            if not stopped:
                self._go_on()
        return self.best or {"step": self.step, "loss": math.nan}

    def _go_on(self):
        started, minutes = time.monotonic() - self.seconds, checkpoints.Minutes(self.saving.every_minutes)
        for step, batches in self.schedule.read(self.place, self.settings.steps - self.step):
            entry = self.update(step, batches)
            self.seconds = time.monotonic() - started
            if self.processes.first:
                entry = self.log.add(**entry, seconds=round(self.seconds, 2))
            if self.on_step(entry):  # not |=, which would forget a signal that comes meanwhile
                self.stopping = True
            stop, due = self.processes.any(self.stopping, minutes.due())  # clocks differ, what all do must not
            finished = self.step >= self.settings.steps
            last = stop or finished
            if stop:  # at once: who asks for it may not wait for more than a step
                self.save()
            if last or self.step % self.saving.validate_every == 0:
                self.judge()
                (asked,) = self.processes.any(self.stopping)  # meanwhile
                last = last or asked
            if self._sample_due(finished):
                self._show()
            if last or due or self.step % self.saving.every_steps == 0:
                self.save()
            if last:
                break

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and a cluster's request to end stop the run behind the step that is going on.

        What is learned is judged once more; asked again meanwhile, it is left out.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: Any) -> None:
            self.stopping, self.signals = True, self.signals + 1
            self.say("stopping behind this step; what is learned is saved")

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def _until_asked(self) -> Iterator[None]:
        """Inside, the network's blocks look whether someone wants it to stop; then the rest is left out."""
        before = self.signals
        try:
            with stoppable(self.network, lambda: self.signals > before or self.asked()):
                yield
        except Stopped:
            self.stopping = True

    # Steps

    def update(self, step: Step, batches: list[list[Drawn]]) -> dict[str, Any]:
        """One optimiser step on the mean loss of all its examples; returns the line of the log."""
        rate = rate_at(
            self.step, self.settings.learning_rate, warmup=self.settings.warmup, steps=self.settings.steps,
            schedule=self.settings.schedule,
        )  # fmt: skip
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        losses = self._backward(step, batches)
        value = float(self.processes.total(losses) / step.count)
        norm = float(nn.utils.clip_grad_norm_(list(self.parameters.values()), self.settings.clip or math.inf))
        if not (math.isfinite(value) and math.isfinite(norm)):
            self._refuse_nan(step, value)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            ema_update_of(self.average, self.parameters, self.settings.ema)
        self.step, self.place = self.step + 1, step.then
        return {"step": self.step, "epoch": step.epoch, "loss": value, "norm": norm, "rate": rate, "count": step.count}

    def _backward(self, step, batches):
        """The sum of this process's losses; gradients are those of the mean over the whole step."""
        total = torch.zeros((), device=self.processes.device)
        idle = not batches  # a process without an example goes the same way with one that counts nothing
        for index, batch in enumerate(batches or [self.draws.of(Step(step.epoch, [[0]], 1, step.then))[0]]):
            weight = 0.0 if idle else self.processes.count / step.count

            def mean(batch: list[Drawn] = batch, weight: float = weight) -> Tensor:
                return self.shared(batch).sum() * weight

            with says_what_fits(batch, self.settings):
                value = self.processes.backward(self.shared, mean, last=index + 1 >= len(batches))
            total += value * (step.count / self.processes.count)
        return total

    def _refuse_nan(self, step, value):
        own = [self.examples.clips[index].path for batch in step.batches for index in batch]
        clips = ", ".join(self.processes.gather(own))
        raise ValueError(
            f"step {self.step + 1}: the loss is {value}, not a number; the clips were {clips}. Nothing of this step is "
            f"kept. learning_rate is {self.settings.learning_rate:g}; a tenth of it, or precision fp32, usually helps"
        )

    # Memory

    def try_largest(self) -> float:
        """One step on the batch with the most tokens, before the first, of which nothing is kept; returns seconds.

        So what does not fit is known at once, and not at step 900.
        """
        batch = self.schedule.largest()
        started = time.monotonic()
        with self._until_asked(), says_what_fits(batch, self.settings):
            kept = torch.empty(self._numbers_yet_to_come(), device=self.processes.device)
            self.learner(batch).sum().backward()
            del kept
        self.optimizer.zero_grad(set_to_none=True)
        self.processes.wait()
        return time.monotonic() - started

    def _numbers_yet_to_come(self):
        """Of the optimiser, and of gradients that wait for further batches: there from the second batch on."""
        of_a_weight = 0.0 if self.optimizer.state else MEMORY[self.settings.optimizer]
        return round((of_a_weight + (self.settings.accumulate > 1)) * sum(p.numel() for p in self.parameters.values()))

    # Judging

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """The averaged weights in place of those that learn."""
        kept = {name: self.parameters[name].detach().clone() for name in self.average}
        with torch.no_grad():
            for name, mean in self.average.items():
                self.parameters[name].copy_(mean)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in kept.items():
                    self.parameters[name].copy_(value)

    def judge(self) -> None:
        """Validation: the loss of files that are not trained on, by noise band; the best weights so far are kept.

        Asked to stop, it leaves all as it was.
        """
        if not self.validation or not self.processes.first:
            return
        with self._until_asked():
            with self.averaged():
                found = judged(self.learner, self.validation)
            self.log.add(step=self.step, **found)
            self.on_step({"step": self.step, **found})
            if found["validation"] < self.best.get("loss", math.inf):
                self.best = {"step": self.step, "loss": found["validation"]}
                self._keep_best()

    def _judgement_is_missing(self):
        """Before the first step there is none yet; a run that was stopped in one goes on with it."""
        due = self.step % self.saving.validate_every == 0 or self.step >= self.settings.steps
        done = any(line["step"] == self.step for line in self.log.entries() if "validation" in line)
        return due and not done

    def _keep_best(self):
        weights = {name: value.cpu().contiguous() for name, value in (self.average or self.parameters).items()}
        weights = {name: value.detach() for name, value in weights.items()}
        about = {"step": str(self.best["step"]), "loss": str(self.best["loss"])}
        checkpoints.write(
            self.folder / "best.safetensors", lambda path: safetensors.torch.save_file(weights, path, metadata=about)
        )

    def _sample_due(self, finished):
        every = self.saving.sample_every
        return self.sample is not None and bool(every) and self.processes.first and (finished or self.step % every == 0)

    @torch.no_grad()
    def _show(self):
        with self.averaged():
            self.sample(self.network, self.step)

    # Checkpoints

    def save(self) -> None:
        """Write where the run is; the first process does it, all wait."""
        if self.processes.first:
            checkpoints.save(self.folder, self.step, state_of(self), self.saving.keep)
        self.processes.wait()

    def resume(self) -> None:
        """Go on from the newest whole checkpoint, where there is one; the log forgets what came behind it."""
        if self.processes.first:
            checkpoints.clear(self.folder)
        state = checkpoints.newest(self.folder, self.say)
        if state is not None:
            restore(self, state)
            self.say(f"going on from step {self.step}")
        if self.processes.first:
            self.log.rewind(self.step if state else -1)
            checkpoints.write(
                self.folder / "about.json", lambda path: path.write_text(json.dumps(self.about, indent=1))
            )
        self.processes.wait()

    def result(self) -> None:
        """Put the best weights that validation found into the network; without validation the averaged ones."""
        path = self.folder / "best.safetensors"
        weights = safetensors.torch.load_file(path) if self.best and path.exists() else self.average
        with torch.no_grad():
            for name, value in weights.items():
                self.parameters[name].copy_(value)
