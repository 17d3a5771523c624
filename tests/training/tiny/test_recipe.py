"""The whole recipe of the bundled model, a few steps of each stage, killed in the midst and gone on with."""

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import tiny_recipe
import torch
from opensora_comfy.training.checkpoints import PATTERN, entries
from opensora_comfy.training.tiny.__main__ import INSTALLED, STAGES
from opensora_comfy.training.tiny.recipe import BUNDLED
from small import pack

KILLED = -signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM
AMOUNTS = """--captions 300 --text-encoder-steps 2 --vae-steps 2 1 1 1 --vae-batch 4 --vae-clips 12 --refine-steps 1
--clips 24 --held-out 4 --batch 3 --teacher-steps 5 --transformer-steps 2 --polish-clips 2 --polish-steps 2
--previews-clips 2 --previews-steps 3 --trials 2"""
# Written before the teacher: the text encoder's checkpoint, the four of the VAE and its encoded clips, that of refining it,
# seven buckets of clips and one to judge by. Half of the teacher's second is there when it dies.
FILES = 1 + 4 + 1 + 1 + 7 + 1 + 2


def run(folder, tokenizer, files=0):
    """(exit status, what it says)."""
    command = [sys.executable, tiny_recipe.__file__, str(files), "--tokenizer", tokenizer, "--folder", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *AMOUNTS.split()], env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")}


@pytest.fixture(scope="module")
def made(tmp_path_factory, comfy):
    """The folder of a recipe that was killed while the teacher learned, and what the second start said."""
    folder = tmp_path_factory.mktemp("recipe")
    tokenizer = str(Path(comfy.sd.__file__).parent / "text_encoders" / "t5_tokenizer")
    bundled = digests(BUNDLED)
    status, said = run(folder, tokenizer, FILES)
    assert status == KILLED, said
    assert (folder / "vae.safetensors").exists() and not (folder / "teacher.safetensors").exists()
    assert len(list((folder / "teacher").glob(PATTERN))) == 1 and list((folder / "teacher").glob("*.tmp"))
    before = digests(folder), {path.name: path.stat().st_mtime_ns for path in (folder / "latents").rglob("*.pt")}
    status, said = run(folder, tokenizer)
    assert status == 0, said
    assert {name: digest for name, digest in digests(folder).items() if name in before[0]} == before[0]
    assert {path.name: path.stat().st_mtime_ns for path in (folder / "latents").rglob("*.pt")} == before[1]
    assert digests(BUNDLED) == bundled
    return folder, said


def test_killed_in_the_midst_the_same_command_goes_on(made):
    folder, said = made
    assert "going on from step 2" in said and not list(folder.rglob("*.tmp"))
    steps = Counter(line["step"] for line in entries(folder / "teacher" / "log.jsonl") if "loss" in line)
    assert steps == dict.fromkeys(range(1, 6), 1)
    judged = [line["step"] for line in entries(folder / "teacher" / "log.jsonl") if "validation" in line]
    assert judged == [0, 2, 4, 5]
    assert [stage for stage in STAGES if f"\n{stage}: " in f"\n{said}"] == list(STAGES[2:])


def test_every_stage_leaves_its_run(made):
    folder, _ = made
    for name in ("text_encoder", "vae/spatial", "vae/decoders", "refine", "teacher", "transformer", "polish", "previews"):  # fmt: skip
        assert all(math.isfinite(line["loss"]) for line in entries(folder / name / "log.jsonl") if "loss" in line), name
        assert list((folder / name).glob(PATTERN)), name
    scores = json.loads((folder / "scores.json").read_text())
    assert {"all", "in_between_psnr", "vae_psnr"} <= set(scores) and (folder / "contact_sheet.png").exists()


def test_the_loaders_open_its_files_and_a_clip_is_generated(made, comfy):
    from tiny import Tiny

    folder, _ = made
    tiny, loading = Tiny.__new__(Tiny), pack("nodes.comfy.loading")
    made_of = {name: str(folder / f"{stage}.safetensors") for name, stage in INSTALLED.items()}
    tiny.model = loading.load_model(made_of["transformer"], "auto")
    tiny.vae, tiny.clip = loading.load_vae(made_of["vae"]), loading.load_text_encoder(made_of["text_encoder"])
    video = tiny.decode(tiny.sample("a red circle moves left on a white background", tiny.empty(), steps=2))
    assert video.shape == (17, 64, 64, 3) and bool(torch.isfinite(video).all()) and float(video.std()) > 0
    for name in INSTALLED:
        ours, theirs = (
            pack("model.files").read_file(path) for path in (made_of[name], BUNDLED / f"{name}.safetensors")
        )
        shapes = [{key: (value.shape, value.dtype) for key, value in each[0].items()} for each in (ours, theirs)]
        assert shapes[0] == shapes[1] and set(ours[1]["opensora"]) == set(theirs[1]["opensora"])
