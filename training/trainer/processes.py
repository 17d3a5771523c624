"""One process, or several that train together: started by `accelerate launch` or torchrun, joined by Accelerate."""

import contextlib
import datetime
import os
from typing import Any

import torch
from torch import Tensor, nn


class Processes:
    """The processes of a run: this one's `rank` of `count`, its device, and what they do together.

    `alone`: this process does what the others have no part in.
    """

    def __init__(self, device: torch.device | str | None = None, alone: bool = False) -> None:
        together = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not alone
        self.accelerator = _accelerator(device) if together else None
        if self.accelerator is None:
            self.rank, self.count = 0, 1
            self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        else:
            self.rank, self.count = self.accelerator.process_index, self.accelerator.num_processes
            self.device = self.accelerator.device

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def share(self, module: nn.Module) -> nn.Module:
        """The module as it is called for training: all processes' gradients are averaged behind its backward pass."""
        return module if self.accelerator is None else self.accelerator.prepare(module)

    def backward(self, module: nn.Module, loss: Any, *, last: bool) -> Tensor:
        """Call `loss()` and go back through it; gradients are exchanged with the `last` call of a step alone."""
        apart = contextlib.nullcontext() if self.accelerator is None or last else self.accelerator.no_sync(module)
        with apart:
            value = loss()
            value.backward()
        return value.detach()

    def total(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        return value if self.accelerator is None else self.accelerator.reduce(value, "sum")

    def any(self, *flags: bool) -> list[bool]:
        """Which of the flags are up in any process: all get the same answer."""
        return [bool(count) for count in self.total(torch.tensor(flags, dtype=torch.float32, device=self.device))]

    def wait(self) -> None:
        """Until all have come here."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()


def _accelerator(device):
    try:
        import accelerate
    except ImportError as error:
        raise ValueError("several processes need the package accelerate: pip install accelerate") from error
    # Images pass no frame's neighbour, and LoRAs of one branch leave the rest: not every parameter is in every batch.
    unused = accelerate.DistributedDataParallelKwargs(find_unused_parameters=True)
    # The others wait while the first judges and shows samples; one that is gone is noticed at once all the same.
    patient = accelerate.InitProcessGroupKwargs(timeout=datetime.timedelta(hours=6))
    on_cpu = not torch.cuda.is_available() or str(device) == "cpu"
    # In which precision is computed is the configuration's to say, and not that of `accelerate config`.
    return accelerate.Accelerator(cpu=on_cpu, mixed_precision="no", kwargs_handlers=[unused, patient])
