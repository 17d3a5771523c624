"""Several processes that train together, on the CPU."""

import json
import os
import re
import subprocess
import sys
import time
import types

import pytest
import small_run
import torch
from opensora_comfy.training.checkpoints import entries
from opensora_comfy.training.trainer.processes import Processes, started
from opensora_comfy.training.trainer.steps import Draws, Place, Schedule
from small_runs import mixed_clips, prepared

LAUNCHER = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"]
TRAIN = {"steps": 20, "seed": 4, "accumulate": 2}
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


def both(folder, **options):
    """The logs and weights of a run of one process, and of one of two with half the batch each.

    Mixed buckets, masks and dropped captions, and steps with fewer clips than processes.
    """
    half = {"32x32": {1: 1, 17: 1}, "16x32": {17: 1}}  # of three pictures one is left for a step of its own
    doubled = {"32x32": {1: 2, 17: 2}, "16x32": {17: 2}}
    for name, behind, buckets in (("one", None, doubled), ("two", port(), half)):
        running = start(folder / name, behind, train=TRAIN, buckets=buckets, **options)
        said = running.communicate(timeout=200)[0]
        assert running.returncode == 0, said
    return [(entries(folder / name / "log.jsonl"), torch.load(folder / name / "weights.pt")) for name in ("one", "two")]


def compare_logs(one, two):
    for name in ("step", "epoch", "count"):
        values = [[line[name] for line in log if name in line] for log in (one, two)]
        assert values[0] == values[1]
    for name in ("loss", "norm", "validation"):
        values = [[line[name] for line in log if name in line] for log in (one, two)]
        assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert {line["count"] for line in one if "count" in line} == {1, 2, 3, 4}


def test_two_are_one_with_the_doubled_batch(tmp_path):
    """In fp64, where rounding counts nothing: every weight."""
    (one, left), (two, right) = both(tmp_path, double=True)
    compare_logs(one, two)
    moved = max((left[name] - right[name]).abs().max() for name in left)
    assert left["final_layer.linear.weight"].dtype == torch.float64 and moved <= 1e-9


def test_two_are_one_but_for_rounding(tmp_path):
    """In fp32 Adam makes whole steps of a gradient that is nothing but rounding: that of a key's bias is zero by nature,
    and that of one weight in some hundred thousand happens to be."""
    (one, left), (two, right) = both(tmp_path)
    compare_logs(one, two)
    moved = {name: (left[name] - right[name]).abs() for name in left}
    for name, far in moved.items():
        if name.endswith("cross_attn.kv_linear.bias"):
            moved[name] = far[len(far) // 2 :]  # keys come first
    far = torch.cat([value.flatten() for value in moved.values()])
    assert (far > 1e-5).sum() <= len(far) / 50_000 and far.max() < 1e-3


def test_a_process_that_is_killed_ends_the_run(tmp_path):
    began = time.monotonic()
    forever = {**TRAIN, "steps": 100_000}
    running = start(tmp_path / "run", port(), train=forever, die={"rank": 1, "at": 3}, validate=False)
    said = running.communicate(timeout=120)[0]
    assert running.returncode != 0 and "SIGKILL" in said, said
    assert time.monotonic() - began < 100
    assert not (tmp_path / "run" / "weights.pt").exists()


def test_a_loss_that_is_no_number_names_the_clips_of_all(tmp_path):
    running = start(tmp_path / "run", port(), train=TRAIN, die={"nan": 2}, validate=False)
    said = running.communicate(timeout=120)[0]
    named = re.findall(r"step 3: the loss is nan, not a number; the clips were (.*?)\. Nothing", said)
    assert running.returncode != 0 and named and len({*named}) == 1, said
    draws = Draws(prepared(tmp_path / "cache", mixed_clips(), seed=3), None, None, 0)
    step = list(Schedule(draws, ranks=2, accumulate=2).steps(Place(), 3))[2]
    assert len(named[0].split(", ")) == step.count > sum(map(len, step.batches)) > 0


def test_without_accelerate_the_package_is_named(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ValueError, match="several processes need the package accelerate: pip install accelerate"):
        Processes("cpu")


def test_launchers_are_known():
    assert started({}) == started({"MASTER_ADDR": "node"}) == started({"WORLD_SIZE": "1", "PMI_SIZE": "4"}) == 1
    assert started({"WORLD_SIZE": "2"}) == started({"OMPI_COMM_WORLD_SIZE": "2"}) == started({"PMI_SIZE": "2"}) == 2


def test_a_launcher_that_starts_one_of_two_is_told_of_another():
    """As `accelerate launch --cpu --num_processes 2` does where there is no MPI."""
    with pytest.raises(ValueError, match="has started one process.*accelerate launch --multi_gpu starts them all"):
        started({"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"})
    assert started({"ACCELERATE_USE_CPU": "True"}) == 1  # one was asked for


def test_processes_that_do_not_find_each_other_are_refused(monkeypatch):
    """All of them would take themselves for the first, and write the same run."""
    lone = types.SimpleNamespace(num_processes=1)
    monkeypatch.setattr("accelerate.Accelerator", lambda **options: lone)
    monkeypatch.setenv("PMI_SIZE", "4")
    with pytest.raises(ValueError, match="4 processes were started, and this one has found 1"):
        Processes("cpu")


def test_weights_that_are_cut_apart_are_refused(monkeypatch):
    sharded = types.SimpleNamespace(num_processes=2, distributed_type="DistributedType.FSDP")
    monkeypatch.setattr("accelerate.Accelerator", lambda **options: sharded)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="accelerate is set to FSDP, .*: launch with --multi_gpu"):
        Processes("cpu")


def test_a_lone_process_needs_nobody(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    alone = Processes("cpu")
    assert (alone.rank, alone.count, alone.first) == (0, 1, True) and alone.any(True, False) == [True, False]
