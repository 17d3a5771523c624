"""The interface that shared workflows depend on: node IDs, inputs, their order, defaults and ranges, outputs.

schema.json is the committed snapshot. A node, or an optional input at the end of a node, may be added to it; what is
there never changes. Edit the file by hand, and mean it.
"""

import json
from pathlib import Path

import pytest
from small import pack

SNAPSHOT = Path(__file__).with_name("schema.json")
# Combos that list files or what ComfyUI offers: only their first entry is ours.
OPEN_COMBOS = {"aesthetic_head", "folder", "model_name", "vae_name", "text_encoder_name", "sampler_name"}
KEPT = (
    "default", "min", "max", "step", "round", "display", "multiline", "dynamicPrompts", "control_after_generate",
    "placeholder", "label_on", "label_off", "forceInput", "socketless", "rawLink", "lazy", "multiselect",
)  # fmt: skip


def describe(node):
    """A node's interface in plain numbers and strings."""
    schema = node.define_schema()
    inputs = []
    for item in schema.inputs:
        options = item.as_dict()
        entry = {"id": item.id, "type": item.get_io_type(), "optional": bool(item.optional)}
        entry["tooltip"] = bool(options.get("tooltip"))
        entry.update({key: options[key] for key in KEPT if key in options})
        if getattr(item, "advanced", None):  # only newer versions hand it to the page
            entry["advanced"] = True
        if "options" in options:
            entry["options"] = options["options"][:1] if item.id in OPEN_COMBOS else list(options["options"])
        inputs.append(entry)
    outputs = [{"type": item.get_io_type(), "name": item.display_name or item.get_io_type()} for item in schema.outputs]
    return {"inputs": inputs, "outputs": outputs, "output_node": bool(schema.is_output_node)}


@pytest.fixture(scope="module")
def nodes(comfy):
    return {node.define_schema().node_id: node for node in pack("nodes").NODES}


def test_interface_is_the_snapshot(nodes):
    assert json.loads(json.dumps({name: describe(node) for name, node in nodes.items()})) == json.loads(
        SNAPSHOT.read_text(encoding="utf-8")
    )


@pytest.mark.parametrize(
    "change",
    [
        {"default": 3}, {"min": 2}, {"max": 9}, {"step": 2}, {"optional": True}, {"tooltip": None},
        {"socketless": True}, {"control_after_generate": True}, {"force_input": True},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_the_snapshot_sees_every_property_of_a_widget(change, comfy):
    io = pack("nodes.comfy.schema").io
    as_it_is = {"default": 1, "min": 0, "max": 10, "step": 1, "tooltip": "How many."}

    def described(**options):
        inputs = [io.Int.Input("count", **options), io.Boolean.Input("more", default=True)]

        class Node(io.ComfyNode):
            @classmethod
            def define_schema(cls):
                return io.Schema(node_id="Node", category="x", inputs=inputs, outputs=[io.Image.Output()])

        return describe(Node)

    before = described(**as_it_is)
    assert described(**as_it_is) == before
    assert described(**{**as_it_is, **change}) != before


def test_every_input_and_output_is_explained(nodes):
    for name, node in nodes.items():
        schema = node.define_schema()
        assert schema.display_name and schema.description and schema.category.startswith("Open-Sora/"), name
        for item in [*schema.inputs, *schema.outputs]:
            assert item.tooltip and len(item.tooltip) > 10, f"{name}: {item.id} has no tooltip"


def test_schemas_are_valid(nodes):
    for node in nodes.values():
        node.GET_SCHEMA()
