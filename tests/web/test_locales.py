"""Names, descriptions and tooltips in other languages: every node has them in each, and ComfyUI finds them."""

import json
from pathlib import Path

import pytest
from small import pack

ROOT = Path(__file__).resolve().parents[2]
LOCALES = sorted(path for path in (ROOT / "locales").iterdir())
CATEGORY = "Open-Sora"
# Languages whose tooltips and descriptions are translated too.
EXPLAINED = {"es", "fr", "ja", "ko", "ru", "zh", "zh-TW"}


def translations(language, kind):
    return json.loads((language / f"{kind}.json").read_text(encoding="utf-8"))


def shape_of(node):
    """What there is of a node in a nodeDefs.json, without the words."""
    inputs, outputs = node["inputs"], node.get("outputs", {})
    return {key: sorted(item) for key, item in [("", node), *inputs.items(), *outputs.items()]}


def shape_to_be(schema, explained):
    """The same for what a schema says: names of the outputs only where they have names of their own."""
    tooltip = ["tooltip"] if explained else []
    named = {str(index): ["name"] for index, item in enumerate(schema.outputs) if item.display_name}
    outputs = {str(index): [*named.get(str(index), []), *tooltip] for index in range(len(schema.outputs))}
    outputs = {index: keys for index, keys in outputs.items() if keys}
    top = [*(["description"] if explained else []), "display_name", "inputs", *(["outputs"] if outputs else [])]
    return {"": top, **{item.id: ["name", *tooltip] for item in schema.inputs}, **outputs}


@pytest.fixture(scope="module")
def schemas(comfy):
    return [node.define_schema() for node in pack("nodes").NODES]


def test_the_languages_are_those_of_comfyui():
    assert [path.name for path in LOCALES] == ["es", "fr", "ja", "ko", "ru", "zh", "zh-TW"]


@pytest.mark.parametrize("language", LOCALES, ids=lambda path: path.name)
def test_every_text_is_translated_and_nothing_else(language, schemas):
    nodes = translations(language, "nodeDefs")
    explained = language.name in EXPLAINED
    wanted = {schema.node_id: shape_to_be(schema, explained) for schema in schemas}
    assert {key: shape_of(node) for key, node in nodes.items()} == wanted
    for schema in schemas:
        node = nodes[schema.node_id]
        texts = [node["display_name"], node.get("description", "-")]
        texts += [text for item in {**node["inputs"], **node.get("outputs", {})}.values() for text in item.values()]
        assert all(text and text == text.strip() for text in texts), schema.node_id
        inputs = [item["name"] for item in node["inputs"].values()]
        assert len(set(inputs)) == len(inputs), f"{schema.node_id}: two inputs of the same name"
        assert node["display_name"] != schema.display_name
        if explained:
            english = [item.tooltip for item in [*schema.inputs, *schema.outputs] if item.tooltip in texts]
            assert not english and node["description"] != schema.description, f"{schema.node_id}: still in English"
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
