"""Workflows: from the JSON that ComfyUI's page saves to the API format that its server runs, as the page does it."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

# Nodes that live in the page only.
NOTES = {"Note", "MarkdownNote"}
PLUMBING = {"Reroute", "PrimitiveNode"}
MUTED, BYPASSED = 2, 4
DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"  # a choice that brings further inputs, called "choice.input"
WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", DYNAMIC_COMBO}
# These options of an input make the page add a button to the node, and the button's label is saved as a value.
UPLOADS = ("image_upload", "video_upload", "audio_upload", "animated_image_upload")
Pick = Callable[[list[str]], str]  # one of several


class WorkflowError(Exception):
    """The file is no workflow that can be run; the message says why."""


def load(path: Path) -> dict:
    """Read a workflow as the page saved it. Raises WorkflowError."""
    try:
        workflow = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        nearby = sorted(p.name for p in path.parent.glob("*.json")) if path.parent.is_dir() else []
        hint = f" That folder holds: {', '.join(nearby)}." if nearby else ""
        raise WorkflowError(f"--workflow {path}: {error.strerror}.{hint}") from error
    except ValueError as error:
        raise WorkflowError(f"--workflow {path}: no JSON ({error}).") from error
    if not isinstance(workflow, dict) or not isinstance(workflow.get("nodes"), list):
        api = isinstance(workflow, dict) and any(isinstance(v, dict) and "class_type" in v for v in workflow.values())
        what = "it is in API format" if api else "it has no list of nodes"
        raise WorkflowError(f"--workflow {path}: expected a workflow as ComfyUI's page saves it, but {what}.")
    return workflow


def page_to_api(workflow: dict, object_info: dict, pick: Pick | None = None) -> dict:
    """The API graph (node id → class_type, inputs) of a page workflow; `object_info` is the server's answer.

    Muted nodes are left out, bypassed ones are passed through, Reroute and PrimitiveNode are resolved. `pick` chooses
    among the alternatives of a dynamic prompt `{a|b}`. Raises WorkflowError for unknown nodes and for subgraphs.
    """
    return _Converter(workflow, object_info, pick or random.choice).graph()


class _Converter:
    def __init__(self, workflow, object_info, pick):
        self.info, self.pick = object_info, pick
        self.nodes = {node["id"]: node for node in workflow["nodes"]}
        self.links = {}
        for link in workflow.get("links", []):
            if isinstance(link, dict):
                self.links[link["id"]] = (link["origin_id"], link["origin_slot"])
            else:
                self.links[link[0]] = (link[1], link[2])
        self.subgraphs = {s["id"]: s for s in workflow.get("definitions", {}).get("subgraphs", [])}

    def graph(self) -> dict:
        graph = {}
        for node in self.nodes.values():
            if node["type"] in NOTES | PLUMBING or node.get("mode", 0) in (MUTED, BYPASSED):
                continue
            if node["type"] in self.subgraphs:
                name = self.subgraphs[node["type"]].get("name", node["type"])
                raise WorkflowError(f"The subgraph '{name}' has to be unpacked (right-click it in the page) first.")
            if node["type"] not in self.info:
                raise WorkflowError(f"This ComfyUI has no node '{node['type']}' (node {node['id']} of the workflow).")
            graph[str(node["id"])] = {"class_type": node["type"], "inputs": self.inputs(node)}
        for node in graph.values():
            for name, value in list(node["inputs"].items()):
                # A link whose origin was left out.
                if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and value[0] not in graph:
                    del node["inputs"][name]
        return graph

    def inputs(self, node) -> dict:
        inputs = self.widget_values(node)
        for slot in node.get("inputs") or []:
            if slot.get("link") is not None:
                inputs.pop(slot["name"], None)
                source = self.source(slot["link"])
                if source is not None:
                    inputs[slot["name"]] = source
        return inputs

    def widget_values(self, node) -> dict:
        values = node.get("widgets_values") or []
        definition = self.info[node["type"]]
        named = isinstance(values, dict)
        found, left = {}, [] if named else list(values)
        widgets = list(_widgets(definition["input"], definition.get("input_order")))
        while widgets:
            name, options, extra = widgets.pop(0)
            if left or (named and name in values):
                found[name] = values[name] if named else left.pop(0)
            elif values and not named and "default" in options:  # an input that came after the workflow was saved
                found[name] = options["default"]
            del left[:extra]
            widgets[:0] = _brought_by(name, options, found.get(name))
            if options.get("dynamicPrompts") and isinstance(found.get(name), str):
                found[name] = choose(found[name], self.pick)
            # A bare list would read as a link.
            if isinstance(found.get(name), list):
                found[name] = {"__value__": found[name]}
        return found

    def source(self, link_id):
        """What stands at the start of a link: [node id, slot], a PrimitiveNode's value, or None for nothing."""
        seen = set()
        while link_id in self.links and link_id not in seen:
            seen.add(link_id)
            origin, slot = self.links[link_id]
            node = self.nodes.get(origin)
            if node is None or node.get("mode", 0) == MUTED:
                return None
            if node["type"] == "PrimitiveNode":
                return (node.get("widgets_values") or [None])[0]
            if node["type"] == "Reroute":
                link_id = node["inputs"][0].get("link")
            elif node.get("mode", 0) == BYPASSED:
                link_id = _passed_through(node, slot)
            else:
                return [str(origin), slot]
        return None


def _widgets(inputs, order=None, prefix=""):
    """(name, options, number of extra saved values after it) for every input that the page shows as a widget."""
    order = order or {key: list(value) for key, value in inputs.items()}
    for section in ("required", "optional"):
        for name in order.get(section, []):
            spec = inputs[section][name]
            kind, options = spec[0], spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}
            if kind == DYNAMIC_COMBO and options.get("options"):
                options = {"default": options["options"][0]["key"], **options}
            widget = isinstance(kind, list) or kind in WIDGET_TYPES or options.get("widgetType") in WIDGET_TYPES
            if not widget or options.get("forceInput") or options.get("rawLink"):
                continue
            control = options.get("control_after_generate", kind == "INT" and name in ("seed", "noise_seed"))
            yield prefix + name, options, bool(control) + any(options.get(upload) for upload in UPLOADS)


def _brought_by(name, options, value):
    """The widgets, as of `_widgets`, that the choice `value` of a dynamic combo brings; they come right after it."""
    for option in options.get("options") or ():
        if isinstance(option, dict) and option.get("key") == value:
            return list(_widgets(option["inputs"], prefix=f"{name}."))
    return []


def _passed_through(node, slot):
    """The link that a bypassed node hands on at output `slot`: the input of that place, else the first of its type."""
    kind = node["outputs"][slot]["type"]
    inputs = node.get("inputs") or []
    here = inputs[slot : slot + 1]
    for candidate in here + inputs:
        if candidate["type"] in (kind, "*") or kind == "*":
            return candidate.get("link")
    return None


def choose(text: str, pick: Pick) -> str:
    """Resolve a dynamic prompt: comments go, each `{a|b}` becomes one of its alternatives, `\\{` is a plain brace."""
    text = re.sub(r"/\*[\s\S]*?\*/|//.*", "", text)
    group = re.compile(r"(?<!\\)\{([^{}]*)(?<!\\)\}")
    while group.search(text):
        text = group.sub(lambda match: pick(match.group(1).split("|")), text, count=1)
    return text.replace("\\{", "{").replace("\\}", "}")


def set_prompt(graph: dict, prompt: str, node_type: str = "OpenSoraTextEncode") -> None:
    """Put `prompt` into every node of `node_type` in an API graph but those of a negative prompt.

    Raises WorkflowError where there is none.
    """
    fed = [
        (value[0], name)
        for node in graph.values()
        for name, value in node["inputs"].items()
        if isinstance(value, list) and value
    ]
    negative = {key for key, name in fed if name == "negative"} - {key for key, name in fed if name != "negative"}
    nodes = [node for key, node in graph.items() if node["class_type"] == node_type and key not in negative]
    if not nodes:
        raise WorkflowError(f"--prompt: the workflow has no {node_type} node to put it in.")
    for node in nodes:
        node["inputs"]["prompt"] = prompt


def shift_seeds(graph: dict, by: int) -> None:
    """Add `by` to every seed in an API graph, so that the server runs it again instead of answering from its cache."""
    for node in graph.values():
        for name in ("seed", "noise_seed"):
            if isinstance(node["inputs"].get(name), int):
                node["inputs"][name] += by
