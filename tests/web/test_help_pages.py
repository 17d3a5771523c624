"""Help pages: what one does with the mouse comes first, what a script writes last; the same in Chinese."""

import json
import re
import sys
from pathlib import Path

import pytest
from small import pack

ROOT = Path(__file__).resolve().parents[2]
MOUSE = {"en": "With the mouse", "zh": "用鼠标操作"}
PICTURE = re.compile(r"!\[[^\]]+\]\(([^)]+)\)")


def page(node_id, language):
    folder = ROOT / sys.modules["opensora_comfy"].WEB_DIRECTORY / "docs"
    path = folder / f"{node_id}.md" if language == "en" else folder / node_id / f"{language}.md"
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def schemas(comfy):
    return [node.define_schema() for node in pack("nodes").NODES]


@pytest.mark.parametrize("language", MOUSE)
def test_pages_begin_with_the_mouse_and_end_with_the_api(language, schemas):
    for schema in schemas:
        text = page(schema.node_id, language)
        headings = re.findall(r"(?m)^## (.+)$", text)
        assert headings[0] == MOUSE[language], schema.node_id
        if "{" in text and "API" in "".join(headings):
            assert "API" in headings[-1], schema.node_id


def test_chinese_pages_speak_of_every_widget_under_its_name(schemas):
    names = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
    for schema in schemas:
        text, known = page(schema.node_id, "zh"), names[schema.node_id]
        assert text.startswith(f"# {known['display_name']}\n"), schema.node_id
        for item in schema.inputs:
            if hasattr(item, "default"):
                name = known["inputs"][item.id]["name"]
                assert f"**{name}**(`{item.id}`)" in text, f"{schema.node_id}: {item.id}"


def test_chinese_pages_have_the_sections_and_tables_of_the_english(schemas):
    for schema in schemas:
        english, chinese = page(schema.node_id, "en"), page(schema.node_id, "zh")
        for mark in (r"(?m)^##+ ", r"(?m)^\|", r"(?m)^\d\. "):
            assert len(re.findall(mark, chinese)) == len(re.findall(mark, english)), (schema.node_id, mark)


def test_pictures_of_the_pages_are_there_and_small(schemas):
    folder = ROOT / sys.modules["opensora_comfy"].WEB_DIRECTORY / "docs"
    shown = {node.node_id: PICTURE.findall(page(node.node_id, "en")) for node in schemas}
    for node_id, pictures in shown.items():
        for picture in pictures:
            assert (folder / picture).stat().st_size < 200_000, picture
            assert picture in PICTURE.findall(page(node_id, "zh")), f"{node_id}: {picture}"
    assert {"OpenSoraTimeline", "OpenSoraKeyframe", "OpenSoraMaskRegion", "OpenSoraEmptyLatent"} <= {
        node_id for node_id, pictures in shown.items() if pictures
    }
