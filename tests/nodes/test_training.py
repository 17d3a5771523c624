"""The nodes that train: what becomes of choices and weights, and what is refused in which words."""

import json
import re

import pytest
import torch
from conftest import ROOT
from small import pack
from stock import stock
from tiny import node_class, run

EXAMPLES = ROOT / "assets" / "training_clips"


@pytest.fixture(scope="module")
def moving():
    """IMAGE batches: a clip of 17 frames in which a bright square moves, and a picture."""
    clip = torch.zeros(17, 64, 64, 3)
    for frame in range(17):
        clip[frame, 20:36, 2 * frame : 2 * frame + 16] = 1
    return clip, clip[:1]


@pytest.fixture(scope="module")
def data(tiny, moving):
    """The data set of `moving`."""
    inputs = {"vae": tiny.vae, "clip": tiny.clip, "images_1": moving[0], "images_3": moving[1]}
    return run(
        "OpenSoraDataset", folder="no folder", captions="a square moves\n\na square\n", trigger="bright", **inputs
    )


def train(tiny, data, **values):
    settings = {
        "steps": 2,
        "learning_rate": 0.01,
        "rank": 2,
        "validation": 0.0,
        "sample_every": 0,
        "branches": "motion",
    }
    settings |= {"settings": "train: {warmup: 0}"}
    return run("OpenSoraTrain", model=tiny.model, dataset=data[0], **settings | values)


# --- the data set


def test_images_from_the_graph_are_clips_with_their_captions(data):
    found, picture, report = data
    assert [(clip.frames, clip.caption) for clip in found.clips] == [(17, "a square moves"), (1, "a square")]
    assert found.sections["shape"]["buckets"] == {"64x64": {1: 40, 17: 8}}
    assert picture.shape[0] == 1 and picture.shape[-1] == 3
    assert report.splitlines()[0] == "2 clips, 2 captions" and "17 frames · 64x64" in report


def test_what_is_left_out_is_told_and_a_trigger_is_a_caption(tiny, tmp_path):
    (tmp_path / "wordless.mp4").write_bytes((EXAMPLES / "ember 01.mp4").read_bytes())
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "broken.txt").write_text("a circle")
    folders, collect = pack("nodes.comfy.training.folders"), pack("nodes.comfy.training.data").collect
    with pytest.raises(ValueError, match="none can be used: .*wordless.mp4: it has no caption"):
        collect(tmp_path, [], "")
    clips, left_out = collect(folders.source_of("no folder", f'"{tmp_path}"'), [], "", "ember")
    assert [clip.caption for clip in clips] == ["ember"] and [one.name for one in left_out] == ["broken.mp4"]


def test_resolution_length_and_batch_are_the_artists(tiny, moving):
    inputs = {"vae": tiny.vae, "clip": tiny.clip, "folder": "no folder", "images_1": moving[0], "captions": "a square"}
    found = run("OpenSoraDataset", resolution="144p", frames=1, batch_size=3, **inputs)[0]
    assert found.sections["shape"]["buckets"] == {"144p": {1: 3}}


def test_a_changed_file_is_seen(tmp_path):
    node = node_class("OpenSoraDataset")
    (tmp_path / "one.txt").write_text("a circle")
    before = node.fingerprint_inputs(folder="no folder", path=str(tmp_path))
    assert before == node.fingerprint_inputs(folder="no folder", path=str(tmp_path))
    (tmp_path / "one.txt").write_text("a square!")
    assert before != node.fingerprint_inputs(folder="no folder", path=str(tmp_path))


@pytest.mark.parametrize(
    "values, words",
    [
        ({"frames": 20}, "frames is 20, .* the nearest are 17 and 21"),
        ({"captions": "one\ntwo"}, "captions has 2 lines, and 1 of images_1"),
        ({"images_1": None, "captions": ""}, "folder is 'no folder', and no images_1"),
        ({"folder": "exampel clips"}, "folder is 'exampel clips'; .* the nearest is 'example clips \\(bundled\\)'"),
        ({"path": "/nowhere/at/all"}, "path is '/nowhere/at/all', and there is nothing"),
    ],
)
def test_choices_that_cannot_be_are_refused_by_name(tiny, moving, values, words):
    inputs = {"vae": tiny.vae, "clip": tiny.clip, "folder": "no folder", "images_1": moving[0], "captions": "a square"}
    with pytest.raises(ValueError, match=words):
        run("OpenSoraDataset", **inputs | values)


# --- what a run will take


@pytest.fixture(scope="module")
def estimated(tiny, moving):
    """Report and picture of the data set with the model."""
    return run(
        "OpenSoraDataset", vae=tiny.vae, clip=tiny.clip, model=tiny.model, folder="no folder", images_1=moving[0],
        captions="a square",
    )  # fmt: skip


def test_with_the_model_time_and_memory_are_told(data, estimated):
    assert "Connect model, and how long a step takes, and how much memory, is said here" in data[2]
    said = [line for line in estimated[2].splitlines() if "step" in line]
    assert re.fullmatch(
        r"A step of the largest batch \(1 of 64x64 · 17 frames · 64x64\) takes about [\d.]+ s and \d+ MB, with "
        r"gradient_checkpointing \d+ MB", said[0],
    )  # fmt: skip
    assert re.fullmatch(r"Once through all clips: 1 step. 300 steps take about .* here", said[1]) and len(said) == 2


def test_more_memory_than_there_is_is_told(tiny, data, monkeypatch):
    told, lines_of = pack("nodes.comfy.training.estimate"), pack("nodes.comfy.training.estimate").lines_of
    found, examples = data[0], examples_of(tiny, data[0])
    estimates = {False: (0.5, 28e9), True: (0.6, 20e9)}
    monkeypatch.setattr(
        told, "estimate", lambda network, objective, settings, *others: told.Estimate(
            *estimates[settings.gradient_checkpointing])
    )  # fmt: skip
    monkeypatch.setattr(told.management, "get_total_memory", lambda device: 24e9)
    assert lines_of(examples, found, tiny.model)[2] == (
        "There are 24.0 GB here: without gradient_checkpointing it does not fit; turn it on"
    )
    estimates[True] = (0.6, 26e9)
    assert lines_of(examples, found, tiny.model)[2].endswith("choose a smaller batch_size, frames or resolution")
    estimates[False] = (0.5, 20e9)
    assert len(lines_of(examples, found, tiny.model)) == 2

    def full(*given):
        raise ValueError("out of memory at 2 clips")

    monkeypatch.setattr(told, "estimate", full)
    assert lines_of(examples, found, tiny.model)[0].endswith("does not fit here: out of memory at 2 clips")


def test_the_estimate_stops_where_the_artist_does(tiny, data):
    management = pack("nodes.comfy.training.estimate").management
    examples = examples_of(tiny, data[0])
    management.interrupt_current_processing()
    with pytest.raises(management.InterruptProcessingException):
        pack("nodes.comfy.training.estimate").lines_of(examples, data[0], tiny.model)
    assert not management.processing_interrupted()


def examples_of(tiny, found):
    module = pack("nodes.comfy.training.data")
    encoder = pack("nodes.comfy.training.encoders").VideoEncoder(tiny.vae)
    return module.examples_in(found, {"data": {"validation": 0}}, {}, "1.2", encoder)[0]


# --- the run


def test_a_run_makes_what_other_nodes_take(tiny, data):
    model, lora, losses, training = train(tiny, data, name="taken", sample_prompts="a circle", sample_every=1)
    assert len(losses["loss"]) == 2 and all(isinstance(value, float) for value in losses["loss"])
    assert all("temporal_blocks" in key for key in lora) and any(value.abs().max() > 0 for value in lora.values())
    assert set(model.patches) == {f"{key.removesuffix('.alpha')}.weight" for key in lora if key.endswith(".alpha")}
    assert not tiny.model.patches
    by_core = stock("comfy_extras.nodes_train", "LoraModelLoader", model=tiny.model, lora=lora, strength_model=1.0)[0]
    assert set(by_core.patches) == set(model.patches)
    assert sorted({sample.step for sample in training.samples}) == [0, 1, 2]
    curve, samples, report = run("OpenSoraTrainingReport", training=training)
    assert curve.shape[2] == samples.shape[2] and "2 clips, 2 steps" in report and str(training.lora) in report
    # The same once more is not trained again, and its file is the same one.
    again = train(tiny, data, name="taken", sample_prompts="a circle", sample_every=1)[3]
    assert again.lora == training.lora and again.lines == training.lines
    other = train(tiny, data, name="taken", seed=1)[3]
    assert other.lora.name == "taken_00002.safetensors" and other.folder != training.folder
    # More steps go on, fewer are a run of their own.
    more = train(tiny, data, name="taken", steps=3)[3]
    assert more.folder == training.folder and [line["step"] for line in more.lines] == [1, 2, 3]
    fewer = train(tiny, data, name="taken", steps=1)[3]
    assert fewer.folder != training.folder and [line["step"] for line in fewer.lines] == [1]


@pytest.mark.parametrize("where", ["trainer.trainer.judged", "trainer.trainer.try_step"])
def test_an_interrupt_is_heard_in_validation_and_in_the_trial(tiny, monkeypatch, where):
    """The node ends at once and writes no LoRA; queued again, it judges first."""
    management = pack("nodes.comfy.training.run").management
    data = run("OpenSoraDataset", vae=tiny.vae, clip=tiny.clip, folder="example clips (bundled)", batch_size=2)
    module, name = where.rpartition(".")[::2]
    original = getattr(pack(f"training.{module}"), name)

    def interrupted(*given, **named):
        management.interrupt_current_processing()
        try:
            return original(*given, **named)
        finally:
            heard.append(True)

    heard, settings = [], {"name": f"halted {name}", "steps": 1, "validation": 0.1}
    with monkeypatch.context() as patch:
        patch.setattr(pack(f"training.{module}"), name, interrupted)
        with pytest.raises(management.InterruptProcessingException):
            train(tiny, data, **settings)
    assert heard == [True] and not management.processing_interrupted()
    base = pack("nodes.comfy.training.folders").base_folder()
    assert not list(base.glob(f"halted {name}-*/log.jsonl")), "a step, or half a validation"
    assert not list(pack("nodes.comfy.training.folders").lora_folder().glob(f"halted {name}*"))
    training = train(tiny, data, **settings)[3]
    assert [(line["step"], "validation" in line) for line in training.lines] == [(0, True), (1, False), (1, True)]


def test_what_is_on_the_model_is_trained_on(tiny, data):
    """The weights of a patched MODEL are those of its file with the LoRA added; another run belongs to them."""
    weights_of, loaded = pack("nodes.comfy.training.encoders").weights_of, train(tiny, data, name="first")
    own, patched = (weights_of(model, "diffusion_model.") for model in (tiny.model, loaded[0]))
    assert own.keys() == patched.keys() == tiny.model.model.diffusion_model.state_dict().keys()
    lora = loaded[1]
    for key, value in own.items():
        stem = f"diffusion_model.{key.removesuffix('.weight')}"
        if f"{stem}.alpha" not in lora:
            assert torch.equal(patched[key], value)
            continue
        scale = lora[f"{stem}.alpha"] / lora[f"{stem}.lora_A.weight"].shape[0]
        added = scale * lora[f"{stem}.lora_B.weight"] @ lora[f"{stem}.lora_A.weight"]
        assert added.abs().max() > 0 and torch.allclose(patched[key].float(), value.float() + added, atol=1e-6)
    second = run(
        "OpenSoraTrain", model=loaded[0], dataset=data[0], name="first", steps=1, validation=0.0, sample_every=0
    )
    assert second[3].folder != loaded[3].folder


def test_a_file_tells_of_the_graph(tiny, data, monkeypatch):
    from types import SimpleNamespace

    node = node_class("OpenSoraTrain")
    hidden = SimpleNamespace(prompt={"1": {}}, extra_pnginfo={"workflow": {"nodes": []}})
    monkeypatch.setattr(node, "hidden", hidden)
    graph_of = pack("nodes.comfy.training.result").graph_of
    assert {key: json.loads(value) for key, value in graph_of(node).items()} == {
        "prompt": {"1": {}}, "workflow": {"nodes": []},
    }  # fmt: skip


@pytest.mark.parametrize(
    "values, words",
    [
        ({"name": "a/b"}, "name is 'a/b'; .* the nearest is 'a_b'"),
        ({"name": ""}, "name is ''; .* the nearest is 'my_lora'"),
        ({"name": "con"}, "name is 'con'; .* the nearest is 'con_1'"),
        ({"settings": "train: {stepps: 3}"}, "settings: train.stepps is no field; .* the nearest is steps"),
        ({"settings": "train: {rank: 0}"}, "settings: train.rank is 0; it must be within 1 … 1024; the nearest is 1"),
        ({"settings": "train: {kind: full}"}, "settings: train.kind is 'full'; the graph trains a LoRA"),
        ({"settings": "model: {vae: x}"}, "settings: model is not for this text"),
        ({"settings": "data: {path: x}"}, "settings: data.path is not for this text"),
        ({"settings": "[1"}, "settings is no YAML"),
        ({"masks": "image_heat: 0.1"}, "masks: the mask strategy is 'image_heat'; .* the nearest is image_head"),
        ({"masks": "image_head: 1.5"}, "masks: the ratio of image_head is 1.5"),
        (
            {"masks": "i2v_head_noisy: 0.5"},
            "masks: the kind of condition is 'i2v_head_noisy', .* the nearest is i2v_head$",
        ),
        ({"masks": "nothing"}, "masks is 'nothing'; it must be lines such as"),
    ],
)
def test_settings_are_refused_before_a_run_and_in_it(tiny, data, values, words):
    node = node_class("OpenSoraTrain")
    told = node.validate_inputs(**values)
    assert isinstance(told, str)
    with pytest.raises(ValueError, match=words):
        raise ValueError(told)
    with pytest.raises(ValueError, match=words):
        train(tiny, data, **values)


def test_good_settings_are_not_refused():
    good = {"name": "Größe 2", "masks": "image_head: 0.1\nrandom: 0.2", "settings": "train: {warmup: 5}"}
    assert node_class("OpenSoraTrain").validate_inputs(**good) is True
    assert node_class("OpenSoraTrain").validate_inputs(name="x", masks="i2v_head: 0.5", settings="") is True


def test_models_that_do_not_match_are_refused(tiny, data, models, vaes):
    Run = pack("nodes.comfy.training.run").Run
    with pytest.raises(
        ValueError, match="dataset was encoded by a VAE of 4 channels .vae_v1_2., and model, Open-Sora 1.3"
    ):
        Run(models["stdit3_v1_3"], data[0], "x", {})
    with pytest.raises(ValueError, match="dataset was encoded by a VAE of 4 channels"):  # it counts frames otherwise
        Run(models["stdit"], data[0], "x", {})
    with pytest.raises(ValueError, match="clip gives .* channels a token, this model reads"):
        Run(models["stdit3"], data[0], "x", {})
    with pytest.raises(ValueError, match="model is .*, not an Open-Sora transformer"):
        run("OpenSoraTrain", model=object(), dataset=data[0])


def test_the_examples_ship_with_captions():
    assert len(list(EXAMPLES.glob("*.mp4"))) == len(list(EXAMPLES.glob("*.txt"))) == 12
    assert sum(path.stat().st_size for path in EXAMPLES.iterdir()) < 60_000
