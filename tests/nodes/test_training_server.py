"""Training in a real server: the example clips become a LoRA, an interrupt keeps what is learned, files tell their graph."""

import io
import json
import shutil
import time

import av
import pytest
import torch
from conftest import ROOT
from PIL import Image
from prompts import as_prompt, text_to_latent
from safetensors import safe_open

STEPS, PROMPT = 3, "a circle moves right"
SAMPLING = {"seed": 5, "steps": 2, "cfg": 3.0, "sampler_name": "original", "denoise": 1.0}
DATA = {"vae": ["vae", 0], "clip": ["clip", 0], "folder": "mine", "resolution": "auto", "frames": 0,
        "batch_size": 2, "way": "buckets", "trigger": ""}  # fmt: skip
TRAIN = {"model": ["model", 0], "dataset": ["data", 0], "name": "ember", "branches": "look", "steps": STEPS,
         "learning_rate": 0.01, "rank": 2, "seed": 1, "validation": 0.0, "sample_prompts": PROMPT,
         "sample_every": 0, "settings": "train: {warmup: 0}"}  # fmt: skip


def training(**values):
    """The nodes of a run."""
    return {
        **text_to_latent(PROMPT, frames=17),
        "data": ("OpenSoraDataset", DATA),
        "train": ("OpenSoraTrain", TRAIN | values),
    }


def saved(name, model):
    """Nodes that sample with a model and save the latents."""
    inputs = {"model": model, "positive": ["text", 0], "latent": ["empty", 0], **SAMPLING}
    return {
        f"sample {name}": ("OpenSoraSampler", inputs),
        f"save {name}": ("SaveLatent", {"samples": [f"sample {name}", 0], "filename_prefix": f"latents/{name}"}),
    }


def latents_of(server, result, name):
    """The latents that `saved` has saved."""
    (file,) = result.outputs[f"save {name}"]["latents"]
    with safe_open(server.base / "output" / file["subfolder"] / file["filename"], framework="pt") as saved_file:
        return saved_file.get_tensor("latent_tensor")


def lora_files(server):
    return sorted((server.base / "models" / "loras").glob("*.safetensors"))


def with_file(name, strength):
    """The node that loads a LoRA as ComfyUI does."""
    return ("LoraLoaderModelOnly", {"model": ["model", 0], "lora_name": name, "strength_model": strength})


@pytest.fixture(scope="module", autouse=True)
def clips(server):
    """Three of the example clips, in a folder of ComfyUI's input folder."""
    folder = server.base / "input" / "mine"
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted((ROOT / "assets" / "training_clips").glob("*"))[:6]:
        shutil.copyfile(path, folder / path.name)


@pytest.fixture(scope="module")
def trained(server):
    """(the first run's Result, its graph): the data set, a run of STEPS, and both models at work."""
    graph = training() | saved("trained", ["train", 0]) | saved("base", ["model", 0])
    graph["report"] = ("OpenSoraTrainingReport", {"training": ["train", 3]})
    graph["loss"] = ("LossGraphNode", {"loss": ["train", 2], "filename_prefix": "loss"})
    return server.run(as_prompt(graph)), graph


def test_the_lora_file_gives_what_the_model_output_gives(server, trained):
    """Bit for bit, by ComfyUI's own loader; at strength 0 nothing is different."""
    result, graph = trained
    (file,) = [each for each in lora_files(server) if each.name.startswith("ember")]
    assert file.name == "ember.safetensors"
    graph = graph | {"file": with_file(file.name, 1.0), "nothing": with_file(file.name, 0.0)}
    graph |= saved("by file", ["file", 0]) | saved("at nothing", ["nothing", 0])
    again = server.run(as_prompt(graph))
    base, ours = (latents_of(server, result, name) for name in ("base", "trained"))
    assert (base - ours).abs().max() > 1e-3
    assert torch.equal(latents_of(server, again, "by file"), ours)
    assert torch.equal(latents_of(server, again, "at nothing"), base)


def test_the_nodes_show_the_clips_the_curve_and_the_loss(server, trained):
    result, _ = trained
    for node in ("data", "report", "loss"):
        (file,) = result.outputs[node]["images"]
        picture = Image.open(io.BytesIO(server.view(file)))
        assert picture.width >= 500 and max(high - low for low, high in picture.convert("RGB").getextrema()) > 100, node
    assert "3 clips" in result.outputs["data"]["text"][0]
    for node in ("train", "report"):
        assert f"{STEPS} steps" in result.outputs[node]["text"][0]
    assert result.previews


def test_the_lora_file_says_how_it_was_made_and_opens_its_graph(server, trained):
    """Graph and settings are in the file's metadata, where the page looks for them."""
    workflow = {"nodes": [], "version": 0.4, "of": "a test"}
    graph = as_prompt(training(name="told", steps=1))
    queued = {"prompt": graph, "extra_data": {"extra_pnginfo": {"workflow": workflow}}}
    number = server.client.post("/prompt", queued)["prompt_id"]
    ended = wait_for(lambda: server.client.get(f"/history/{number}").get(number))
    assert ended["status"]["status_str"] == "success", ended["status"]
    with safe_open(server.base / "models" / "loras" / "told.safetensors", framework="pt") as file:
        metadata = file.metadata()
    run = {
        node: {"class_type": each["class_type"], "inputs": each["inputs"]}
        for node, each in json.loads(metadata["prompt"]).items()
    }
    assert json.loads(metadata["workflow"]) == workflow and run == graph
    told = json.loads(metadata["opensora_lora"])
    assert told["settings"]["train"]["rank"] == 2 and told["clips"] == 3


def test_an_interrupt_keeps_what_is_learned_and_the_next_run_goes_on(server):
    steps, seen = 12, []

    def watch(kind, data):
        watch_on(kind, data, seen, steps)
        if seen and seen[-1] == 3:
            server.interrupt()

    graph = as_prompt(training(name="halted", steps=steps))
    stopped = server.post_prompt(graph, on_event=watch)
    assert stopped.interrupted and not stopped.success and 3 <= seen[-1] < steps
    assert server.alive() and "halted.safetensors" not in {file.name for file in lora_files(server)}
    done = seen[-1]
    seen.clear()
    assert server.post_prompt(graph, on_event=lambda kind, data: watch_on(kind, data, seen, steps)).success
    assert done < seen[0] <= done + 3 and seen[-1] == steps  # the step it stopped in is not told of any more
    (log,) = (server.base / "output" / "opensora_training").glob("halted-*/log.jsonl")
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert [entry["step"] for entry in entries] == list(range(1, steps + 1))
    # What is finished is not trained again; what else is asked of it is added.
    seen.clear()
    more = as_prompt(training(name="halted", steps=steps, sample_every=1000))
    again = server.post_prompt(more, on_event=lambda kind, data: watch_on(kind, data, seen, steps))
    assert again.success and not seen
    assert [file.name for file in lora_files(server) if file.name.startswith("halted")] == ["halted.safetensors"]
    (clip,) = log.parent.glob("samples/*/step-000012-0.mp4")
    with av.open(str(clip)) as container:
        assert len(list(container.decode(video=0))) == 17


def watch_on(kind, data, seen, steps):
    """Note the steps that a run reports."""
    if kind == "progress" and data["node"] == "train" and data["max"] == steps:
        seen.append(data["value"])


def wait_for(answer, seconds=120):
    """What `answer` gives, once it gives something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = answer()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"nothing within {seconds} s")
