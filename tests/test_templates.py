"""The templates' files: names in order, cards that move, apps that are their templates."""

import json

import pytest
from layout_page import TALLER, overlapping, sticking_out
from PIL import Image

from runner.templates import OFFICIAL, WORKFLOWS, app_of, number_of, templates

APPS = sorted(WORKFLOWS.glob("*.app.json"))
MOVING = sorted(path for path in WORKFLOWS.glob("*.jpg") if OFFICIAL not in path.name)


def test_names_sort_and_read_like_titles():
    """Allowed on every system, and in the order in which one learns."""
    names = [path.stem for path in templates()]
    assert [name.split(" ")[0] for name in names] == [str(number + 1) for number in range(len(names))]
    for path in WORKFLOWS.glob("*.*"):
        assert not set(path.stem) & set('<>:"/\\|?*#%&{}[]') and path.stem == path.stem.strip(" .")


@pytest.mark.parametrize("path", templates(), ids=lambda path: path.stem)
def test_an_app_is_its_template(path):
    """Made by runner/templates.py, never by hand; what it shows is there."""
    workflow = json.loads(path.read_text(encoding="utf-8"))
    app = json.loads(path.with_suffix(".app.json").read_text(encoding="utf-8"))
    assert app == app_of(workflow)
    assert app | {"extra": 0} == workflow | {"extra": 0}
    nodes = {node["id"]: node for node in app["nodes"]}
    shown = app["extra"]["linearData"]
    names = {(nodes[node]["type"], widget) for node, widget, *_ in shown["inputs"]}
    assert ("OpenSoraTextEncode", "prompt") in names and any(widget == "seed" for _, widget in names)
    for node, widget, *_ in shown["inputs"]:
        assert widget in [item["widget"]["name"] for item in nodes[node]["inputs"] if "widget" in item]
    assert [nodes[node]["type"] for node in shown["outputs"]] == ["SaveVideo"]


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.json")), ids=lambda path: path.stem)
def test_there_is_room_for_what_newer_versions_add(path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    nodes = []
    for node in workflow["nodes"]:
        (x, y), (width, height) = node["pos"], node["size"]
        nodes.append((node["type"], (x, y - 30, width, height + 30 + TALLER.get(node["type"], 0))))
    assert overlapping(nodes) == []
    assert sticking_out(nodes, [(group["title"], group["bounding"]) for group in workflow["groups"]]) == []


def test_every_template_of_the_tiny_model_has_an_app():
    assert {path.name.removesuffix(".app.json") for path in APPS} == {path.stem for path in templates()}


def test_cards_move_and_no_two_are_alike():
    """WebP under the name that the template browser asks for; the first picture is what a still browser shows."""
    assert len(MOVING) == 2 * len(templates())
    firsts = set()
    for path in MOVING:
        with Image.open(path) as card:
            assert card.format == "WEBP" and card.n_frames >= 17 and card.info["loop"] == 0, path.name
            size = card.size
            firsts.add(path.read_bytes())
        assert size[0] == size[1] and path.stat().st_size < 100_000, path.name
    assert len(firsts) == len(MOVING)


@pytest.mark.parametrize("path", MOVING, ids=lambda path: path.stem)
def test_a_card_shows_the_clip_of_its_template(path):
    """As many pictures as the template makes frames, and four that lead back to the first."""
    frames = {"3": 34, "4": 34, "5": 34, "6": 51, "7": 34}.get(number_of(path), 17)
    with Image.open(path) as card:
        assert card.n_frames == frames + 4
