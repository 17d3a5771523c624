"""A run of small_runs.py in a process of its own, which may die at a moment: `python small_run.py '{"folder": …}'`."""

import importlib.util
import json
import math
import os
import signal
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]


def find_package():
    """What conftest.py does for tests."""
    location = importlib.util.spec_from_file_location(
        "opensora_comfy", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    sys.modules["opensora_comfy"] = importlib.util.module_from_spec(location)
    sys.path.insert(0, str(Path(__file__).parent))


def die():
    """At once, as a machine does that is switched off."""
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def die_in_forward(module, calls):
    """In the midst of the network's n-th call."""
    left = [calls]

    def hook(*_):
        left[0] -= 1
        if not left[0]:
            die()

    module.register_forward_hook(hook)


def die_in_save(number):
    """With half of the n-th checkpoint written."""
    whole, left = torch.save, [number]

    def save(state, path, **options):
        whole(state, path, **options)
        left[0] -= isinstance(path, Path)  # tensors on their way between processes are saved, too
        if not left[0] and isinstance(path, Path):
            content = Path(path).read_bytes()
            Path(path).write_bytes(content[: len(content) // 2])
            die()

    torch.save = save


def spoil(module):
    """From here on its loss is no number."""
    module.final_layer.linear.weight.data.fill_(math.nan)


def main(options):
    """A run of mixed clips in `folder`, with the cache in `cache`; `die` at a moment; prints what it says.

    `processes`: as the launcher's environment says, the first of them writes the weights to `folder`/weights.pt.
    """
    from opensora_comfy.training.trainer.processes import Processes
    from small_runs import MIXED, clip, mixed_clips, objective, prepared, trainer

    torch.set_num_threads(1)
    held = [clip(20), clip(21)]
    usual = {"die": {}, "train": {}, "saving": {}, "way": "buckets", "buckets": MIXED, "validate": True}
    options = {**usual, "double": False, **options}
    buckets = {size: {int(length): count for length, count in of.items()} for size, of in options["buckets"].items()}
    examples = prepared(options["cache"], mixed_clips(), buckets, way=options["way"], seed=3)
    validation = prepared(options["cache"], held, buckets, way=options["way"]) if options["validate"] else None
    moments = options["die"]
    running = trainer(
        options["folder"], examples, validation=validation, processes=Processes("cpu"), train=options["train"],
        saving=options["saving"], double=options["double"], objective=objective(way=options["way"]), say=lambda words: print(words, flush=True),
        on_step=lambda entry: die() if entry["step"] == moments.get("step") and "loss" in entry else None,
    )  # fmt: skip
    if "forward" in moments:
        die_in_forward(running.network, moments["forward"])
    if "save" in moments:
        die_in_save(moments["save"])
    if "rank" in moments and running.processes.rank == moments["rank"]:
        running.on_step = lambda entry: die() if entry["step"] == moments["at"] else None
    if "nan" in moments:
        running.on_step = lambda entry: spoil(running.network) if entry["step"] == moments["nan"] else None
    running.run()
    if running.processes.first:
        torch.save(
            {name: value.detach() for name, value in running.parameters.items()}, f"{options['folder']}/weights.pt"
        )
    running.processes.part()


if __name__ == "__main__":
    find_package()
    main(json.loads(sys.argv[1]))
