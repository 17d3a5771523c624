"""Least widths in the page: whole titles at default size, and a timeline that cannot be made too narrow for its parts."""

import pytest
from browser import rest

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

TIMELINE = "app.graph.nodes.find((node) => node.type === 'OpenSoraTimeline')"
LEAST = 400


def make_all(page):
    """Put one of each of the pack's nodes onto the canvas; returns how many."""
    return page.evaluate("""() => {
        app.graph.clear();
        const types = Object.keys(LiteGraph.registered_node_types).filter((type) => type.startsWith('OpenSora'));
        types.forEach((type, index) => {
            const node = LiteGraph.createNode(type);
            node.pos = [600 * (index % 6), 700 * Math.floor(index / 6)];
            app.graph.add(node);
        });
        return types.length;
    }""")


def cut_titles(page):
    """The titles that the page shortens when it draws them."""
    return page.evaluate("""() => {
        const pen = document.createElement('canvas').getContext('2d');
        return app.graph.nodes.filter((node) => {
            let drawn = '';
            pen.fillText = (text) => (drawn = text);
            node.drawTitleText(pen, { scale: 1, default_title_color: 'white' });
            return drawn !== node.getTitle();
        }).map((node) => node.getTitle());
    }""")


def test_whole_titles_and_a_timeline_that_stays_wide_enough(each_page):
    page = each_page.page
    assert make_all(page) == 28
    assert cut_titles(page) == []

    # Dragging narrows a node to what it asks for; a workflow may have stored less.
    assert page.evaluate(f"{TIMELINE}.computeSize()[0]") == LEAST
    page.evaluate(f"{TIMELINE}.setSize([210, 300])")
    saved = each_page.saved()
    (stored,) = (node for node in saved["nodes"] if node["type"] == "OpenSoraTimeline")
    stored["size"] = [210, 300]
    each_page.load(saved, "narrow")
    page.evaluate(f"() => {{ app.canvas.ds.scale = 1; const node = {TIMELINE};"
                  " app.canvas.ds.offset = [200 - node.pos[0], 150 - node.pos[1]]; app.canvas.setDirty(true, true) }")  # fmt: skip
    page.wait_for_function(f"{TIMELINE}.size[0] >= {LEAST}")
    rest(page)
    box = page.locator(".opensora-timeline:visible").bounding_box()
    assert box["width"] > LEAST - 20
    assert page.locator(".opensora-timeline .os-code").bounding_box()["x"] < box["x"] + box["width"]
