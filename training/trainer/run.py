"""What every run of training shares: steps of the weights, their average, checkpoints that resume, a log."""

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

import torch
from torch import nn

from .. import checkpoints
from ..config import SaveConfig, TrainConfig
from ..optimizers import ema_decay_at, ema_update_of, optimizer_of, rate_at
from .processes import Processes
from .resuming import restore, state_of
from .steps import Place
from .stopping import Stopped, stoppable


class Run:
    """Moves the parameters of a network that require gradients, step by step, until it is done or is stopped.

    What a step is made of says a subclass: `steps` and `backward`; `begin` and `look` are its own to fill, too.

    Args:
        network: what learns; its parameters that do are fp32.
        settings, saving: how weights move, and what is kept where.
        about: what the checkpoint must agree with when it is resumed: name → value, for the message.
        on_step: called with each log line; returns True to stop, which saves first.
        asked: whether someone wants it to stop, for what `until_asked` holds: what takes longer than a step.
        say: where messages go.
    """

    def __init__(
        self,
        network: nn.Module,
        settings: TrainConfig,
        saving: SaveConfig,
        *,
        about: dict[str, Any] | None = None,
        processes: Processes | None = None,
        on_step: Callable[[dict[str, Any]], bool | None] = lambda entry: None,
        asked: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = print,
    ) -> None:
        self.settings, self.saving, self.about = settings, saving, about or {}
        self.on_step, self.asked = on_step, asked
        self.processes = processes or Processes("cpu")
        self.say = say if self.processes.first else lambda words: None
        self.folder = Path(saving.folder)
        self.network = network.to(self.processes.device)
        self.parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.optimizer = optimizer_of(
            settings.optimizer,
            list(self.parameters.values()),
            settings.learning_rate,
            muon_rate=settings.muon_rate,
            weight_decay=settings.weight_decay,
            eps=settings.eps,
        )
        for group in self.optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()} if settings.ema else {}
        self.step, self.place, self.seconds = 0, Place(), 0.0
        self.best: dict[str, float] = {}
        self.memory: dict[str, Any] = {}
        self.log = checkpoints.Log(self.folder)
        self.stopping, self.signals = False, 0

    # What a subclass says

    def begin(self) -> None:
        """Before the first step of this process."""

    def steps(self) -> Iterator[tuple[Any, ...]]:
        """From where the run is, to the end: what `update` takes for each step."""
        raise NotImplementedError

    def backward(self, *given: Any) -> tuple[float, dict[str, Any]]:
        """Go back through the loss of a step: (its value, what else the log is to know)."""
        raise NotImplementedError

    def look(self, last: bool) -> None:
        """Behind a step, before it is saved; `last`: the run ends here, `finished` or not."""

    def culprits(self, *given: Any) -> str:
        """What a step was made of, for the message where its loss is no number."""
        return ""

    # A run, from beginning to end

    def run(self) -> dict[str, float]:
        """Train to the last step, or until someone stops it; returns {"step", "loss"} of the best weights.

        Goes on from the newest whole checkpoint in the folder. Raises ValueError where the loss is no number, where
        memory does not suffice, and where the checkpoint belongs to another model or data set.
        """
        with self._signals():
            self.resume()
            self.begin()
            (stopped,) = self.processes.any(self.stopping)
            if not stopped:
                self._go_on()
        return self.best or {"step": self.step, "loss": math.nan}

    def _go_on(self):
        started, minutes = time.monotonic() - self.seconds, checkpoints.Minutes(self.saving.every_minutes)
        for given in self.steps():
            entry = self.update(*given)
            self.seconds = time.monotonic() - started
            if self.processes.first:
                entry = self.log.add(**entry, seconds=round(self.seconds, 2))
            if self.on_step(entry):  # not |=, which would forget a signal that comes meanwhile
                self.stopping = True
            stop, due = self.processes.any(self.stopping, minutes.due())  # clocks differ, what all do must not
            last = stop or self.finished
            if stop:  # at once: who asks for it may not wait for more than a step
                self.save()
            self.look(last)
            (asked,) = self.processes.any(self.stopping)  # meanwhile
            last = last or asked
            if last or due or self.step % self.saving.every_steps == 0:
                self.save()
            if last:
                break

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.settings.steps

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
    def until_asked(self) -> Iterator[None]:
        """Inside, the network's blocks look whether someone wants it to stop; then the rest is left out."""
        before = self.signals
        try:
            with stoppable(self.network, lambda: self.signals > before or self.asked()):
                yield
        except Stopped:
            self.stopping = True

    def update(self, *given: Any) -> dict[str, Any]:
        """One step of the optimiser on what `steps` gives; returns the line of the log."""
        settings = self.settings
        rise = rate_at(self.step, 1.0, warmup=settings.warmup, steps=settings.steps, schedule=settings.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = rise * group["initial_lr"]
        value, told = self.backward(*given)
        norm = float(nn.utils.clip_grad_norm_(list(self.parameters.values()), settings.clip or math.inf))
        if not (math.isfinite(value) and math.isfinite(norm)):
            self._refuse_nan(value, self.culprits(*given))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            decay = ema_decay_at(self.step, settings.ema, warmup=settings.ema_warmup)
            ema_update_of(self.average, self.parameters, decay)
        self.step += 1
        return {"step": self.step, "loss": value, "norm": norm, "rate": rise * settings.learning_rate, **told}

    def _refuse_nan(self, value, culprits):
        raise ValueError(
            f"step {self.step + 1}: the loss is {value}, not a number{culprits}. Nothing of this step is "
            f"kept. learning_rate is {self.settings.learning_rate:g}; a tenth of it, or precision fp32, usually helps"
        )

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """The averaged weights in place of those that learn."""
        kept = {name: self.parameters[name].detach().clone() for name in self.average}
        self._put(self.average)
        try:
            yield
        finally:
            self._put(kept)

    def result(self) -> None:
        """Put the averaged weights into the network."""
        self._put(self.average)

    @torch.no_grad()
    def _put(self, weights):
        for name, value in weights.items():
            self.parameters[name].copy_(value)

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
