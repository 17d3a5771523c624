"""Every shipped workflow in a real page: it loads without a missing node or a changed value, runs, shows a result.

Those for the official files cannot run here: they load, and the page offers the download of what is missing.
"""

import json
from pathlib import Path

import pytest
from layout_page import draw, extent, measure, overlapping, sticking_out

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
OFFICIAL = sorted(WORKFLOWS.glob("*(official files).json"))
FILES = sorted({*WORKFLOWS.glob("*.json")} - {*OFFICIAL, *WORKFLOWS.glob("*.app.json")})
# A training of fewer steps shows the page the same; test_workflows.py trains as the templates say.
FEW_STEPS = ("OpenSoraTrain", {"steps": 6, "sample_every": 6})
FEWER = {"9 Train a LoRA on my clips": FEW_STEPS, "10 From footage to data set": FEW_STEPS}

pytestmark = pytest.mark.browser


@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_workflow_runs_in_the_page(path, each_page, each_server):
    """Nothing overlaps when it opens, and nothing after the run, which adds previews and the video."""
    page, server = each_page, each_server
    workflow = json.loads(path.read_text(encoding="utf-8"))
    page.load(workflow, path.stem)
    check_layout(page, vue=True)
    draw(page, vue=False)
    page.load(workflow, path.stem)  # the older page keeps the sizes that its Vue nodes took
    check_layout(page)
    assert page.complaints() == []
    assert page.faulty_nodes() == []
    assert values_of(page.saved(), workflow) == values_of(workflow, workflow)
    sent = page.api_graph()
    # run.py and the other tests run workflows without a page: what they send must be what the page sends.
    assert inputs_of(server.page_workflow_to_api(workflow)) == inputs_of(sent)

    if path.stem in FEWER:
        set_widgets(page, *FEWER[path.stem])
    result = page.queue()
    assert result["success"], (result["messages"], page.faulty_nodes(), server.output_of_server()[-3000:])
    assert page.faulty_nodes() == []
    files = [item for output in result["outputs"].values() for value in output.values() if isinstance(value, list)
             for item in value if isinstance(item, dict) and "filename" in item]  # fmt: skip
    videos = [file for file in files if file["filename"].endswith(".mp4")]
    assert videos, result["outputs"]
    assert server.view(videos[0])[4:8] == b"ftyp"
    # The node shows it to the user. (Whether this Chromium decodes H.264 depends on who built it.)
    shown = "(name) => [...document.querySelectorAll('video, video source')].some((v) => v.src.includes(name))"
    page.page.wait_for_function(shown, arg=videos[0]["filename"], timeout=20_000)
    check_layout(page)
    check_layout(page, vue=True)
    draw(page, vue=False)  # the server keeps the setting


@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", OFFICIAL, ids=lambda path: path.stem)
def test_official_workflow_offers_its_files(path, page, server):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    page.load(workflow, path.stem)
    page.close_dialogs()
    check_layout(page)
    page.load(workflow, path.stem)
    loaders = {
        node["type"]: node["properties"]["models"] for node in workflow["nodes"] if "models" in node["properties"]
    }
    models = [entry for entries in loaders.values() for entry in entries]
    # Newer front ends mark a node whose file is missing.
    assert set(page.faulty_nodes()) <= {f"{loader}: has errors" for loader in loaders}
    assert values_of(page.saved(), workflow) == values_of(workflow, workflow)
    (words,) = page.complaints()
    assert len(models) == 3
    for entry in models:
        older, newer = f"{entry['directory']} / {entry['name']}", f"{entry['name']}\n{entry['directory']}\nDownload"
        assert older in words or newer in words
    for refusal in ("not allowed", "Only allowed", "Invalid directory"):
        assert refusal not in words
    page.close_dialogs()
    assert inputs_of(server.page_workflow_to_api(workflow)) == inputs_of(page.api_graph())


def check_layout(page, vue=False):
    """The whole graph is small enough that its text is drawn (above 57 %), and each node has its place."""
    found = measure(page, vue)
    assert overlapping(found["nodes"]) == []
    assert sticking_out(found["nodes"], found["groups"]) == []
    if not vue:  # there text is drawn at any zoom, and the older page spreads a graph by a fifth
        width, height = extent([box for _, box in found["nodes"] + found["groups"]])
        assert width <= 1800 and height <= 950
        assert found["scale"] > 0.57


def set_widgets(page, node_type, values):
    """Give widgets of all nodes of a type other values than they have."""
    page.page.evaluate(
        """([type, values]) => {
            for (const node of app.graph.nodes.filter((each) => each.type === type))
                for (const [name, value] of Object.entries(values)) {
                    const widget = node.widgets.find((each) => each.name === name);
                    if (widget.value === value) throw new Error(`${name} is ${value} as it comes`);
                    widget.value = value;
                }
        }""",
        [node_type, values],
    )


def values_of(graph, wanted):
    """{node: its type and widget values}, as many of these as the node has in the workflow `wanted`.

    A newer ComfyUI's own nodes have widgets that the file does not know, behind those that it does.
    """
    known = {node["id"]: node.get("widgets_values") for node in wanted["nodes"]}
    found = {}
    for node in graph["nodes"]:
        number = int(node["id"])  # newer front ends count in words
        values = node.get("widgets_values")
        values = values[: len(known[number] or ())] if isinstance(values, list) else values
        found[number] = node["type"], values or None
    return found


def inputs_of(graph):
    """Without the empty value that the page adds for Load Video's own player, which the server does not know."""
    return {
        key: (node["class_type"], {name: value for name, value in node["inputs"].items() if name != "video-preview"})
        for key, node in graph.items()
    }


def test_a_stock_graph_runs_and_a_bad_one_is_seen(page):
    """The harness itself: without this, a harness that sees nothing would pass everything."""
    page.page.evaluate("""() => {
        app.graph.clear();
        const make = (type, x) => {
            const node = LiteGraph.createNode(type); node.pos = [x, 100]; app.graph.add(node); return node;
        };
        make('EmptyImage', 100).connect(0, make('SaveImage', 500), 0);
    }""")
    result = page.queue()
    assert result["success"]
    assert [file["type"] for output in result["outputs"].values() for file in output["images"]] == ["output"]

    page.page.evaluate("app.graph.nodes.find((n) => n.type === 'SaveImage').disconnectInput(0)")
    assert not page.queue()["success"]
    assert any("SaveImage" in fault for fault in page.faulty_nodes())

    page.load({"nodes": [{"id": 1, "type": "NoSuchNode", "pos": [0, 0], "size": [100, 50], "flags": {}, "order": 0,
                          "mode": 0, "inputs": [], "outputs": [], "properties": {}, "widgets_values": []}],
               "links": [], "groups": [], "version": 0.4, "last_node_id": 1, "last_link_id": 0}, "bad")  # fmt: skip
    assert "NoSuchNode: missing" in page.faulty_nodes()
    assert any("NoSuchNode" in words for words in page.complaints())
