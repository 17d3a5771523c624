"""A run that is stopped at any moment, and goes on as if it had not been."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import killed_runs
import pytest
import small_run
import torch
from opensora_comfy.training import checkpoints
from opensora_comfy.training.checkpoints import entries
from safetensors.torch import load_file
from small_runs import mixed_clips, prepared, trainer

KILLED = -signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM


def run(folder, cache, **options):
    """A run in a process of its own, all of it one thread: (exit status, what it says)."""
    command = [sys.executable, small_run.__file__, json.dumps({"folder": str(folder), "cache": str(cache), **options})]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout + done.stderr


def curve(folder):
    """The log without the time that it took."""
    return [
        {name: value for name, value in line.items() if name != "seconds"} for line in entries(folder / "log.jsonl")
    ]


def weights(trainer):
    return {name: value.detach().clone() for name, value in trainer.parameters.items()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("cache"), mixed_clips(), seed=3)


def test_killed_again_and_again_it_is_the_run_that_was_not(tmp_path):
    cache = tmp_path / "cache"
    status, said = run(tmp_path / "whole", cache)
    assert status == 0, said
    moments = [
        ({"step": 3}, 0),  # behind the log, before any checkpoint
        ({"save": 2}, 2),  # with half of the checkpoint of step 8 written
        ({"forward": 4}, 0),  # in the midst of a step
    ]
    folder = tmp_path / "killed"
    for moment, workers in moments:
        status, said = run(folder, cache, die=moment, train={"workers": workers})
        assert status == KILLED and not (folder / "weights.pt").exists(), said
    (folder / "best.safetensors.123.tmp").write_bytes(b"half")
    status, said = run(folder, cache, train={"workers": 1})
    assert status == 0 and "going on from step 4" in said
    assert curve(folder) == curve(tmp_path / "whole")
    steps = Counter((line["step"], "loss" in line) for line in curve(folder))
    assert set(steps.values()) == {1} and {step for step, trained in steps if trained} == set(range(1, 11))
    assert [line["epoch"] for line in curve(folder) if "epoch" in line] == [0] * 4 + [1] * 4 + [2] * 2
    assert same(torch.load(folder / "weights.pt"), torch.load(tmp_path / "whole" / "weights.pt"))
    assert same(load_file(folder / "best.safetensors"), load_file(tmp_path / "whole" / "best.safetensors"))
    assert not list(folder.glob("*.tmp"))


def test_killed_at_random_moments_it_is_the_run_that_was_not(tmp_path):
    """Ten times, and with other numbers of workers; each time that it comes to its end a new one begins."""
    seed = random.randrange(2**32)
    print("seed", seed)
    command = [sys.executable, killed_runs.__file__, str(tmp_path), "10", str(seed)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    print(done.stdout)
    assert done.returncode == 0 and done.stdout.count("killed after") == 10, done.stderr
    whole, *finished = sorted(
        (each / "run" for each in tmp_path.iterdir()), key=lambda each: each.parent.name != "whole"
    )
    assert len(finished) == done.stdout.count("at its end")
    for folder in finished:
        assert curve(folder) == curve(whole)
        assert same(torch.load(folder / "weights.pt"), torch.load(whole / "weights.pt"))
        assert same(load_file(folder / "best.safetensors"), load_file(whole / "best.safetensors"))


def test_a_damaged_checkpoint_is_said_and_passed_over(tmp_path, examples):
    whole = trainer(tmp_path / "whole", examples)
    whole.run()
    first = trainer(tmp_path / "run", examples, train={"steps": 9}, saving={"every_steps": 3, "keep": 3})
    first.run()
    files = sorted((tmp_path / "run").glob(checkpoints.PATTERN))
    assert [file.stem for file in files] == ["step-00000003", "step-00000006", "step-00000009"]
    files[2].write_bytes(files[2].read_bytes()[:-1000])
    content = bytearray(files[1].read_bytes())
    content[len(content) // 2] ^= 255  # of some weight
    files[1].write_bytes(content)
    said = []
    second = trainer(tmp_path / "run", examples, saving={"every_steps": 4, "keep": 1}, say=said.append)
    second.run()
    assert said[0].startswith("step-00000009.pt is damaged (") and "one before it" in said[0]
    assert said[1].startswith("step-00000006.pt is damaged (") and said[2] == "going on from step 3"
    assert curve(tmp_path / "run") == curve(tmp_path / "whole") and same(weights(second), weights(whole))
    # What was damaged does not push out what is whole.
    assert [file.stem for file in (tmp_path / "run").glob(checkpoints.PATTERN)] == ["step-00000010"]


def test_where_all_are_damaged_the_run_begins_again_and_says_so(tmp_path, examples):
    trainer(tmp_path, examples, train={"steps": 4}).run()
    for file in tmp_path.glob(checkpoints.PATTERN):
        file.write_bytes(b"")
    said = []
    again = trainer(tmp_path, examples, train={"steps": 4}, say=said.append)
    again.run()
    assert len(said) == 1 and said[0].endswith("there is none before it, so the run begins again")
    assert [line["step"] for line in curve(tmp_path)] == [1, 2, 3, 4]


@pytest.mark.parametrize("keep, kept", [(1, [9]), (2, [8, 9]), (5, [1, 6, 7, 8, 9])])
def test_the_newest_are_kept(tmp_path, keep, kept):
    for step in (1, 6, 7, 8, 12, 9):  # 12 is damaged: the run went on from 8
        checkpoints.save(tmp_path, step, {"step": step}, keep=100)
    checkpoints.save(tmp_path, 9, {"step": 9}, keep=keep)
    assert sorted(int(path.stem[5:]) for path in tmp_path.glob(checkpoints.PATTERN)) == kept


def test_saved_by_steps_and_by_minutes(tmp_path, examples, monkeypatch):
    saved = []
    keep = checkpoints.save
    monkeypatch.setattr(checkpoints, "save", lambda *args: saved.append(args[1]) or keep(*args))
    trainer(tmp_path / "steps", examples, saving={"every_steps": 4}).run()
    assert saved == [4, 8, 10]
    saved.clear()
    clock = [0.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: clock[0])

    def passes(entry):
        clock[0] += 60

    saving = {"every_steps": 1000, "every_minutes": 3.0}
    trainer(tmp_path / "minutes", examples, saving=saving, on_step=passes).run()
    assert saved == [3, 6, 9, 10]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", [0, 2])
def test_asked_to_stop_it_ends_behind_the_step_and_is_saved(tmp_path, examples, number, workers):
    whole = trainer(tmp_path / "whole", examples)
    whole.run()
    before, said = signal.getsignal(number), []

    def stop(entry):
        if entry["step"] == 3 and "loss" in entry:
            signal.raise_signal(number)

    stopped = trainer(
        tmp_path / "run",
        examples,
        train={"workers": workers},
        on_step=stop,
        say=said.append,
        saving={"every_steps": 99},
    )
    stopped.run()
    assert stopped.step == 3 and said == ["stopping behind this step; what is learned is saved"]
    assert signal.getsignal(number) is before
    on = trainer(tmp_path / "run", examples, train={"workers": 2 - workers})
    on.run()
    assert curve(tmp_path / "run") == curve(tmp_path / "whole") and same(weights(on), weights(whole))


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="there a console's Ctrl-C cannot be sent to one group")
def test_ctrl_c_reaches_the_workers_too_and_yet_it_is_saved(tmp_path):
    """A terminal interrupts all processes of a run, those that read for it among them."""
    given = {"folder": str(tmp_path / "run"), "cache": str(tmp_path / "cache")}
    given |= {"train": {"steps": 100_000, "workers": 2}, "saving": {"every_steps": 100_000}, "validate": False}
    process = subprocess.Popen(
        [sys.executable, small_run.__file__, json.dumps(given)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    began = time.monotonic()
    while len(entries(tmp_path / "run" / "log.jsonl")) < 3:
        assert process.poll() is None and time.monotonic() - began < 120
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 0 and said.count("stopping behind this step") == 1 and "Error" not in said, said
    assert checkpoints.newest(tmp_path / "run")["step"] == curve(tmp_path / "run")[-1]["step"]


def test_a_hook_may_stop_it(tmp_path, examples):
    """It is saved before it is judged, which takes longer than some wait; no sample is made."""
    stopped = trainer(
        tmp_path, examples, on_step=lambda entry: entry["step"] == 2, saving={"sample_every": 5}, sample=pytest.fail
    )
    judged = []
    stopped.judge = lambda: judged.append((checkpoints.newest(tmp_path) or {"step": 0})["step"])
    stopped.run()
    assert stopped.step == 2 and judged == [0, 2] and checkpoints.newest(tmp_path)["step"] == 2


def test_a_finished_run_does_nothing_and_more_steps_go_on(tmp_path, examples):
    whole = trainer(tmp_path / "whole", examples, train={"steps": 14})
    whole.run()
    finished = trainer(tmp_path / "run", examples)
    result = finished.run()
    files = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    again = trainer(tmp_path / "run", examples, on_step=lambda entry: pytest.fail("a step"))
    again.try_largest = lambda: pytest.fail("a trial")
    found = again.run()
    assert (found["step"], result["step"]) == (10, 10) and same(weights(again), weights(finished))
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == files
    more = trainer(tmp_path / "run", examples, train={"steps": 14})
    more.run()
    assert curve(tmp_path / "run") == curve(tmp_path / "whole") and same(weights(more), weights(whole))


def test_another_run_in_the_folder_is_refused_by_name(tmp_path, examples):
    about = {"train.rank": 4, "train.seed": 0, "data set": examples.fingerprint}
    trainer(tmp_path, examples, train={"steps": 2}, about=about).run()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for name, value in (("train.rank", 8), ("train.seed", 1), ("data set", "another")):
        words = f"has {name} {about[name]}, this one {value}; choose another folder, or the same {name}"
        with pytest.raises(ValueError, match=words):
            trainer(tmp_path, examples, about={**about, name: value}).run()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_average_and_the_decay_may_begin_or_end_when_it_goes_on(tmp_path, examples):
    trainer(tmp_path, examples, train={"steps": 2, "ema": 0.0}).run()
    on = trainer(tmp_path, examples, train={"steps": 2, "ema": 0.9, "weight_decay": 0.5})
    on.run()
    assert same(dict(on.average), weights(on))
    assert [group["weight_decay"] for group in on.optimizer.param_groups] == [0.5]
    trainer(tmp_path, examples, train={"steps": 3, "ema": 0.9}).run()
    without = trainer(tmp_path, examples, train={"steps": 4, "ema": 0.0})
    without.run()
    assert without.step == 4 and not without.average


def test_half_a_line_of_the_log_is_forgotten(tmp_path):
    log = checkpoints.Log(tmp_path)
    for step in range(4):
        log.add(step=step, loss=1.0)
    with log.path.open("a") as file:
        file.write('{"step": 4, "lo')
    assert [line["step"] for line in log.entries()] == [0, 1, 2, 3]
    log.rewind(2)
    log.add(step=3, loss=2.0)
    assert Path(log.path).read_text().splitlines()[3] == '{"step": 3, "loss": 2.0}' and len(log.entries()) == 4


def test_the_learning_rate_may_change_when_it_goes_on(tmp_path, examples):
    trainer(tmp_path, examples, train={"steps": 2, "learning_rate": 1e-3, "warmup": 0}).run()
    trainer(tmp_path, examples, train={"steps": 4, "learning_rate": 1e-4, "warmup": 0}).run()
    assert [line["rate"] for line in curve(tmp_path)] == [1e-3] * 2 + [1e-4] * 2
    (group,) = checkpoints.newest(tmp_path)["optimizer"]["param_groups"]
    assert group["lr"] == 1e-4
