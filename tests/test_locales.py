"""Names in other languages: every node and input has one in each, and ComfyUI finds them."""

import json
from pathlib import Path

import pytest
from small import pack

ROOT = Path(__file__).resolve().parent.parent
LOCALES = sorted(path for path in (ROOT / "locales").iterdir())
CATEGORY = "Open-Sora"


def translations(language, kind):
    return json.loads((language / f"{kind}.json").read_text(encoding="utf-8"))


def untranslated(schemas):
    """What a language's nodeDefs.json has to name: {node: (inputs, numbers of the outputs that have names of their own)}."""
    return {
        schema.node_id: (
            [item.id for item in schema.inputs],
            [str(index) for index, item in enumerate(schema.outputs) if item.display_name],
        )
        for schema in schemas
    }


@pytest.fixture(scope="module")
def schemas(comfy):
    return [node.define_schema() for node in pack("nodes").NODES]


def test_the_languages_are_those_of_comfyui():
    assert [path.name for path in LOCALES] == ["es", "fr", "ja", "ko", "ru", "zh", "zh-TW"]


@pytest.mark.parametrize("language", LOCALES, ids=lambda path: path.name)
def test_every_name_is_translated_and_nothing_else(language, schemas):
    nodes = translations(language, "nodeDefs")
    named = {key: (list(node["inputs"]), list(node.get("outputs", {}))) for key, node in nodes.items()}
    assert named == untranslated(schemas)
    for schema in schemas:
        node = nodes[schema.node_id]
        names = [
            node["display_name"],
            *(item["name"] for item in {**node["inputs"], **node.get("outputs", {})}.values()),
        ]
        assert all(name and name == name.strip() for name in names), schema.node_id
        inputs = [item["name"] for item in node["inputs"].values()]
        assert len(set(inputs)) == len(inputs), f"{schema.node_id}: two inputs of the same name"
        assert node["display_name"] != schema.display_name
    titles = [node["display_name"] for node in nodes.values()]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("language", LOCALES, ids=lambda path: path.name)
def test_every_category_is_translated(language, schemas):
    categories = {part for schema in schemas for part in schema.category.split("/")} - {CATEGORY}
    assert set(translations(language, "main")["nodeCategories"]) == categories


def test_comfyui_hands_them_to_the_page(server):
    """(Front ends of 0.3.75's time read them too early and go on in English; newer ones show them.)"""
    handed = server.client.get("/i18n")
    for language in LOCALES:
        assert handed[language.name]["nodeDefs"] == translations(language, "nodeDefs")
        assert handed[language.name]["nodeCategories"] == translations(language, "main")["nodeCategories"]
