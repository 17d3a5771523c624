"""Footage prepared in one go, and by runs that are killed, or crash: `python killed_footage.py FOLDER KILLS SEED`.

FOLDER/raw is the footage; FOLDER/whole.jsonl and FOLDER/killed.jsonl are the manifests, whole.log and killed.log what
was scored for them. With KILLS 0 pictures CRASHES pixels high crash the runs.
"""

import random
import sys
import time
from pathlib import Path

import small_run
from killed_runs import PROCESSES

SECONDS = 0.02  # of a shot
CRASHES = 50


def work(folder, name, workers=1, crashes=None):
    """Prepare the footage; whole manifest or none."""
    from counted_footage import CrashesAt, settings
    from opensora_comfy.training.data.footage.prepare import prepare

    cutter = CrashesAt(crashes) if crashes else None
    how = settings(folder / f"{name}.log", SECONDS, cutter)
    prepare(folder / "raw", folder / f"{name}.jsonl", how, workers=workers)


def attempt(folder, name, seconds=None):
    """Begin, or go on, for so many seconds: how many it took, None where it was killed."""
    began = time.monotonic()
    running = PROCESSES.Process(target=work, args=(folder, name))
    running.start()
    running.join(seconds)
    if running.is_alive():
        running.kill()
        running.join()
        return None
    assert running.exitcode == 0
    return time.monotonic() - began


def main(folder, kills, seed):
    """Moments are of the clock: so many in the midst of the work, then as many where all is done but the manifest."""
    from counted_footage import clips
    from opensora_comfy.training.data.footage import manifest

    rng = random.Random(seed)
    clips(folder / "raw", 10)
    length = 2 * attempt(folder, "whole") / kills  # of which so many halves are the whole
    for rest, what in ((kills, "at work"), (kills, "at the end")):
        while rest:
            moment = rng.uniform(length / 4, length)
            killed = attempt(folder, "killed", moment) is None
            path = folder / "killed.jsonl"
            rows = len(list(manifest.rows(path))) if path.exists() else 0
            print(f"killed after {moment:.3f} s, {what}; {rows} rows" if killed else "not killed", flush=True)
            rest -= killed or (what == "at work" and rows > 0)
        length = attempt(folder, "killed") and attempt(folder, "killed")


def crash(folder):
    """Two files at once, until a run comes to its end."""
    status = None
    while status != 0:
        running = PROCESSES.Process(target=work, args=(folder, "killed", 2, CRASHES))
        running.start()
        running.join()
        status = running.exitcode
        print(f"ended with {status}", flush=True)


if __name__ == "__main__":
    small_run.find_package()
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    main(folder, kills, seed) if kills else crash(folder)
