"""The page's own words: every text of web/*.js, of the nodes' reports and of the templates is in every language."""

import ast
import json
import re
from pathlib import Path

import pytest
from small import pack

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = sorted(path.name for path in (ROOT / "locales").iterdir())
CALL = re.compile(r"(?<![.\w])say\(\s*")
TEXT = re.compile(r"'((?:[^'\\\n]|\\.)+)'|\"((?:[^\"\\\n]|\\.)+)\"|`([^`$\\]+)`")
HOLE = re.compile(r"\{(\w+)\}")


def words_of_scripts():
    """Every text that web/*.js says. A text that is put together could not be translated: that is an error."""
    found = set()
    for path in sorted((ROOT / "web").glob("*.js")):
        source = path.read_text(encoding="utf-8")
        for call in CALL.finditer(re.sub(r"(?m)^\s*//.*$|export function say\(", "", source)):
            text = TEXT.match(call.string, call.end())
            assert text, f"{path.name}: say() takes a text, not {call.string[call.end() : call.end() + 40]!r}"
            found.add(re.sub(r"\\(.)", r"\1", next(filter(None, text.groups()))))
    return found


def words_of_nodes():
    """Every text that a node says to the page (nodes/said.py). One that is put together is an error here as well."""
    found = set()
    for path in sorted((ROOT / "nodes").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", None) not in ("said", "chained"):
                continue
            text = node.args[0]
            if path.name == "said.py" and isinstance(text, ast.Name):
                continue  # chained hands on what it was given
            assert isinstance(text, ast.Constant), f"{path.name}:{node.lineno}: {ast.unparse(node)} says no plain text"
            found.add(text.value)
    return found


def words_of_templates(titles):
    """Notes, titles of groups, and titles of nodes that are not those of their kind (`titles`)."""
    found = set()
    for path in sorted((ROOT / "workflows").glob("*.json")):
        workflow = json.loads(path.read_text(encoding="utf-8"))
        for graph in [workflow, *(workflow.get("definitions") or {}).get("subgraphs", [])]:
            found |= {group["title"] for group in graph.get("groups", [])}
            for node in graph["nodes"]:
                if node["type"] in ("MarkdownNote", "Note"):
                    found.add(node["widgets_values"][0])
                if node.get("title", titles.get(node["type"])) != titles.get(node["type"]):
                    found.add(node["title"])
    return found


def table(language):
    return json.loads((ROOT / "web" / "words" / f"{language}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def texts(comfy):
    schemas = [node.define_schema() for node in pack("nodes").NODES]
    titles = {schema.node_id: schema.display_name for schema in schemas}
    return words_of_scripts() | words_of_nodes() | words_of_templates(titles)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_translated_and_nothing_else(language, texts):
    words = table(language)
    assert sorted(texts - set(words)) == [], f"{len(texts - set(words))} of {len(texts)} texts are not translated"
    assert sorted(set(words) - texts) == [], "texts that nobody says any more"
    for text, translation in words.items():
        assert translation.strip() and sorted(HOLE.findall(translation)) == sorted(HOLE.findall(text)), text
