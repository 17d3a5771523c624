"""One process, or several that train together: started by a launcher, joined by Accelerate."""

import contextlib
import datetime
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")  # torchrun's, then those of MPIs

SHARDED = ("FSDP", "DEEPSPEED", "MEGATRON_LM")


def started(environment: Mapping[str, str]) -> int:
    """How many processes a launcher says that it has started; 1 without one.

    Raises ValueError for `accelerate launch --cpu`, which without MPI starts one, however many are asked for.
    """
    counts = [int(environment[name]) for name in COUNTS if environment.get(name, "").isdigit()]
    # Accelerate gives an address to meet at where more than one was asked for.
    if not counts and environment.get("ACCELERATE_USE_CPU") == "True" and "MASTER_ADDR" in environment:
        raise ValueError(
            "accelerate launch --cpu has started one process, however many --num_processes asks for; "
            "accelerate launch --multi_gpu starts them all, on the CPU too where there is no graphics card"
        )
    return counts[0] if counts else 1


class Processes:
    """The processes of a run: this one's `rank` of `count`, its device, and what they do together.

    `alone`: this process does what the others have no part in. Raises ValueError where several were started and cannot
    work together.
    """

    def __init__(self, device: torch.device | str | None = None, alone: bool = False) -> None:
        count = 1 if alone else started(os.environ)
        self.accelerator = _accelerator(device, count) if count > 1 else None
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

    def gather(self, values: list[Any]) -> list[Any]:
        """The values of all processes, in the order of their ranks; all get the same."""
        if self.accelerator is None:
            return values
        from accelerate.utils import gather_object

        return gather_object(values)

    def wait(self) -> None:
        """Until all have come here."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()

    def part(self) -> None:
        """`wait`, then end what joins them: a process that leaves it to its own end is aborted there now and then."""
        self.wait()
        if self.accelerator is not None:
            torch.distributed.destroy_process_group()


def _accelerator(device, count):
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
    found = accelerate.Accelerator(cpu=on_cpu, mixed_precision="no", kwargs_handlers=[unused, patient])
    if found.num_processes != count:
        raise ValueError(
            f"{count} processes were started, and this one has found {found.num_processes}: all would write the same "
            "run; start them by accelerate launch or torchrun"
        )
    kind = str(found.distributed_type).rpartition(".")[2]
    if kind in SHARDED:
        raise ValueError(
            f"accelerate is set to {kind}, which cuts weights apart; here each process keeps them whole: launch with "
            "--multi_gpu. Where memory is short, kind lora, gradient_checkpointing or precision bf16 helps"
        )
    return found
