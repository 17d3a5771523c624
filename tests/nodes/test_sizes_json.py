"""The browser's table of frame sizes, web/sizes.json, is that of nodes/aspect.py."""

import json
from pathlib import Path

from small import pack

SIZES = Path(__file__).resolve().parents[2] / "web" / "sizes.json"


def test_the_table_of_the_browser_is_that_of_the_node():
    aspect = pack("nodes.aspect")
    expected = {
        resolution: {ratio: list(aspect.frame_size(resolution, ratio)[::-1]) for ratio in aspect.ASPECT_RATIOS}
        for resolution in (*aspect.RESOLUTIONS, *aspect.SQUARES)
    }
    assert len(expected) == 9
    assert json.loads(SIZES.read_text(encoding="utf-8")) == expected
