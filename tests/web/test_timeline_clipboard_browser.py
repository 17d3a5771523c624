"""Several keyframes of the drawn timeline at once in a real page: selected, moved, copied, cut, pasted, duplicated."""

import json

import pytest
from browser import DRAWN, rest
from timeline_page import Timeline

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

KEYFRAMES = [
    {"image": 1, "frame": 0},
    {"image": 2, "frame": 9, "strength": 0.5},
    {"image": 1, "frame": 22, "note": "x"},
]


def graph(keyframes=KEYFRAMES, frames=68):
    text = json.dumps({"version": 1, "keyframes": keyframes})
    nodes = {
        "3": ("OpenSoraLoadVAE", {"vae_name": "tiny (bundled)"}),
        "5": ("OpenSoraEmptyLatent", {"vae": ["3", 0], "duration": "by frames", "frames": frames, "fps": 24.0}),
        "4": ("EmptyImage", {"width": 64, "height": 64}),
        "6": ("OpenSoraTimeline", {"latent": ["5", 0], "vae": ["3", 0], "image_1": ["4", 0], "image_2": ["4", 0],
                                   "timeline": text}),
    }  # fmt: skip
    return {key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in nodes.items()}


def playhead(timeline, frame):
    timeline.page.mouse.click(timeline.block(frame)[0], timeline.middle(".os-ruler")[1])
    rest(timeline.page, DRAWN)


def press(timeline, *keys):
    timeline.key(*keys)
    rest(timeline.page, 2 * DRAWN)


def lane(timeline, part, height):
    """A point on the lane of keyframes: parts of its width and height."""
    box = timeline.page.locator(".os-keys").bounding_box()
    return box["x"] + part * box["width"], box["y"] + height * box["height"]


def test_keys_of_the_clipboard_act_on_keyframes_and_not_on_the_node(each_page):
    timeline = Timeline(each_page, graph())
    for vue in (False, True):
        timeline.renderer(vue)
        timeline.build(graph())
        timeline.page.mouse.click(*(timeline.middle(".os-facts")[0] - 160, 145))  # the title: the node is selected too
        count = timeline.count()
        timeline.click(1)
        timeline.click(2, "Shift")
        assert timeline.selected() == [1, 2]
        press(timeline, "Control+c")
        playhead(timeline, 39)
        steps = timeline.steps()
        press(timeline, "Control+v")
        pasted = [(2, 39, 0.5), (1, 52, 1)]
        assert timeline.keyframes()[3:] == pasted and timeline.selected() == [3, 4]
        assert json.loads(timeline.text())["keyframes"][4]["note"] == "x"
        assert timeline.steps() == steps + 1
        press(timeline, "Control+x")
        assert len(timeline.keyframes()) == 3 and timeline.steps() == steps + 2
        # At a place that is taken they go beside it, and what is beyond the end stays away and is named.
        playhead(timeline, 60)
        press(timeline, "Control+v")
        assert timeline.keyframes()[3:] == [(2, 60, 0.5)]
        assert timeline.notice().startswith("No room for image_1: the clip ends at frame 67")
        press(timeline, "Control+v")
        assert timeline.keyframes()[4][:2] == (2, 64) and not timeline.page.locator(".os-key.os-fault").count()
        press(timeline, "Control+d")
        assert len(timeline.keyframes()) == 6 and not timeline.page.locator(".os-key.os-fault").count()
        press(timeline, "Delete", "Escape", "Delete", "Control+d", "Control+c", "Control+x")
        assert len(timeline.keyframes()) == 5
        assert timeline.notice().startswith("No keyframe is selected")
        press(timeline, "Control+a")
        assert timeline.selected() == [0, 1, 2, 3, 4]
        press(timeline, "Delete")
        assert timeline.keyframes() == [] and timeline.count() == count
        timeline.undo_key("Control+z")
        assert len(timeline.keyframes()) == 5

        # With the focus on the canvas they are the node's again.
        timeline.click(0)
        timeline.page.mouse.click(*(timeline.middle(".os-facts")[0] - 160, 145))
        press(timeline, "Control+c")
        timeline.page.mouse.move(1300, 800)
        press(timeline, "Control+v")
        timeline.page.wait_for_function("(count) => app.graph.nodes.length === count + 1", arg=count)


def test_several_are_selected_and_move_together(each_page):
    timeline = Timeline(each_page, graph())
    for vue in (False, True):
        timeline.renderer(vue)
        timeline.build(graph())
        timeline.click(0)
        timeline.click(2, "Control")
        assert timeline.selected() == [0, 2]
        assert timeline.page.locator(".os-info").inner_text() == "2 keyframes selected"
        timeline.click(0, "Control")
        assert timeline.selected() == [2]
        timeline.click(0, "Shift")
        assert timeline.selected() == [0, 1, 2]
        timeline.click(1)
        assert timeline.selected() == [1]
        press(timeline, "Escape")
        assert timeline.selected() == []

        # A box on the lane; a press there without one moves the playhead.
        timeline.drag(lane(timeline, 0.005, 0.02), lane(timeline, 0.26, 0.6))
        assert timeline.selected() == [0, 1]
        steps = timeline.steps()
        timeline.move(1, 26)
        assert timeline.keyframes() == [(1, 17, 1), (2, 26, 0.5), (1, 22, 1)], "they keep their distance in groups"
        assert timeline.steps() == steps + 1 and timeline.selected() == [0, 1]
        x, y = timeline.middle(".os-thumb", 1)
        timeline.drag((x, y), (timeline.block(0)[0], y))
        assert timeline.keyframes() == [(1, 0, 1), (2, 9, 0.5), (1, 22, 1)], "the first stops the others"
        timeline.undo_key("Control+z")
        timeline.undo_key("Control+z")
        timeline.drag(lane(timeline, 0.005, 0.02), lane(timeline, 0.6, 0.6))
        assert timeline.selected() == [0, 1, 2]
        press(timeline, "ArrowRight", "ArrowDown")
        assert timeline.keyframes() == [(1, 1, 0.95), (2, 13, 0.45), (1, 26, 0.95)]
        press(timeline, "End")
        assert timeline.keyframes() == [(1, 39, 0.95), (2, 51, 0.45), (1, 64, 0.95)], "clamped as a group"
        press(timeline, "Home", "ArrowLeft")
        assert [frame for _, frame, _ in timeline.keyframes()] == [0, 9, 22]
        # Off the track all of them go, in one step.
        steps = timeline.steps()
        x, y = timeline.middle(".os-thumb", 1)
        timeline.drag((x, y), (x, y + 300))
        assert timeline.keyframes() == [] and timeline.steps() == steps + 1
        timeline.page.mouse.click(*lane(timeline, 0.5, 0.3))
        rest(timeline.page, DRAWN)
        assert 30 <= int(timeline.page.locator(".os-playhead").get_attribute("aria-valuenow")) <= 37


def test_keyframes_go_to_another_tab_and_texts_keep_their_own_keys(each_page):
    timeline = Timeline(each_page, graph())
    timeline.click(1)
    press(timeline, "Control+c")
    # Another graph in the same page, as another workflow's tab is: the system's clipboard carries them.
    timeline.build(graph([], 17))
    timeline.page.locator(".os-track").focus()
    press(timeline, "Control+v")
    assert timeline.keyframes() == [(2, 0, 0.5)]

    timeline.page.locator(".os-code").click()
    text = timeline.page.locator(".os-text")
    before = text.input_value()
    text.focus()
    press(timeline, "Control+a", "Control+c", "ArrowRight", "Control+v")
    assert text.input_value() == before * 2
    press(timeline, "Control+a", "Control+x")
    assert text.input_value() == ""
    assert timeline.keyframes() == [(2, 0, 0.5)]
    timeline.page.get_by_role("button", name="Back to the track").click()
    timeline.page.locator(".os-track").focus()
    count = timeline.count()
    press(timeline, "Control+v")
    assert timeline.notice() == "The clipboard holds no keyframes and no picture." and timeline.count() == count
    assert timeline.keyframes() == [(2, 0, 0.5)]


def test_places_for_what_is_pasted(page):
    """The pure function, in the page that imports it."""
    ask = page.page.evaluate
    ask("async () => { window.model = await import('/extensions/opensora_comfy/timeline_model.js') }")

    def settle(items, start, taken=(), frames=34):
        return ask(
            """([items, start, taken, frames]) =>
                model.settle(model.groupsOf(frames), frames, items, start, new Set(taken))""",
            [[{"at": at, "count": count} for at, count in items], start, list(taken), frames],
        )

    assert settle([(0, 1), (9, 1)], 9) == [9, 18]
    assert settle([(9, 1), (0, 1)], 9) == [18, 9]
    assert settle([(0, 1), (1, 1)], 9) == [9, 13]  # the same group for both would hide one
    assert settle([(0, 1)], 9, taken=[3]) == [13]
    assert settle([(0, 1), (20, 1)], 17) == [17, None]
    assert settle([(0, 1)], 0, taken=range(10)) == [None]
    assert settle([(0, 8)], 9, taken=[4]) == [5]  # a clip of 8 frames holds two groups, both free
    assert ask("""model.shifted(model.groupsOf(34), [{ shown: 0, at: 0 }, { shown: 12, at: 12 }, { shown: 33, at: null }],
        [0, 1, 2], -3)""") == [[2, 30]]
    assert ask("model.shifted(model.groupsOf(34), [{ shown: 0, at: 0 }, { shown: 12, at: 12 }], [0, 1], 2)") == [
        [0, 5], [1, 17],
    ]  # fmt: skip
