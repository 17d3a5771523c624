"""run.py: workflows in page format become prompts, with another prompt and seed where they are asked for."""

import json
from pathlib import Path

import pytest

from runner.server import workflow

DATA = Path(__file__).resolve().parents[1] / "data"


@pytest.fixture(scope="module")
def golden():
    """A page workflow with every kind of node that needs care, and what ComfyUI's page makes of it (front end 1.32)."""
    return json.loads((DATA / "page_workflow.json").read_text(encoding="utf-8"))


def test_page_to_api_agrees_with_the_page(golden):
    assert workflow.page_to_api(golden["workflow"], golden["object_info"]) == golden["api"]
    types = {node["type"] for node in golden["workflow"]["nodes"]}
    assert {"Note", "MarkdownNote", "Reroute", "PrimitiveNode"} < types
    assert {node["mode"] for node in golden["workflow"]["nodes"]} == {0, 2, 4}


def test_links_as_objects_mean_the_same(golden):
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    page = dict(golden["workflow"])
    page["links"] = [dict(zip(names, link, strict=True)) for link in page["links"]]
    assert workflow.page_to_api(page, golden["object_info"]) == golden["api"]


def test_a_choice_brings_its_own_inputs():
    """Newer versions of ComfyUI have combos whose choice decides which inputs follow, and save those in between."""
    dynamic = "COMFY_DYNAMICCOMBO_V3"
    quality = {"required": {"crf": ["FLOAT", {"default": 23.0}]}}
    modes = [dynamic, {"options": [{"key": "auto", "inputs": {"required": {}}}, {"key": "own", "inputs": quality}]}]
    codecs = [{"key": "h264", "inputs": {"required": {}, "optional": {"mode": modes}}}]
    formats = [{"key": "auto", "inputs": {"required": {}}}]
    formats += [{"key": "mp4", "inputs": {"required": {"codec": [dynamic, {"options": codecs}]}}}]
    inputs = {"required": {"name": ["STRING", {}], "format": [dynamic, {"options": formats}], "loop": ["BOOLEAN", {}]}}
    info = {"Save": {"input": inputs}}

    def sent(*values):
        page = {"nodes": [{"id": 1, "type": "Save", "widgets_values": list(values)}]}
        return workflow.page_to_api(page, info)["1"]["inputs"]

    mp4 = {"name": "a", "format": "mp4", "format.codec": "h264"}
    assert sent("a", "mp4", "h264", "own", 18.0, True) == {
        **mp4, "format.codec.mode": "own", "format.codec.mode.crf": 18.0, "loop": True,
    }  # fmt: skip
    assert sent("a", "mp4", "h264") == {**mp4, "format.codec.mode": "auto"}  # saved before the choice had more to say
    assert sent("a", "auto", True) == {"name": "a", "format": "auto", "loop": True}
    assert sent("a") == {"name": "a", "format": "auto"}


def test_an_unknown_node_and_a_subgraph_are_named(golden):
    info = dict(golden["object_info"])
    del info["KSampler"]
    with pytest.raises(workflow.WorkflowError, match="no node 'KSampler'"):
        workflow.page_to_api(golden["workflow"], info)
    node = {"id": 1, "type": "abc", "mode": 0}
    page = {"nodes": [node], "links": [], "definitions": {"subgraphs": [{"id": "abc", "name": "My part"}]}}
    with pytest.raises(workflow.WorkflowError, match="'My part' has to be unpacked"):
        workflow.page_to_api(page, info)


def test_dynamic_prompts():
    def last(alternatives):
        return alternatives[-1]

    assert workflow.choose("a {red|{blue|green}} ball // aside", last) == "a green ball "
    assert workflow.choose(r"\{kept\} /* gone */", last) == "{kept} "


def test_prompt_and_seed_are_replaced():
    graph = {
        "1": {"class_type": "OpenSoraTextEncode", "inputs": {"prompt": "old", "clip": ["2", 0]}},
        "3": {"class_type": "OpenSoraSampler", "inputs": {"seed": 5}},
    }
    workflow.set_prompt(graph, "new")
    workflow.shift_seeds(graph, 2)
    assert graph["1"]["inputs"] == {"prompt": "new", "clip": ["2", 0]}
    assert graph["3"]["inputs"] == {"seed": 7}
    with pytest.raises(workflow.WorkflowError, match="no OpenSoraTextEncode"):
        workflow.set_prompt({"3": graph["3"]}, "new")


def test_the_negative_prompt_stays():
    texts = {key: {"class_type": "OpenSoraTextEncode", "inputs": {"prompt": key, "clip": ["9", 0]}} for key in "123"}
    graph = {
        **texts,
        "4": {"class_type": "OpenSoraSampler", "inputs": {"positive": ["1", 0], "negative": ["2", 0]}},
        "5": {"class_type": "OpenSoraSampler", "inputs": {"positive": ["3", 0], "negative": ["3", 0]}},
    }
    workflow.set_prompt(graph, "new")
    assert [graph[key]["inputs"]["prompt"] for key in "123"] == ["new", "2", "new"]
