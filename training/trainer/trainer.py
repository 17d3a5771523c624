"""The trainer: steps over a data set, validation by noise band, samples while it runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from .. import checkpoints
from ..config import SaveConfig, TrainConfig
from ..objective import Drawn, Objective
from .judging import judged
from .learner import Loss, learner_of, says_what_fits
from .run import Run
from .steps import Draws, Schedule, Source, Step
from .trial import try_step


class Trainer(Run):
    """Trains the parameters of a network that require gradients, on examples whose encodings are cached.

    Args:
        network: a transformer of model/, perhaps with LoRA layers; its parameters that learn are fp32.
        examples: what it learns; `validation`: what it is judged by, of other files, perhaps empty.
        objective: what is drawn and which loss.
        settings, saving: how weights move, and what is kept where.
        budget: tokens of a batch for each process, of padding and packing; 0: those of the largest bucket.
        sample: called with (network, step) where a sample is due, with the averaged weights in place.
        loss: of each example of a batch, of distillation, say; None: the objective's own.
        options: about, processes, on_step, asked and say, as `Run` takes them.
    """

    def __init__(
        self,
        network: nn.Module,
        examples: Source,
        objective: Objective,
        settings: TrainConfig,
        saving: SaveConfig,
        *,
        validation: Source | None = None,
        budget: int = 0,
        sample: Callable[[nn.Module, int], Any] | None = None,
        loss: Loss | None = None,
        **options: Any,
    ) -> None:
        if not len(examples):
            raise ValueError("the data set has no clip that can be used; see the list of what is left out and why")
        super().__init__(network, settings, saving, **options)
        self.examples, self.validation, self.objective, self.sample = examples, validation, objective, sample
        self.learner = learner_of(network, objective, settings, loss)
        self.shared = self.processes.share(self.learner)
        null_caption: Tensor = network.null_caption.detach().float().cpu()  # type: ignore[union-attr,operator]
        self.draws = Draws(examples, objective, null_caption, settings.seed)
        self.schedule = Schedule(
            self.draws, rank=self.processes.rank, ranks=self.processes.count, accumulate=settings.accumulate,
            budget=budget, workers=settings.workers,
        )  # fmt: skip

    # Steps

    def begin(self) -> None:
        """Try the largest batch, and judge where no judgement is there yet."""
        if not self.finished:
            self.try_largest()
        if self._judgement_is_missing():
            self.judge()

    def steps(self) -> Iterator[tuple[Step, list[list[Drawn]]]]:
        """Steps with their batches, drawn."""
        return self.schedule.read(self.place, self.settings.steps - self.step)

    def update(self, step: Step, batches: list[list[Drawn]]) -> dict[str, Any]:  # type: ignore[override]
        """One step of the optimiser on the mean loss of all its examples; returns the line of the log."""
        entry = super().update(step, batches)
        self.place = step.then
        return entry

    def backward(self, step: Step, batches: list[list[Drawn]]) -> tuple[float, dict[str, Any]]:  # type: ignore[override]
        """Gradients of the mean loss over the whole step, all processes' examples."""
        total = torch.zeros((), device=self.processes.device)
        idle = not batches  # a process without an example goes the same way with one that counts nothing
        for index, batch in enumerate(batches or [self.draws.of(Step(step.epoch, [[0]], 1, step.then))[0]]):
            weight = 0.0 if idle else self.processes.count / step.count

            def mean(batch: list[Drawn] = batch, weight: float = weight) -> Tensor:
                return self.shared(batch).sum() * weight

            with says_what_fits(batch, self.settings):
                value = self.processes.backward(self.shared, mean, last=index + 1 >= len(batches))
            total += value / self.processes.count
        return float(self.processes.total(total)), {"epoch": step.epoch, "count": step.count}

    def culprits(self, step: Step, batches: list[list[Drawn]]) -> str:  # type: ignore[override]
        """The clips of a step, of all processes."""
        own = [self.examples.name(index) for batch in step.batches for index in batch]
        return f"; the clips were {', '.join(self.processes.gather(own))}"

    # Memory

    def try_largest(self) -> float:
        """One step on the batch with the most tokens, before the first, of which nothing is kept; returns seconds.

        So what does not fit is known at once, and not at step 900.
        """
        seconds = math.nan
        with self.until_asked():
            there = bool(self.optimizer.state)  # a run that goes on has it already
            seconds = try_step(self.learner, self.schedule.largest(), self.settings, optimizer_is_there=there)
        self.processes.wait()
        return seconds

    # Judging

    def look(self, last: bool) -> None:
        """Judge, and show samples, where they are due."""
        if last or self.step % self.saving.validate_every == 0:
            self.judge()
        every = self.saving.sample_every
        if self.sample and every and self.processes.first and (self.finished or self.step % every == 0):
            with self.until_asked(), self.averaged(), torch.no_grad():
                self.sample(self.network, self.step)

    def judge(self) -> None:
        """Validation: the loss of files that are not trained on, by noise band; the best weights so far are kept.

        Asked to stop, it leaves all as it was.
        """
        if not self.validation or not self.processes.first:
            return
        with self.until_asked():
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

    def result(self) -> None:
        """Put the best weights that validation found into the network; without validation the averaged ones."""
        path = self.folder / "best.safetensors"
        if self.best and path.exists():
            self._put(safetensors.torch.load_file(path))
        else:
            super().result()
