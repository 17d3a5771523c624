"""Preparing footage is killed at any moment, or by the footage itself, and goes on as if it had not been."""

import random
import subprocess
import sys

import killed_footage
import pytest
from counted_footage import SHOT, CrashesAt, clips, scored, settings
from opensora_comfy.training.data.footage import manifest
from opensora_comfy.training.data.footage.prepare import prepare
from opensora_comfy.training.data.footage.survey import ATTEMPTS
from videos import video

KILLS = 10


def lines(*arguments):
    """What a program says that does its work in processes that may die."""
    command = [sys.executable, killed_footage.__file__, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    return done.stdout.splitlines()


def test_killed_at_any_moment_it_loses_a_shot_at_most(tmp_path):
    seed = random.randrange(1000)
    print("seed", seed)
    kills = [line for line in lines(tmp_path, KILLS, seed) if line.startswith("killed")]
    assert len(kills) >= KILLS
    whole, killed = (list(manifest.rows(tmp_path / f"{name}.jsonl")) for name in ("whole", "killed"))
    assert killed == whole and len(whole) == 40 and all(row["exposure"] is not None for row in whole)
    assert len(scored(tmp_path / "whole.log")) == len(whole)
    assert len(whole) <= len(scored(tmp_path / "killed.log")) <= len(whole) + len(kills)


def test_a_file_that_crashes_the_program_is_left_alone_until_it_changes(tmp_path):
    folder, path, log = clips(tmp_path / "raw", 4), tmp_path / "killed.jsonl", tmp_path / "killed.log"
    video(folder / "00 crashes.mp4", 4 * SHOT, height=killed_footage.CRASHES)
    said = lines(tmp_path, 0, 0)
    assert len(said) == ATTEMPTS + 1
    assert len(scored(log)) <= 16 + ATTEMPTS
    rows = list(manifest.rows(path))
    assert {row["path"] for row in rows if row["kept"]} == {f"raw/{number:02}.mp4" for number in range(4)}
    (left,) = [row for row in rows if not row["kept"]]
    assert (left["path"], left["shot"]) == ("raw/00 crashes.mp4", -1)
    assert left["reason"] == "reading it ended the program 3 times; export it again, or remove it"

    video(folder / "00 crashes.mp4", 4 * SHOT)
    before = len(scored(log))
    prepare(folder, path, settings(log, cutter=CrashesAt(killed_footage.CRASHES)))
    assert len(scored(log)) == before + 4 and all(row["kept"] for row in manifest.rows(path))


def test_errors_and_interrupts_are_no_crashes(tmp_path):
    folder, path, log = clips(tmp_path / "raw", 1), tmp_path / "set.jsonl", tmp_path / "log"

    class Fails(CrashesAt):
        def looked_at(self, frame):
            raise MemoryError

    for _ in range(ATTEMPTS + 1):
        with pytest.raises(MemoryError):
            prepare(folder, path, settings(log, cutter=Fails(0)))
    prepare(folder, path, settings(log, cutter=CrashesAt(0)))
    assert all(row["kept"] for row in manifest.rows(path))
