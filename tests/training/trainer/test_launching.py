"""`accelerate launch` of the command line, on the CPU: two processes, one of which may be killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small_run
import yaml
from conftest import COMFYUI
from opensora_comfy.training.checkpoints import entries
from PIL import Image
from safetensors.torch import load_file

TOKENIZER = str(COMFYUI / "comfy" / "text_encoders" / "t5_tokenizer") if COMFYUI else ""
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
START = f"""
import os, pathlib, runpy, sys
sys.path[:0] = [{str(Path(small_run.__file__).parent)!r}]
import small_run
small_run.find_package()
pathlib.Path({{folder!r}}, "process-" + os.environ["RANK"]).write_text(str(os.getpid()))
runpy.run_module("opensora_comfy.training", run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def launch(tmp_path):
    """Starts the training of four pictures for so many steps; afterwards nothing of it is left running."""
    clips = tmp_path / "clips"
    clips.mkdir()
    for number, color in enumerate(("red", "green", "blue", "black")):
        Image.new("RGB", (32, 32), color).save(clips / f"{number}.png")
        (clips / f"{number}.txt").write_text(f"All is {color}.")
    (tmp_path / "start.py").write_text(START.format(folder=str(tmp_path)))
    running = []

    def start(steps):
        tree = {
            "data": {"path": "clips", "validation": 0.25}, "shape": {"buckets": {"32x32": {1: 1}}},
            "train": {"rank": 2, "steps": steps}, "save": {"folder": "run", "every_steps": 2, "validate_every": 10_000},
        }  # fmt: skip
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(tree))
        command = [sys.executable, *LAUNCH, str(tmp_path / "start.py"), "train", str(tmp_path / "c.yaml")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        running.append(subprocess.Popen(
            [*command, "--tokenizer", TOKENIZER, "--device", "cpu"], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ))  # fmt: skip
        return running[-1]

    yield start
    for process in running:
        process.terminate()  # the launcher ends the others
        process.wait(60)


def test_a_killed_process_ends_the_launch_and_the_next_one_goes_on(launch, tmp_path):
    forever = launch(1_000_000)
    began = time.monotonic()
    while len(entries(tmp_path / "run" / "log.jsonl")) < 5:
        assert forever.poll() is None and time.monotonic() - began < 120
        time.sleep(0.2)
    os.kill(int((tmp_path / "process-1").read_text()), getattr(signal, "SIGKILL", signal.SIGTERM))
    said = forever.communicate(timeout=100)[0]
    assert forever.returncode != 0 and "SIGKILL" in said and "encoding 1 of" in said, said
    assert not (tmp_path / "run" / "lora.safetensors").exists()
    done = max(line["step"] for line in entries(tmp_path / "run" / "log.jsonl"))
    again = launch(done + 2)
    said = again.communicate(timeout=200)[0]
    assert again.returncode == 0 and "going on from step" in said, said
    log = [line for line in entries(tmp_path / "run" / "log.jsonl") if "loss" in line]
    assert [line["step"] for line in log] == list(range(1, done + 3)) and {line["count"] for line in log} == {1, 2}
    assert load_file(tmp_path / "run" / "lora.safetensors")
    assert json.loads((tmp_path / "run" / "about.json").read_text())["train.rank"] == 2
