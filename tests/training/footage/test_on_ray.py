"""Footage prepared on Ray gives what one machine gives, whatever happens to the processes."""

import os
import signal
import sys
from pathlib import Path

import pytest
from counted_footage import CrashesAt, clips, scored, settings
from opensora_comfy.training.data.footage import manifest
from opensora_comfy.training.data.footage.on_ray import on_ray
from opensora_comfy.training.data.footage.prepare import prepare
from opensora_comfy.training.data.footage.survey import ATTEMPTS
from videos import video

ROOT = Path(__file__).resolve().parents[3]
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


@pytest.fixture
def importable(tmp_path, monkeypatch):
    """The pack under its name on the path of imports, as where it is installed."""
    (tmp_path / "packs").mkdir()
    (tmp_path / "packs" / "opensora_comfy").symlink_to(ROOT, target_is_directory=True)
    monkeypatch.syspath_prepend(str(tmp_path / "packs"))


def ordered(path):
    return sorted(manifest.rows(path), key=manifest.name_of)


@pytest.mark.usefixtures("importable")
def test_a_killed_process_loses_and_repeats_no_row_and_the_manifest_is_the_local_one(tmp_path):
    import ray

    folder, log, killed = clips(tmp_path / "raw", 8), tmp_path / "log", []

    def tell(done, total, name):
        assert total == 8
        if len(killed) < 2 and scored(log)[-1] not in killed:
            killed.append(scored(log)[-1])
            os.kill(killed[-1], KILL)

    prepare(folder, tmp_path / "ray.jsonl", settings(log, seconds=0.1), tell, workers=2, each=on_ray())
    assert not ray.is_initialized()
    assert len(killed) == 2 and os.getpid() not in scored(log)
    assert 32 <= len(scored(log)) <= 32 + len(killed)
    prepare(folder, tmp_path / "local.jsonl", settings(tmp_path / "local.log"))
    assert ordered(tmp_path / "ray.jsonl") == ordered(tmp_path / "local.jsonl")
    assert len(ordered(tmp_path / "ray.jsonl")) == 32


@pytest.mark.usefixtures("importable")
def test_a_file_that_crashes_its_process_ends_no_run_and_nothing_is_done_twice(tmp_path):
    import ray

    folder, path, log = clips(tmp_path / "raw", 2), tmp_path / "set.jsonl", tmp_path / "log"
    video(folder / "00 crashes.mp4", height=50)
    ray.init("local", num_cpus=1, log_to_driver=False, include_dashboard=False, object_store_memory=100 << 20)
    try:
        how, told = settings(log, cutter=CrashesAt(50)), []
        for times in (1, 2):
            prepare(folder, path, how, lambda done, total, name: told.append(name), each=on_ray())
            assert sorted(told) == sorted(["raw/00 crashes.mp4", "raw/00.mp4", "raw/01.mp4"] * times)
            assert len(scored(log)) == 8
            reasons = [row["reason"] for row in ordered(path)]
            assert [bool(reason) for reason in reasons] == [True] + [False] * 8
            assert f"ended the program {ATTEMPTS} times" in reasons[0]
        assert ray.is_initialized()
        with pytest.raises(ValueError, match="manifest: .* cannot be written"):
            (tmp_path / "other.jsonl.notes").write_text("in the way")
            prepare(folder, tmp_path / "other.jsonl", how, each=on_ray())
    finally:
        ray.shutdown()


def test_without_ray_the_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"needs the package ray\[data\].*pip install \"ray\[data\]\""):
        on_ray()
