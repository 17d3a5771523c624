"""A run of small_run.py, and the same killed again and again: `python killed_runs.py FOLDER KILLS SEED`.

FOLDER/whole is the run that nobody disturbs, FOLDER/1, FOLDER/2 … those that came to their end between the kills.
"""

import importlib
import multiprocessing
import os
import random
import sys
import time
from pathlib import Path

import small_run

# Forked, a run begins with its first clip: importing PyTorch would be most of it.
PROCESSES = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")
STEPS, WORKERS = 12, (0, 0, 1, 2)


def attempt(folder, seconds, workers):
    """Begin a run, or go on with it, for so many seconds: whether it has come to its end."""
    options = {"folder": str(folder / "run"), "cache": str(folder / "cache")}
    options["saving"] = {"every_steps": 1, "validate_every": 6}
    options["train"] = {"steps": STEPS, "workers": workers}
    running = PROCESSES.Process(target=small_run.main, args=(options,))
    running.start()
    running.join(seconds)
    if running.is_alive():
        running.kill()
        running.join()
        return False
    assert running.exitcode == 0
    return True


def main(folder, kills, seed):
    """Moments are of the clock, over the whole run: the encoding of clips, the trial, steps, validation, saving."""
    for name in ("small_runs", "torch._dynamo"):  # the second by every optimiser
        importlib.import_module(name)

    rng, began = random.Random(seed), time.monotonic()
    assert attempt(folder / "whole", None, 0)
    length = time.monotonic() - began
    print(f"{length:.2f} s")
    number, over = 1, False
    while kills or not over:
        moment = rng.uniform(0, length) if kills else None
        over = attempt(folder / f"{number}", moment, rng.choice(WORKERS))
        print("at its end" if over else f"killed after {moment:.2f} s", flush=True)
        number, kills = number + over, kills - (not over)


if __name__ == "__main__":
    small_run.find_package()
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
