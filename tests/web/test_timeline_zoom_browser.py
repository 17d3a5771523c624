"""Zoom and scroll of the drawn timeline's track in a real page: wheel, bar, buttons and keys, in both kinds of nodes."""

import json

import pytest
from browser import DRAWN, rest
from timeline_page import Timeline

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

FRAMES = 408
CLOSE = [0, 34, 38, 43, 47, 51, 55, 120, 204, -1]  # groups are 5 pixels wide where all frames are shown


def graph(frames, length=FRAMES):
    """Two inputs without pictures into a timeline: their numbers are drawn instead."""
    keyframes = [{"image": 1 + index % 2, "frame": frame} for index, frame in enumerate(frames)]
    nodes = {
        "3": ("OpenSoraLoadVAE", {"vae_name": "tiny (bundled)"}),
        "5": ("OpenSoraEmptyLatent", {"vae": ["3", 0], "duration": "by frames", "frames": length, "fps": 24.0}),
        "4": ("EmptyImage", {"width": 64, "height": 64}),
        "6": ("OpenSoraTimeline", {"latent": ["5", 0], "vae": ["3", 0], "image_1": ["4", 0], "image_2": ["4", 0],
                                   "timeline": json.dumps({"version": 1, "keyframes": keyframes})}),
    }  # fmt: skip
    return {key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in nodes.items()}


def canvas(timeline):
    return timeline.page.evaluate("[app.canvas.ds.scale, ...app.canvas.ds.offset]")


def wheel(timeline, across, down, key=None):
    if key:
        timeline.page.keyboard.down(key)
    timeline.page.mouse.wheel(across, down)
    if key:
        timeline.page.keyboard.up(key)
    rest(timeline.page, DRAWN)


def boxes(timeline, selector):
    return timeline.page.locator(selector).evaluate_all(
        "(all) => all.map((one) => one.getBoundingClientRect().toJSON())"
    )


def test_wheel_and_bar_zoom_and_scroll_the_track_alone(each_page):
    timeline = Timeline(each_page, graph(CLOSE))
    for vue in (False, True):
        timeline.renderer(vue)
        timeline.build(graph(CLOSE))
        timeline.page.wait_for_function("document.querySelectorAll('.os-block').length === 120")
        fit = timeline.page.locator(f"{timeline.root} [data-zoom=fit]")
        if fit.is_enabled():  # the same graph built anew is shown as it was left
            fit.click()
        thumbs = sorted(boxes(timeline, ".os-thumb"), key=lambda box: box["left"])
        assert len(thumbs) == len(CLOSE)
        assert all(a["right"] <= b["left"] for a, b in zip(thumbs, thumbs[1:])), "pictures hide each other"
        assert min(box["width"] for box in thumbs) >= 20
        assert timeline.shown() == (0, FRAMES - 1)

        before = canvas(timeline)
        x, y = timeline.block(119)
        timeline.page.mouse.move(x, y)
        for _ in range(6):
            wheel(timeline, 0, -100, "Control")
        first, last = timeline.shown()
        assert last - first < 130 and canvas(timeline) == before
        assert timeline.block(119)[0] == pytest.approx(x, abs=2), "the frame under the pointer moved away"
        assert boxes(timeline, ".os-block")[36]["width"] > 15
        # What is pointed at is what is meant, zoomed too.
        timeline.pin(1, 153)
        assert timeline.keyframes()[-1] == (1, 153, 1)
        timeline.move(len(CLOSE), 158)
        assert timeline.keyframes()[-1] == (1, 158, 1)
        timeline.page.mouse.click(timeline.block(145)[0], timeline.middle(".os-ruler")[1])
        assert timeline.page.locator(".os-playhead").get_attribute("aria-valuenow") in {"146", "147"}

        timeline.page.mouse.move(x, y)
        wheel(timeline, 0, 100, "Shift")
        assert timeline.shown()[0] > first
        wheel(timeline, -100, 0)
        assert timeline.shown() == (first, last) and canvas(timeline) == before

        bar = boxes(timeline, ".os-bar-thumb")[0]
        middle = (bar["left"] + bar["width"] / 2, bar["top"] + 4)
        timeline.drag(middle, (middle[0] + 60, middle[1]))
        assert timeline.shown()[0] > first + 30
        timeline.drag((middle[0] + 60 - bar["width"] / 2 + 2, middle[1]), (middle[0] - 110, middle[1]))
        assert timeline.shown()[0] < first and timeline.shown()[1] > last + 30, "its end does not zoom"
        timeline.page.locator("[data-zoom=fit]").click()
        assert timeline.shown() == (0, FRAMES - 1)

        # A drag at the end of a zoomed track scrolls it on.
        timeline.page.mouse.click(timeline.block(1)[0], timeline.middle(".os-ruler")[1])
        timeline.page.locator("[data-zoom=in]").click(click_count=3)
        last = timeline.shown()[1]
        x, y = timeline.middle(".os-thumb", 0)
        right = timeline.page.locator(".os-track").bounding_box()
        timeline.page.mouse.move(x, y)
        timeline.page.mouse.down()
        timeline.page.mouse.move(x + 40, y)
        timeline.page.mouse.move(right["x"] + right["width"] - 4, y)
        timeline.page.wait_for_function(
            "(last) => Number(document.querySelector('.os-bar-thumb').getAttribute('aria-valuetext').split(' ')[3]) > last + 20",
            arg=last,
        )
        timeline.page.mouse.up()
        rest(timeline.page, DRAWN)
        assert timeline.keyframes()[0][1] > last

        wheel(timeline, 0, 100)
        assert canvas(timeline) != before, "the plain wheel is the canvas's"


def test_keys_zoom_and_keep_in_sight_what_they_move(each_page):
    timeline = Timeline(each_page, graph([0, 200]))
    timeline.click(1)
    timeline.key("+", "+", "+", "+")
    first, last = timeline.shown()
    assert last - first < 90 and first < 200 < last
    timeline.key("End")
    assert timeline.keyframes()[1][1] == 404 and timeline.shown()[1] == FRAMES - 1
    timeline.key("-")
    assert timeline.shown()[1] - timeline.shown()[0] > last - first
    timeline.key("Home")
    assert timeline.shown()[0] == 0
    timeline.page.locator(".os-playhead").focus()
    timeline.key("End")
    assert timeline.shown()[1] == FRAMES - 1
    flag = timeline.page.locator(".os-flag").bounding_box()
    track = timeline.page.locator(".os-stage").bounding_box()
    assert track["x"] <= flag["x"] and flag["x"] + flag["width"] <= track["x"] + track["width"]

    bar = timeline.page.locator(".os-bar-thumb")
    bar.focus()
    timeline.key("Home", "PageDown")
    assert int(bar.get_attribute("aria-valuenow")) > 50
    saved = timeline.page.evaluate("JSON.stringify(app.graph.serialize())")
    zoomed = timeline.shown()
    timeline.key("0")
    assert timeline.shown() == (0, FRAMES - 1)
    assert timeline.page.evaluate("JSON.stringify(app.graph.serialize())") == saved, "the zoom is no part of a workflow"
    # Undo makes the node anew and leaves the view as it is.
    timeline.key("+")
    zoomed = timeline.shown()
    timeline.undo_key("Control+z")
    assert timeline.keyframes()[1][1] == 404 and timeline.shown() == zoomed
    # A clip that is shown whole stays so, and none is shown beyond its end.
    timeline.set_widget("OpenSoraEmptyLatent", "frames", 17)
    assert timeline.shown()[1] <= 16
    timeline.page.locator(".os-track").focus()
    timeline.key("0")
    timeline.set_widget("OpenSoraEmptyLatent", "frames", 51)
    assert timeline.shown() == (0, 50)


def test_layout_of_pictures_and_of_the_view(page):
    """The pure functions, in the page that imports them."""
    ask = page.page.evaluate
    ask("""async () => {
        window.zoom = await import('/extensions/opensora_comfy/timeline_zoom.js');
        window.thumbs = await import('/extensions/opensora_comfy/timeline_thumbs.js');
    }""")
    assert ask("zoom.spanOf(null, 100)") == {"first": 0, "count": 100}
    assert ask("zoom.spanOf({ first: 95, count: 10 }, 100)") == {"first": 90, "count": 10}
    assert ask("zoom.spanOf({ first: -3, count: 1 }, 100)") == {"first": 0, "count": 8}
    assert ask("zoom.spanOf({ first: 2, count: 3 }, 5)") == {"first": 0, "count": 5}
    assert ask("zoom.zoomedAround({ first: 0, count: 100 }, 100, 2, 50)") == {"first": 25, "count": 50}
    assert ask("zoom.zoomedAround({ first: 25, count: 50 }, 100, 1 / 4, 50)") == {"first": 0, "count": 100}
    assert ask("zoom.revealing({ first: 0, count: 50 }, 100, 20)") == {"first": 0, "count": 50}
    assert ask("zoom.revealing({ first: 0, count: 50 }, 100, 60)") == {"first": 14, "count": 50}
    assert ask("zoom.revealing({ first: 50, count: 50 }, 100, 0)") == {"first": 0, "count": 50}

    assert ask("thumbs.layOut([250], 500, 80)") == [{"at": 250, "wide": 80}]
    assert ask("thumbs.layOut([2, 498], 500, 80).map(({ at }) => at)") == [
        28,
        472,
    ]  # within the track, but for 12 pixels
    close = ask("thumbs.layOut([3, 58, 315], 330, 120)")  # two near each other share the room that there is
    assert min(one["wide"] for one in close) > 60 and close[2]["wide"] == 120
    assert abs(close[1]["at"] - 58) < 60
    for wanted in ([250] * 6, [0, 1, 2, 3], [500, 490, 10, 20, 250], list(range(0, 500, 5))):
        found = ask("(wanted) => thumbs.layOut(wanted, 500, 80)", wanted)
        inside = [-12 <= one["at"] - one["wide"] / 2 and one["at"] + one["wide"] / 2 <= 512.01 for one in found]
        assert all(inside), wanted
        order = sorted(range(len(wanted)), key=lambda index: (wanted[index], index))
        ends = [
            (found[index]["at"] - found[index]["wide"] / 2, found[index]["at"] + found[index]["wide"] / 2)
            for index in order
        ]
        if len(wanted) < 10:
            assert all(a[1] <= b[0] for a, b in zip(ends, ends[1:])), wanted
        assert ends == sorted(ends), wanted
