"""The templates for the official files, which are not here: what they offer to download, and that the rest of them runs."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OFFICIAL = sorted((ROOT / "workflows").glob("*(official files).json"))
FOLDERS = {
    "OpenSoraLoadModel": "diffusion_models",
    "OpenSoraLoadTextEncoder": "text_encoders",
    "OpenSoraLoadVAE": "vae",
}
# Which of the original's repositories each generation's files come from.
REPOSITORIES = {
    "1.1": {"hpcai-tech/OpenSora-STDiT-v2-stage3", "stabilityai/sd-vae-ft-ema"},
    "1.2": {"hpcai-tech/OpenSora-STDiT-v3", "hpcai-tech/OpenSora-VAE-v1.2"},
}
TINY = "tiny (bundled)"


def graph(path):
    return json.loads(path.read_text(encoding="utf-8"))


def only(workflow, kind):
    (node,) = [node for node in workflow["nodes"] if node["type"] == kind]
    return node


def generation(path):
    return path.stem.removeprefix("Open-Sora ")[:3]


def test_both_generations_have_both_templates():
    tasks = {(generation(path), path.stem.split(" ", 2)[2]) for path in OFFICIAL}
    both = ("text to video (official files)", "image to video (official files)")
    assert tasks == {(version, task) for version in REPOSITORIES for task in both}


@pytest.mark.parametrize("path", OFFICIAL, ids=lambda path: path.stem)
def test_every_loader_offers_its_file(path):
    """ComfyUI's missing-model dialog shows an entry whose name a widget has, from an address and folder it accepts."""
    workflow, listed = graph(path), (ROOT / "docs" / "official-files.md").read_text(encoding="utf-8")
    note = only(workflow, "MarkdownNote")["widgets_values"][0]
    repositories = set()
    for kind, folder in FOLDERS.items():
        node = only(workflow, kind)
        (entry,) = node["properties"]["models"]
        assert entry.keys() == {"name", "url", "directory"}
        assert entry["name"] == node["widgets_values"][0] and entry["directory"] == folder
        assert entry["name"].endswith(".safetensors")
        assert entry["url"].startswith("https://huggingface.co/") and entry["url"].endswith(".safetensors")
        repository, file = entry["url"].removeprefix("https://huggingface.co/").split("/resolve/main/")
        repositories.add(repository)
        assert f"`{repository}`" in listed and f"`{file}`" in listed
        assert entry["name"] in note and entry["url"] in note
    assert repositories - {"comfyanonymous/flux_text_encoders"} == REPOSITORIES[generation(path)]


@pytest.mark.parametrize("path", OFFICIAL, ids=lambda path: path.stem)
def test_settings_are_the_originals(path):
    workflow = graph(path)
    steps, cfg, sampler, denoise = only(workflow, "OpenSoraSampler")["widgets_values"][2:]
    _, score, motion, camera, clean = only(workflow, "OpenSoraTextEncode")["widgets_values"]
    resolution, aspect_ratio, frames, fps = only(workflow, "OpenSoraEmptyLatent")["widgets_values"][:4]
    assert (cfg, sampler, denoise, motion, camera, clean) == (7, "original", 1, 0, "none", True)
    assert (resolution, aspect_ratio, fps) == ("240p", "16:9", 24)
    assert (steps, score, frames) == {"1.1": (100, 0, 16), "1.2": (30, 6.5, 51)}[generation(path)]


@pytest.mark.parametrize("path", OFFICIAL, ids=lambda path: path.stem)
def test_nothing_but_the_files_is_missing(path, server):
    """A loader names the file it lacks, and nothing else is found fault with; with other files the graph runs."""
    prompt = server.page_workflow_to_api(graph(path))
    error = server.post_prompt(prompt).error
    if "node_errors" in error:  # newer versions of ComfyUI compare names with the list before they start
        kinds = {prompt[node]["class_type"]: fault["errors"] for node, fault in error["node_errors"].items()}
        assert {error["type"] for errors in kinds.values() for error in errors} == {"value_not_in_list"}
        assert kinds.keys() == FOLDERS.keys()
    else:
        kind = error["node_type"]
        name = only(graph(path), kind)["widgets_values"][0]
        assert f"'{name}' is not in models/{FOLDERS[kind]}; there are: {TINY}" in error["exception_message"]

    changes = {
        "OpenSoraLoadModel": {"model_name": TINY},
        "OpenSoraLoadTextEncoder": {"text_encoder_name": TINY},
        "OpenSoraLoadVAE": {"vae_name": TINY},
        "OpenSoraEmptyLatent": {"resolution": "auto", "aspect_ratio": "auto", "frames": 17},
        "OpenSoraSampler": {"steps": 2},
    }
    for node in prompt.values():
        node["inputs"].update(changes.get(node["class_type"], {}))
    files = server.run(prompt).files()
    assert [file["filename"].endswith(".mp4") for file in files] == [True]
    assert server.view(files[0])[4:8] == b"ftyp"
