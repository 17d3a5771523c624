"""The properties panel of newer front ends beside the displays on the pack's nodes: it leaves them as they are."""

import pytest
from browser import rest
from test_timeline_browser import graph, pictures_of_the_tests, without
from timeline_page import Timeline

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

WIDTHS = """() => Object.fromEntries([...document.querySelectorAll('.dom-widget > .opensora')]
    .map((one) => [one.dataset.display, Math.round(one.getBoundingClientRect().width)]))"""
DISPLAYS = ("OpenSoraTimeline", "OpenSoraKeyframe", "OpenSoraEmptyLatent")
LOOK_AT_ALL = (
    """() => { app.canvas.ds.scale = 0.5; app.canvas.ds.offset = [120, 300]; app.canvas.setDirty(true, true) }"""
)


@pytest.fixture(scope="module", autouse=True)
def pictures(each_server):
    """The pictures of the timeline's tests among the server's inputs."""
    pictures_of_the_tests(each_server)


@pytest.fixture
def timeline(each_page):
    """A page with a timeline, a keyframe and an empty latent in view, side by side."""
    nodes = without(graph([{"image": 1, "frame": 0}]), "1", "2", "4", "7", "8", "9", "12", "13")
    nodes["6"]["inputs"] = without(nodes["6"]["inputs"], "image_2", "image_3")
    nodes["10"] = {"class_type": "OpenSoraKeyframe",
                   "inputs": {"latent": ["6", 0], "vae": ["3", 0], "image": ["11", 0], "frame": 9, "strength": 0.5}}  # fmt: skip
    timeline = Timeline(each_page, nodes)
    timeline.page.evaluate("""() => ['OpenSoraEmptyLatent', 'OpenSoraTimeline', 'OpenSoraKeyframe'].forEach((kind, index) => {
        app.graph.nodes.find((node) => node.type === kind).pos = [700 * index, 0];
    })""")
    return timeline


def write_widths(page):
    """What the panel does to each widget that it shows, for front ends that have no such panel."""
    page.evaluate("app.graph.nodes.forEach((node) => node.widgets?.forEach((widget) => (widget.width = 298)))")


def test_the_panel_leaves_displays_as_wide_as_their_nodes(timeline):
    page = timeline.page
    page.evaluate(LOOK_AT_ALL)
    rest(page)
    before = page.evaluate(WIDTHS)
    assert len(before) == 3 and min(before.values()) > 100
    toggle = page.locator("[aria-label='Toggle properties panel']")
    panel = page.locator("[data-testid=properties-panel]")
    for kind in DISPLAYS:
        if not toggle.count():
            write_widths(page)
            continue
        page.evaluate("""(kind) => { app.canvas.deselectAll();
            app.canvas.selectNode(app.graph.nodes.find((node) => node.type === kind)) }""", kind)  # fmt: skip
        if not panel.is_visible():
            toggle.first.click()
        page.get_by_test_id("panel-tab-parameters").click()
        panel.locator(".widget-item").first.wait_for()
        words = panel.inner_text()
        assert "opensora_" not in words and '"keyframes"' not in words
        if kind == "OpenSoraTimeline":
            assert "timeline" in words.lower()
            second = panel.locator(".opensora-timeline")
            second.wait_for()
            # Drawn in the panel as on the node, and moved there as well.
            second.locator(".os-thumb").focus()
            timeline.key("End")
            assert timeline.keyframes() == [(1, 30, 1)]
            assert page.locator(".dom-widget .os-thumb").get_attribute("aria-valuenow") == "30"
            page.evaluate("(kind) => app.canvas.selectNode(app.graph.nodes.find((node) => node.type === kind))", kind)
    page.evaluate(LOOK_AT_ALL)
    rest(page)
    assert page.evaluate(WIDTHS) == before
    if toggle.count():
        toggle.first.click()
        page.evaluate(LOOK_AT_ALL)
        rest(page)
        assert page.evaluate(WIDTHS) == before
