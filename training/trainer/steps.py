"""The steps of a run: which examples come when, and their draws, read here or by workers."""

from __future__ import annotations

import pickle
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..data.examples import Example
from ..objective import Drawn, Objective, draw


@dataclass(frozen=True)
class Place:
    """Where a run is: the epoch, and how many of its examples are done."""

    epoch: int = 0
    seen: int = 0


@dataclass(frozen=True)
class Step:
    """One optimiser step of this process: its batches of examples, how many the whole step has, and what comes next."""

    epoch: int
    batches: list[list[int]]
    count: int
    then: Place


class Source(Protocol):
    """What a trainer learns from, by index; `data.examples.Examples` of files is one."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What an example is called in messages."""

    def steps(self, number: int, **options: Any) -> list[list[list[list[int]]]]:
        """The steps of epoch `number`, as `data.batches.epoch` gives them and with its options."""

    def read(self, index: int, number: int) -> Example:
        """An example as it is in epoch `number`, which follows from the two alone."""

    def middle(self, index: int) -> Example:
        """An example as validation looks at it."""

    def read_largest(self, budget: int) -> list[Example]:
        """What a process may have to compute at once at most."""


class Draws(Dataset):
    """Steps to their examples as they are drawn: read by this process, or by workers of its own."""

    def __init__(self, examples: Source, objective: Objective, null_caption: Tensor, seed: int) -> None:
        self.examples, self.objective, self.null_caption, self.seed = examples, objective, null_caption, seed

    def __getitem__(self, step: Step) -> tuple[Step, list[list[Drawn]]]:
        return step, self.of(step)

    def of(self, step: Step) -> list[list[Drawn]]:
        """The batches of a step."""
        return [
            self.drawn([self.examples.read(index, step.epoch) for index in batch], step.epoch) for batch in step.batches
        ]

    def drawn(self, batch: list[Example], epoch: int) -> list[Drawn]:
        """The examples of a batch with their draws of an epoch."""
        return [
            draw(each, self.objective, self.null_caption, seed=self.seed, epoch=epoch, place=(place, len(batch)))
            for place, each in enumerate(batch)
        ]


def _leave_interrupts(worker):
    """Ctrl-C reaches all processes of a terminal; the one that trains decides what comes of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Schedule:
    """The steps of one of `ranks` processes, epoch after epoch.

    Args:
        draws: of which examples.
        accumulate, budget: as `batches.epoch`.
        workers: processes that read ahead; 0 reads in this one.
    """

    def __init__(
        self, draws: Draws, *, rank: int = 0, ranks: int = 1, accumulate: int = 1, budget: int = 0, workers: int = 0
    ) -> None:
        self.draws, self.rank, self.ranks, self.workers = draws, rank, ranks, workers
        self.options = {"accumulate": accumulate, "budget": budget}

    def read(self, place: Place, count: int) -> Iterator[tuple[Step, list[list[Drawn]]]]:
        """`count` steps from `place` on, each with its batches drawn."""
        steps = self.steps(place, count)
        if not self.workers:
            yield from (self.draws[step] for step in steps)
            return
        read = DataLoader(
            self.draws,
            sampler=steps,  # type: ignore[arg-type]
            batch_size=None,
            num_workers=self.workers,
            collate_fn=pickle.dumps,  # by value: PyTorch would open a file of shared memory for each of many tensors
            worker_init_fn=_leave_interrupts,
        )
        yield from map(pickle.loads, read)

    def steps(self, place: Place, count: int) -> Iterator[Step]:
        """`count` steps from `place` on, of this process."""
        epoch, remaining = place.epoch, self._remaining(place)
        while count > 0:
            if not remaining:
                epoch, remaining = epoch + 1, self._remaining(Place(epoch + 1))
            for seen, batches in remaining[:count]:
                total = _count(batches)
                yield Step(
                    epoch,
                    [batch[self.rank] for batch in batches if batch[self.rank]],
                    total,
                    Place(epoch, seen + total),
                )
            count -= len(remaining)
            remaining = []

    def _remaining(self, place):
        """[(examples seen before, batches)] of an epoch's steps that are not done.

        Where batches were others before, the count of examples says where to go on.
        """
        seen, found = 0, []
        for batches in self.draws.examples.steps(place.epoch, ranks=self.ranks, **self.options):
            if seen >= place.seen:
                found.append((seen, batches))
            seen += _count(batches)
        return found

    def largest(self) -> list[Drawn]:
        """The batch of a process that has the most tokens of all that any epoch may bring."""
        return self.draws.drawn(self.draws.examples.read_largest(self.options["budget"]), 0)


def _count(batches):
    return sum(len(part) for batch in batches for part in batch)
