"""Several processes that train together, on the CPU."""

import json
import os
import subprocess
import sys
import time

import pytest
import small_run
import torch
from opensora_comfy.training.checkpoints import entries
from opensora_comfy.training.trainer.processes import Processes

LAUNCHER = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"]
# Some gradients are nothing but rounding (the biases of keys): with a small eps Adam would make whole steps of them.
TRAIN = {"steps": 20, "seed": 4, "eps": 1e-4, "accumulate": 2}
SAVING = {"every_steps": 50, "validate_every": 10}


def start(folder, port=None, **options):
    """A run of one process, or of two behind a port."""
    given = json.dumps({"folder": str(folder), "cache": str(folder.parent / "cache"), "saving": SAVING, **options})
    two = [*LAUNCHER, str(port)] if port else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, *two, small_run.__file__, given], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def port():
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_two_are_one_with_the_doubled_batch(tmp_path):
    """Mixed buckets, masks and dropped captions, and steps with fewer clips than processes."""
    buckets = {"32x32": {1: 1, 17: 1}, "16x32": {17: 1}}  # of three pictures one is left for a step of its own
    doubled = {"32x32": {1: 2, 17: 2}, "16x32": {17: 2}}
    one = start(tmp_path / "one", train=TRAIN, buckets=doubled)
    said_one = one.communicate(timeout=200)[0]
    two = start(tmp_path / "two", port(), train=TRAIN, buckets=buckets)
    said_two = two.communicate(timeout=200)[0]
    assert one.returncode == 0 and two.returncode == 0, said_one + said_two
    curves = [entries(tmp_path / name / "log.jsonl") for name in ("one", "two")]
    for name in ("step", "epoch", "count"):
        values = [[line[name] for line in curve if name in line] for curve in curves]
        assert values[0] == values[1]
    for name in ("loss", "norm", "validation"):
        values = [[line[name] for line in curve if name in line] for curve in curves]
        assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert {line["count"] for line in curves[0] if "count" in line} == {1, 2, 3, 4}
    weights = [torch.load(tmp_path / name / "weights.pt") for name in ("one", "two")]
    moved = max((weights[0][name] - weights[1][name]).abs().max() for name in weights[0])
    assert moved <= 1e-5


def test_a_process_that_is_killed_ends_the_run(tmp_path):
    began = time.monotonic()
    forever = {**TRAIN, "steps": 100_000}
    running = start(tmp_path / "run", port(), train=forever, die={"rank": 1, "at": 3}, validate=False)
    said = running.communicate(timeout=120)[0]
    assert running.returncode != 0 and "SIGKILL" in said, said
    assert time.monotonic() - began < 100
    assert not (tmp_path / "run" / "weights.pt").exists()


def test_without_accelerate_the_package_is_named(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ValueError, match="several processes need the package accelerate: pip install accelerate"):
        Processes("cpu")


def test_a_lone_process_needs_nobody(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    alone = Processes("cpu")
    assert (alone.rank, alone.count, alone.first) == (0, 1, True) and alone.any(True, False) == [True, False]
