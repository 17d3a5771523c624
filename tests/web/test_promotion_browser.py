"""The drawn timeline as the widget of its input: promoted to a subgraph, in the properties panel, wired, shared, copied."""

import json

import pytest
from browser import rest
from test_timeline_browser import NAMES, graph, pictures_of_the_tests, without
from timeline_page import Timeline

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

SHOW = """() => {
    window.host = app.graph.nodes.find((node) => node.subgraph);
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset = [260 - host.pos[0], 160 - host.pos[1]];
    app.canvas.setDirty(true, true);
}"""
# What a wire dragged from the input to the subgraph's border does.
WIRE_OUT = """() => {
    const [inner] = host.subgraph.nodes;
    const slot = inner.inputs.find((input) => input.name === 'timeline');
    host.subgraph.addInput('timeline', 'STRING').connect(slot, inner);
}"""


@pytest.fixture(scope="module", autouse=True)
def pictures(each_server):
    """The pictures of the timeline's tests among the server's inputs."""
    pictures_of_the_tests(each_server)


@pytest.fixture
def timeline(each_page):
    """A page with two keyframes on a timeline that is the only node of a subgraph, which is selected."""
    nodes = without(graph([{"image": 1, "frame": 0}, {"image": 2, "frame": 18}]), "1", "2", "4", "7", "8", "9")
    nodes["10"] = {"class_type": "PreviewAny", "inputs": {"source": ["6", 0]}}
    timeline = Timeline(each_page, nodes)
    timeline.page.evaluate("""() => {
        const node = app.graph.nodes.find((node) => node.type === 'OpenSoraTimeline');
        window.host = app.graph.convertToSubgraph(new Set([node])).node;
        app.canvas.deselectAll();
        app.canvas.selectNode(host);
    }""")
    rest(timeline.page)
    return timeline


def with_the_eye(page):
    """Promote the timeline in the page's list of a subgraph's widgets."""
    if page.locator("[aria-label='Toggle properties panel']").count():
        panel = page.locator("[data-testid=properties-panel]")
        if not panel.is_visible():
            page.locator("[aria-label='Toggle properties panel']").first.click()
        page.locator("[data-testid=subgraph-editor-toggle]").click()
        row = page.locator("[data-testid=subgraph-widget-item]").filter(has_text="timeline")
        row.locator("[data-testid=subgraph-widget-toggle]").click()
    else:
        page.evaluate("app.extensionManager.command.execute('Comfy.Graph.EditSubgraphWidgets')")
        page.locator(".p-dialog button:has([class*=lucide--eye])").last.click()
        page.keyboard.press("Escape")


def sent(comfy_page):
    """The timeline's keyframes as a run would get them."""
    (node,) = (node for node in comfy_page.api_graph().values() if node["class_type"] == "OpenSoraTimeline")
    return [(k["image"], k["frame"]) for k in json.loads(node["inputs"]["timeline"])["keyframes"]]


@pytest.mark.parametrize("promote", [with_the_eye, lambda page: page.evaluate(WIRE_OUT)], ids=["eye", "wire"])
def test_promoted_drawn_run_and_reloaded(timeline, each_page, promote):
    promote(timeline.page)
    rest(timeline.page)
    timeline.page.evaluate(SHOW)
    rest(timeline.page)
    assert timeline.page.evaluate("host.widgets.map((widget) => Boolean(widget.element))") == [True]
    assert timeline.page.evaluate("host.size[0]") >= 400
    root = timeline.page.locator(timeline.root)
    assert root.locator(".os-card").count() == 3
    assert root.locator(".os-card .os-picture").first.evaluate("(one) => one.style.backgroundImage").count(NAMES[0])
    assert "34 frames" in root.locator(".os-facts").inner_text()
    timeline.move(1, 9)
    assert sent(each_page) == [(1, 0), (2, 9)]

    result = each_page.queue()
    assert result["success"], (result["messages"], each_page.faulty_nodes())
    timeline.page.evaluate(SHOW)
    rest(timeline.page)
    assert "image_2 at frame 9" in root.locator(".os-run").inner_text()

    each_page.load(json.loads(json.dumps(each_page.saved())), "reloaded")
    timeline.page.evaluate(SHOW)
    rest(timeline.page)
    assert root.locator(".os-thumb:visible").count() == 2
    assert sent(each_page) == [(1, 0), (2, 9)]
    timeline.move(1, 26)
    assert sent(each_page) == [(1, 0), (2, 26)]
