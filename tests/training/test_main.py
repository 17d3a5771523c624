"""The command line: the bundled model trained on a folder, by commands as they are typed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import small_run
import torch
import yaml
from conftest import COMFYUI
from opensora_comfy.model.checkpoints.t5 import shapes_of
from opensora_comfy.training.__main__ import main
from opensora_comfy.training.checkpoints import entries
from opensora_comfy.training.config import from_mapping, read
from opensora_comfy.training.trainer.trial import in_words
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file
from small import VAE_CONFIG, random_weights, small_causal_vae, write
from videos import video

TOKENIZER = str(COMFYUI / "comfy" / "text_encoders" / "t5_tokenizer") if COMFYUI else ""
START = f"""
import runpy, sys
sys.path[:0] = [{str(Path(small_run.__file__).parent)!r}]
import small_run
small_run.find_package()
runpy.run_module("opensora_comfy.training", run_name="__main__", alter_sys=True)
"""


def type_in(*arguments):
    """A command in a process of its own: (exit status, output, errors)."""
    command = [sys.executable, "-c", START, *map(str, arguments), "--tokenizer", TOKENIZER, "--device", "cpu"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, "PYTHONUTF8": "1"}
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def project(tmp_path):
    """Writes a configuration beside a folder of two clips and a picture; what is given is changed in it."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for number, name in enumerate(("one", "two")):
        video(folder / f"{name}.mp4", 17 + number)
        (folder / f"{name}.txt").write_text(f"A bright square, number {name}.")
    Image.new("RGB", (64, 64), "red").save(folder / "three.png")
    (folder / "three.txt").write_text("Red.")

    def configure(**sections):
        tree = {
            "data": {"path": "clips"},
            "shape": {"buckets": {"32x32": {1: 2, 17: 2}}},
            "train": {"rank": 2, "steps": 3, "warmup": 1},
            "save": {"folder": "run", "every_steps": 2, "sample_every": 0},
        }
        for section, values in sections.items():
            tree[section] = {**tree.get(section, {}), **values}
        path = tmp_path / "c.yaml"
        path.write_text(yaml.safe_dump(tree), encoding="utf-8")
        return path

    return configure


def refusal(capsys, *arguments):
    """What a command says that ends in status 1, in a line and not in a traceback."""
    assert main([str(each) for each in arguments] + ["--tokenizer", TOKENIZER, "--device", "cpu"]) == 1
    said = capsys.readouterr().err.strip()
    assert said and "Traceback" not in said
    return said


def test_from_a_folder_to_a_lora(project, tmp_path, capsys):
    path = project()
    (tmp_path / "clips" / "bare.png").write_bytes((tmp_path / "clips" / "three.png").read_bytes())
    status, said, errors = type_in("train", path)
    assert status == 0, errors
    assert (
        "left out: bare.png: it has no caption; write one into bare.txt" in said and "4 stretches are encoded" in said
    )
    run = tmp_path / "run"
    names = {each.name for each in run.iterdir()}
    assert names == {
        "about.json", "cache", "config.yaml", "curve.png", "log.jsonl", "lora.safetensors", "preflight.png",
        "step-00000002.pt", "step-00000003.pt",
    }  # fmt: skip
    assert [line["step"] for line in entries(run / "log.jsonl")] == [1, 2, 3] and str(run / "lora.safetensors") in said
    with safe_open(run / "lora.safetensors", "pt") as file:
        about = json.loads(file.metadata()["opensora_lora"])
        assert about["step"] == 3 and about["validation"] is None
        assert all(key.startswith("diffusion_model.") for key in file.keys())  # noqa: SIM118
    assert from_mapping(about["settings"]).train.rank == 2 and read(run / "config.yaml").data.path == str(
        tmp_path / "clips"
    )
    assert Image.open(run / "curve.png").size == (960, 540)

    def left():
        """The files of the run; of the LoRA its tensors, as the order of metadata is not fixed."""
        found = {each: each.read_bytes() for each in run.iterdir() if each.is_file()}
        return found | {each: save(load_file(each)) for each in found if each.suffix == ".safetensors"}

    files = left()
    assert main(["train", str(path), "--tokenizer", TOKENIZER, "--device", "cpu"]) == 0
    assert "going on from step 3" in capsys.readouterr().out
    assert left() == files

    status, said, errors = type_in("sample", path, "--prompt", "A red square.", "--seed", "4")
    assert status == 0 and Path(said.strip()).name == "sample-4-0.mp4" and Path(said.strip()).stat().st_size > 500, (
        errors
    )


def test_a_new_configuration_is_whole_and_never_written_over(tmp_path, capsys):
    path = tmp_path / "new.yaml"
    assert main(["train", str(path), "--new"]) == 0 and "set data.path" in capsys.readouterr().out
    assert read(path).train == from_mapping({}).train
    assert "which is there already; give another name" in refusal(capsys, "train", path, "--new")
    assert "data.path is empty; it must be a folder of clips with captions, or a manifest" in refusal(
        capsys, "train", path
    )


def test_what_can_be_known_is_said_before_anything_is_encoded(project, tmp_path, capsys):
    vae = write(tmp_path / "vae13.safetensors", random_weights(small_causal_vae(), 1), config=VAE_CONFIG)
    cases = [
        ({"data": {"path": "nothing"}}, "nothing"),
        ({"shape": {"buckets": {"242p": {17: 1}}}}, "240p"),
        ({"shape": {"buckets": {"240p": {18: 1}}}}, "the nearest are 17 or 21"),
        ({"shape": {"buckets": {"240p": {17: [2, 1]}}}}, "is 2; it must be within 0 … 1, the nearest is 1"),
        ({"objective": {"masks": {"random": 2}}}, "objective.masks: the ratio of random is 2"),
        (
            {"train": {"learning_rate": 11}},
            "train.learning_rate is 11; it must be within 1e-09 … 10; the nearest is 10",
        ),
        ({"model": {"vae": vae}}, "model.vae makes latents of 16 channels; this stdit3 reads 4"),
        ({"model": {"transformer": "missing.safetensors"}}, "missing.safetensors"),
        ({"model": {"vae": "clips/one.txt"}}, "one.txt"),
    ]
    for sections, words in cases:
        assert words in refusal(capsys, "train", project(**sections)), sections
        assert not (tmp_path / "run" / "cache").exists()


def test_a_text_encoder_of_another_width_is_refused(project, tmp_path, capsys):
    """As t5xxl beside the bundled transformer would be."""
    sizes = {
        "vocab_size": 32128,
        "d_model": 8,
        "d_kv": 4,
        "d_ff": 8,
        "num_heads": 2,
        "num_layers": 1,
        "is_gated_act": True,
    }
    save_file({key: torch.zeros(shape) for key, shape in shapes_of(sizes).items()}, tmp_path / "t5.safetensors")
    said = refusal(capsys, "train", project(model={"text_encoder": "t5.safetensors"}))
    assert "model.text_encoder makes features of width 8; this stdit3 reads " in said


def test_empty_folders_and_captions(project, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "it has no videos or pictures" in refusal(capsys, "train", project(data={"path": "empty"}))
    Image.new("RGB", (64, 64)).save(tmp_path / "empty" / "a.png")
    said = refusal(capsys, "train", project(data={"path": "empty"}))
    assert (
        "data.path: of 1 files in" in said
        and "none can be used: a.png: it has no caption; write one into a.txt" in said
    )
    path = project(data={"path": "empty", "trigger": "zwx"})
    assert (
        main(["preflight", str(path), "--tokenizer", TOKENIZER, "--device", "cpu"]) == 0
    )  # the trigger is its caption
    assert Image.open(capsys.readouterr().out.strip().splitlines()[-1]).width > 100


def test_folders_that_cannot_be_written(project, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    said = refusal(capsys, "train", project(save={"folder": "file/run"}))
    assert said.startswith("save.folder: ") and "choose a folder that can be written" in said
    said = refusal(capsys, "train", project(data={"cache": "file/cache"}))
    assert "the cache" in said and "cannot be written" in said


def test_a_run_of_other_settings_in_the_folder_is_refused(project, tmp_path, capsys):
    path = project(train={"steps": 1})
    assert main(["train", str(path), "--tokenizer", TOKENIZER, "--device", "cpu"]) == 0
    capsys.readouterr()
    said = refusal(capsys, "train", project(train={"steps": 1, "rank": 4}))
    assert said.startswith("save.folder: the run in ") and "has train.rank 2, this one 4; choose another folder" in said
    assert read(tmp_path / "run" / "config.yaml").train.rank == 2  # of the run that is there
    assert "holds no run; train first" in refusal(capsys, "report", project(save={"folder": "elsewhere"}))


def test_the_preflight_tries_the_largest_batch_and_says_what_a_run_takes(project, capsys, monkeypatch):
    path = project(train={"rank": 2, "steps": 300, "warmup": 1})
    command = ["preflight", str(path), "--tokenizer", TOKENIZER, "--device", "cpu"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "300 steps, about 150 epochs; the largest batch is 2 of 32x32 · 17 frames · 48x32" in said
    assert "so the run takes" in said and said.rstrip().endswith("preflight.png")

    def full(*given):
        raise MemoryError

    monkeypatch.setattr("opensora_comfy.training.trainer.learner.loss", full)
    assert main(command) == 1
    assert "out of memory at 2 clips of 17 frames, 48x32: a batch size below 2" in capsys.readouterr().err


def test_hours_and_memory_are_said_in_words():
    assert in_words(30.0, 12_000_000_000, 600, 60, "1 of 720p")[1] == (
        "A step of it takes 30.0 s here, so the run takes 5.0 hours at most, and 12.0 GB on the graphics card"
    )
    assert "takes a minute at most" in in_words(0.1, None, 100, 10, "a")[1]
