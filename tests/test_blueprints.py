"""The subgraph blueprints as files: what ComfyUI lists them by, how they hang together, how they are laid out."""

import json
import re
from itertools import combinations
from pathlib import Path

import pytest
from layout_page import TALLER

ROOT = Path(__file__).resolve().parent.parent
FILES = {path.stem: path for path in (ROOT / "subgraphs").glob("*.json")}
# name: the inputs that are wired, the others are widgets
WIRED = {
    "Text to Video (Open-Sora)": {},
    "Image to Video (Open-Sora)": {"first_frame": "IMAGE"},
    "First-Last Frame to Video (Open-Sora)": {"first_frame": "IMAGE", "last_frame": "IMAGE"},
    "Keyframe Timeline to Video (Open-Sora)": {f"image_{number}": "IMAGE" for number in range(1, 9)},
    "Extend Video (Open-Sora)": {"video": "VIDEO"},
    "Connect Videos (Open-Sora)": {"first_video": "VIDEO", "second_video": "VIDEO"},
    "Seamless Loop (Open-Sora)": {"video": "VIDEO"},
    "Inpaint Video (Open-Sora)": {"video": "VIDEO", "mask": "MASK"},
}
IN, OUT = -10, -20  # the page's numbers for a subgraph's two ends
TITLE, MARGIN = 30, 48  # a node's title above it; what the newer node renderer adds below


def blueprint(name):
    """(the one node, its subgraph, the workflow around them)."""
    graph = json.loads(FILES[name].read_text(encoding="utf-8"))
    (node,), (subgraph,) = graph["nodes"], graph["definitions"]["subgraphs"]
    assert node["type"] == subgraph["id"]
    return node, subgraph, graph


def test_every_blueprint_is_here():
    assert set(FILES) == set(WIRED)


def test_the_server_lists_and_serves_them(server):
    listed = server.client.get("/global_subgraphs")
    ours = {entry["name"]: key for key, entry in listed.items() if "(Open-Sora)" in entry["name"]}
    assert set(ours) == set(WIRED)
    for name, key in ours.items():
        served = server.client.get(f"/global_subgraphs/{key}")["data"]
        assert json.loads(served) == json.loads(FILES[name].read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", WIRED)
def test_what_it_is_listed_by(name):
    """ComfyUI 0.3.75 reads the files in the system's encoding, and its page takes the description from `extra`."""
    assert FILES[name].read_bytes().isascii()
    node, subgraph, graph = blueprint(name)
    assert node["title"] == subgraph["name"] == name
    assert subgraph["category"].startswith("Open-Sora")
    assert subgraph["description"] == graph["extra"]["BlueprintDescription"]
    assert len(subgraph["description"]) > 60 and "Open-Sora" in subgraph["description"]
    ids = [other[1]["id"] for other in map(blueprint, WIRED)]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", WIRED)
def test_what_it_shows(name):
    """Wires first, then the prompt; plain names; a video comes out; the seed and what becomes of it can be set."""
    node, subgraph, _ = blueprint(name)
    assert [each["name"] for each in node["inputs"]] == [each["name"] for each in subgraph["inputs"]]
    wired = {each["name"]: each["type"] for each in node["inputs"] if "widget" not in each}
    widgets = [each["name"] for each in node["inputs"] if "widget" in each]
    assert wired == WIRED[name]
    assert [each["name"] for each in node["inputs"]] == [*wired, *widgets]
    assert widgets[0] == "prompt" and {"model", "text_encoder", "vae", "steps", "cfg"} < set(widgets)
    assert all(re.fullmatch("[a-z]+(_[a-z0-9]+)*", each) for each in (*wired, *widgets))
    assert [(each["name"], each["type"]) for each in node["outputs"]] == [("video", "VIDEO")]
    (sampler,) = [each for each in subgraph["nodes"] if "randomize" in each["widgets_values"]]
    assert node["properties"]["proxyWidgets"] == [[str(sampler["id"]), "seed"],
                                                  [str(sampler["id"]), "control_after_generate"]]  # fmt: skip


@pytest.mark.parametrize("name", WIRED)
def test_links_agree_at_both_ends(name):
    _, subgraph, _ = blueprint(name)
    nodes = {node["id"]: node for node in subgraph["nodes"]}
    seen = set()
    for link in subgraph["links"]:
        number, kind = link["id"], link["type"]
        if link["origin_id"] == IN:
            origin = subgraph["inputs"][link["origin_slot"]]
            assert number in origin["linkIds"]
        else:
            origin = nodes[link["origin_id"]]["outputs"][link["origin_slot"]]
            assert number in origin["links"]
        if link["target_id"] == OUT:
            target = subgraph["outputs"][link["target_slot"]]
            assert target["linkIds"] == [number]
        else:
            target = nodes[link["target_id"]]["inputs"][link["target_slot"]]
            assert target["link"] == number
        assert origin["type"] == target["type"] == kind
        seen.add(number)
    assert len(seen) == len(subgraph["links"])
    named = [number for end in (*subgraph["inputs"], *subgraph["outputs"]) for number in end["linkIds"]]
    named += [each["link"] for node in nodes.values() for each in node["inputs"] if each["link"]]
    named += [number for node in nodes.values() for each in node["outputs"] for number in each["links"] or ()]
    assert set(named) == seen and len(named) == 2 * len(seen)
    left_open = [
        f"{node['type']}.{each['name']}"
        for node in nodes.values()
        for each in node["inputs"]
        if each["link"] is None and "widget" not in each and each.get("shape") != 7
    ]
    assert left_open == []


@pytest.mark.parametrize("name", WIRED)
def test_values_are_those_of_the_templates(name):
    known = {}
    for path in (ROOT / "workflows").glob("*.json"):
        graph = json.loads(path.read_text(encoding="utf-8"))
        for node in graph.get("nodes", ()):
            known.setdefault(node["type"], []).append(node.get("widgets_values") or [])
    assert {"OpenSoraLoadModel", "OpenSoraSampler", "OpenSoraTextEncode"} < set(known)
    _, subgraph, _ = blueprint(name)
    for node in subgraph["nodes"]:
        assert node["type"] not in known or node["widgets_values"] in known[node["type"]], node


@pytest.mark.parametrize("name", WIRED)
def test_the_inside_is_laid_out(name):
    """Every node in one group, none over another, what feeds a node on its left or above it."""
    _, subgraph, _ = blueprint(name)

    def box(node):
        (x, y), (width, height) = node["pos"], node["size"]
        return x, y - TITLE, x + width, y + height + TALLER.get(node["type"], 0) + MARGIN

    for one, other in combinations(subgraph["nodes"], 2):
        a, b = box(one), box(other)
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart, (one["type"], other["type"])
    for node in subgraph["nodes"]:
        x, y, right, bottom = box(node)
        around = [
            group["title"]
            for group in subgraph["groups"]
            if group["bounding"][0] <= x and group["bounding"][1] + TITLE <= y
            and right <= group["bounding"][0] + group["bounding"][2]
            and bottom - MARGIN <= group["bounding"][1] + group["bounding"][3]
        ]  # fmt: skip
        assert len(around) == 1, (node["type"], around)
    place = {node["id"]: node["pos"] for node in subgraph["nodes"]}
    for link in subgraph["links"]:
        if link["origin_id"] != IN and link["target_id"] != OUT:
            (x, y), (to_x, to_y) = place[link["origin_id"]], place[link["target_id"]]
            assert x < to_x or (x == to_x and y < to_y), link
