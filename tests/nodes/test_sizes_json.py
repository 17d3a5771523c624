"""What the browser knows of sizes and lengths, web/sizes.json and a line of web/graph.js, is what the nodes know."""

import json
from pathlib import Path

from small import pack

SIZES = Path(__file__).resolve().parents[2] / "web" / "sizes.json"


def test_the_table_of_the_browser_is_that_of_the_node():
    sizes = pack("model.sizes")
    expected = {
        resolution: {ratio: list(sizes.frame_size(resolution, ratio)[::-1]) for ratio in sizes.ASPECT_RATIOS}
        for resolution in (*sizes.RESOLUTIONS, *sizes.SQUARES)
    }
    assert len(expected) == 9
    assert json.loads(SIZES.read_text(encoding="utf-8")) == expected


def test_the_durations_of_the_browser_are_those_of_the_node():
    """web/graph.js has them in one line, as JSON but for its quotes."""
    (line,) = [line for line in (SIZES.parent / "graph.js").read_text().splitlines() if "DURATIONS = " in line]
    assert json.loads(line.split(" = ")[1].replace("'", '"')) == pack("nodes.choices").DURATIONS
