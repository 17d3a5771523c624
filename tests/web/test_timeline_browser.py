"""The displays on the pack's nodes in a real page: the drawn timeline with mouse and keyboard, strips, the size line."""

import io
import json

import numpy
import pytest
from browser import DRAWN, rest
from PIL import Image, ImageDraw
from small import pack
from timeline_page import GraphPage, Timeline

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

FRAMES, SEED, STEPS = 34, 5, 3
PROMPT = "a red circle moves right on a white background"
NAMES = [f"timeline_test_{number}.png" for number in (1, 2, 3)]


@pytest.fixture(scope="module", autouse=True)
def pictures(server):
    """Three pictures among the server's inputs, there before a page asks which there are."""
    pictures_of_the_tests(server)


def pictures_of_the_tests(server):
    """Put the three pictures into the server's inputs."""
    for number, name in enumerate(NAMES):
        picture = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(picture).ellipse((4 + 18 * number, 22, 24 + 18 * number, 42), "red")
        picture.save(server.base / "input" / name)


def graph(keyframes, frames=FRAMES):
    """The API graph of the tests, written by hand: three pictures into a timeline, sampled and saved as pictures."""
    nodes = {
        "1": ("OpenSoraLoadModel", {"model_name": "tiny (bundled)", "weight_dtype": "auto"}),
        "2": ("OpenSoraLoadTextEncoder", {"text_encoder_name": "tiny (bundled)", "device": "default"}),
        "3": ("OpenSoraLoadVAE", {"vae_name": "tiny (bundled)"}),
        "4": ("OpenSoraTextEncode", {"clip": ["2", 0], "prompt": PROMPT, "aesthetic_score": 0.0, "motion_score": 0.0,
                                     "camera_motion": "none", "clean_caption": True}),
        "5": ("OpenSoraEmptyLatent", {"vae": ["3", 0], "resolution": "auto", "aspect_ratio": "auto", "frames": frames,
                                      "fps": 24.0, "width": 424, "height": 240, "batch_size": 1,
                                      "duration": "by frames"}),
        **{str(11 + index): ("LoadImage", {"image": name}) for index, name in enumerate(NAMES)},
        "6": ("OpenSoraTimeline", {"latent": ["5", 0], "vae": ["3", 0],
                                   "timeline": json.dumps({"version": 1, "keyframes": keyframes}),
                                   **{f"image_{1 + index}": [str(11 + index), 0] for index in range(3)}}),
        "7": ("OpenSoraSampler", {"model": ["1", 0], "positive": ["4", 0], "latent": ["6", 0], "seed": SEED,
                                  "steps": STEPS, "cfg": 7.0, "sampler_name": "original", "denoise": 1.0}),
        "8": ("OpenSoraVAEDecode", {"vae": ["3", 0], "samples": ["7", 0]}),
        "9": ("SaveImage", {"images": ["8", 0], "filename_prefix": "timeline"}),
    }  # fmt: skip
    return {key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in nodes.items()}


def forget(server):
    """Let the server make again what it has made: nodes that it answers from its cache show nothing."""
    server.client.post("/free", {"unload_models": True, "free_memory": True})


def without(nodes, *keys):
    return {key: node for key, node in nodes.items() if key not in keys}


@pytest.fixture
def timeline(page):
    """A page with three pictures wired into an empty timeline."""
    return Timeline(page, without(graph([]), "1", "2", "4", "7", "8", "9"))


def frames_of(server, files):
    """What was saved, as [T, H, W, 3]."""
    return numpy.stack([numpy.asarray(Image.open(io.BytesIO(server.view(file)))) for file in files])


def test_three_keyframes_by_mouse_saved_reloaded_and_run(page, server):
    timeline = Timeline(page, graph([]))
    assert timeline.page.locator(".os-card").count() == 3
    facts, assumed = timeline.page.locator(".os-facts"), "grouped as Open-Sora 1.2 until a run"
    assert "34 frames · 1.42 s at 24 fps" in facts.inner_text() and assumed in facts.inner_text()
    timeline.pin(1, 0)
    timeline.pin(2, 18)
    timeline.pin(3, 22)
    timeline.move(2, 30)
    assert timeline.keyframes() == [(1, 0, 1), (2, 18, 1), (3, 30, 1)]

    name = "timeline test"
    timeline.page.evaluate("document.activeElement.blur()")
    timeline.page.keyboard.press("Control+s")
    timeline.page.locator("[role=dialog] input").first.fill(name)
    timeline.page.keyboard.press("Enter")
    file = server.base / "user" / "default" / "workflows" / f"{name}.json"
    for _ in range(50):
        if file.is_file():
            break
        timeline.page.wait_for_timeout(200)
    saved = json.loads(file.read_text(encoding="utf-8"))
    (node,) = (node for node in saved["nodes"] if node["type"] == "OpenSoraTimeline")
    assert [type(value) for value in node["widgets_values"]] == [str]
    assert json.loads(node["widgets_values"][0])["keyframes"] == json.loads(timeline.text())["keyframes"]

    page.reload()
    page.load(saved, name)
    timeline.show()
    assert timeline.keyframes() == [(1, 0, 1), (2, 18, 1), (3, 30, 1)]
    assert timeline.page.locator(".os-thumb:visible").count() == 3
    assert not timeline.page.locator(".os-run").is_visible()

    result = page.queue()
    assert result["success"], (result["messages"], page.faulty_nodes())
    shown = [output["images"] for output in result["outputs"].values() if "images" in output]
    files = [file for images in shown for file in images if file["type"] == "output"]
    by_page = frames_of(server, files)
    timeline.show()
    assert assumed not in facts.inner_text()
    assert timeline.page.locator(".os-run .opensora-strip-cells [data-kind=kept]").count() == 3
    assert "image_2 at frame 18: frames 18–21 (0.75–0.92 s), kept" in timeline.page.locator(".os-run").inner_text()

    forget(server)
    keyframes = [{"image": 1, "frame": 0}, {"image": 2, "frame": 18, "strength": 1.0}, {"image": 3, "frame": 30}]
    made_again = [file for file in server.run(graph(keyframes)).files() if file["type"] == "output"]
    by_api = frames_of(server, made_again)
    assert by_page.shape == (FRAMES, 64, 64, 3)
    assert {file["filename"] for file in files}.isdisjoint(file["filename"] for file in made_again)
    assert (by_page == by_api).all()


def test_undo_and_redo_by_keyboard_are_one_step_a_gesture(timeline):
    timeline.pin(1, 0)
    timeline.pin(2, 9)
    timeline.move(1, 26)
    assert timeline.keyframes() == [(1, 0, 1), (2, 26, 1)]
    timeline.undo_key("Control+z")
    assert timeline.keyframes() == [(1, 0, 1), (2, 9, 1)]
    assert timeline.page.locator(".os-thumb:visible").count() == 2
    timeline.undo_key("Control+z")
    assert timeline.keyframes() == [(1, 0, 1)]
    timeline.undo_key("Control+y")
    timeline.undo_key("Control+y")
    assert timeline.keyframes() == [(1, 0, 1), (2, 26, 1)]
    timeline.move(1, 13)
    assert timeline.keyframes() == [(1, 0, 1), (2, 13, 1)]


def test_keyboard_moves_turns_and_deletes_the_selected_keyframe_alone(timeline):
    timeline.pin(1, 5)
    timeline.pin(2, 30)
    timeline.page.mouse.click(*timeline.middle(".os-thumb", 0))
    timeline.key("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowDown", "ArrowDown")
    assert timeline.keyframes() == [(1, 9, 0.9), (2, 30, 1)]
    timeline.key("End")
    assert timeline.keyframes()[0] == (1, 30, 0.9)
    faults = timeline.page.locator(".os-faults").inner_text()
    assert "image 1 at frame 30 is hidden: image 2 at frame 30 holds 30–33 too and wins" in faults
    assert timeline.page.locator(".os-key.os-fault").count() == 1
    timeline.key("Home", "Delete")
    assert timeline.keyframes() == [(2, 30, 1)]
    # With nothing left the keys still do not reach the node.
    timeline.key("Backspace", "Delete", "Delete")
    assert timeline.keyframes() == []
    timeline.undo_key("Control+z")
    assert timeline.keyframes() == [(2, 30, 1)]


def test_strength_by_handle_and_removal_by_mouse(timeline):
    timeline.pin(1, 9)
    timeline.pin(2, 22)
    x, y = timeline.middle(".os-handle", 0)
    height = timeline.page.locator(".os-hold").first.bounding_box()["height"]
    timeline.drag((x, y), (x, y + 0.5 * height))
    assert timeline.keyframes() == [(1, 9, 0.5), (2, 22, 1)]
    timeline.drag(timeline.middle(".os-handle", 0), (x, y - 200))
    assert timeline.keyframes()[0] == (1, 9, 1)
    timeline.page.mouse.move(*timeline.middle(".os-thumb", 0))
    timeline.page.mouse.click(*timeline.middle(".os-remove", 0))
    assert timeline.keyframes() == [(2, 22, 1)]
    x, y = timeline.middle(".os-thumb", 0)
    timeline.drag((x, y), (x, y + 300))
    assert timeline.keyframes() == []
    # Both ways of the tray that need no drag.
    timeline.page.locator(".os-card").nth(1).dblclick()
    timeline.page.locator(".os-card").nth(2).hover()
    timeline.page.locator(".os-add").nth(2).click()
    assert timeline.keyframes() == [(2, 0, 1), (3, 1, 1)]


def test_playhead_reads_seconds_and_frame(timeline):
    x = timeline.block(9)[0] + 4  # the second half of frames 9 to 12
    y = timeline.middle(".os-ruler")[1]
    timeline.page.mouse.click(x, y)
    assert timeline.page.locator(".os-flag").inner_text() == "0.46 s · 11"
    timeline.key("ArrowRight")
    assert timeline.page.locator(".os-flag").inner_text() == "0.50 s · 12"
    timeline.drag(timeline.middle(".os-flag"), (timeline.block(30)[0] + 4, y))
    assert timeline.page.locator(".os-playhead").get_attribute("aria-valuenow") == "32"
    timeline.page.locator(".os-card").first.dblclick()
    assert timeline.keyframes() == [(1, 30, 1)]


def test_what_others_wrote_survives(timeline):
    """Negative frames stay until moved, unknown keys stay, and text that is no JSON is not destroyed by itself."""
    value = {"version": 1, "mood": {"a": [1]}, "keyframes": [{"image": 1, "frame": -1, "note": "end"},
                                                              {"image": 2, "frame": 0}]}  # fmt: skip
    timeline.set_widget("OpenSoraTimeline", "timeline", json.dumps(value))
    assert timeline.middle(".os-hold", 0)[0] == pytest.approx(timeline.block(30)[0], abs=1)
    timeline.move(1, 9)
    value["keyframes"][1]["frame"] = 9
    assert json.loads(timeline.text()) == value
    timeline.move(0, 22)
    value["keyframes"][0]["frame"] = 22
    assert json.loads(timeline.text()) == value

    # A clip that got shorter: what is beyond its end waits there in red and can be moved back.
    timeline.set_widget("OpenSoraEmptyLatent", "frames", 17)
    assert "17 frames · 0.71 s" in timeline.page.locator(".os-facts").inner_text()
    assert "image 1 at frame 22 is outside of the clip" in timeline.page.locator(".os-faults").inner_text()
    timeline.move(0, 5)
    value["keyframes"][0]["frame"] = 5
    assert json.loads(timeline.text()) == value
    assert timeline.page.locator(".os-faults").inner_text() == ""

    timeline.set_widget("OpenSoraTimeline", "timeline", '{"keyframes": [oops')
    assert "cannot be drawn" in timeline.page.locator(".os-problem").inner_text()
    assert timeline.text() == '{"keyframes": [oops'
    timeline.page.get_by_role("button", name="Start anew").click()
    assert json.loads(timeline.text()) == {"version": 1, "keyframes": []}
    timeline.undo_key("Control+z")
    assert timeline.text() == '{"keyframes": [oops'


def test_a_drop_in_the_same_group_and_keys_in_a_drag_change_nothing(timeline):
    value = {"version": 1, "keyframes": [{"image": 1, "frame": -1}, {"image": 2, "frame": 0}]}
    timeline.set_widget("OpenSoraTimeline", "timeline", json.dumps(value))
    x, y = timeline.middle(".os-thumb", 0)
    timeline.drag((x, y), (x + 5, y))
    assert timeline.keyframes() == [(1, -1, 1), (2, 0, 1)]

    timeline.page.mouse.down()
    timeline.page.mouse.move(timeline.block(22)[0], y)
    timeline.key("Delete", "ArrowDown")
    timeline.page.mouse.move(timeline.block(18)[0], y)
    timeline.page.mouse.up()
    rest(timeline.page, DRAWN)
    assert timeline.keyframes() == [(1, 18, 1), (2, 0, 1)]
    x, y = timeline.middle(".os-thumb", 0)
    timeline.page.mouse.move(x, y)
    timeline.page.mouse.down()
    timeline.page.mouse.move(timeline.block(9)[0], y)
    timeline.key("Escape")
    timeline.page.mouse.up()
    assert timeline.keyframes() == [(1, 18, 1), (2, 0, 1)]


def test_while_the_text_is_shown_the_tray_rests_and_typing_stays(timeline):
    timeline.pin(1, 9)
    card, text = timeline.page.locator(".os-card").nth(1), timeline.page.locator(".os-text")

    def all_ways_of_the_tray():
        card.dblclick()
        card.hover()
        card.locator(".os-add").click()
        card.focus()
        timeline.key("Enter")

    timeline.page.locator(".os-code").click()
    saved = timeline.text()
    all_ways_of_the_tray()
    assert timeline.text() == saved
    text.fill("half of a tho")
    card.focus()
    timeline.set_widget("OpenSoraEmptyLatent", "frames", 51)  # the editor is painted anew
    assert "51 frames" in timeline.page.locator(".os-facts").inner_text()
    assert text.input_value() == "half of a tho"
    other = saved.replace('"frame": 9', '"frame": 13')
    timeline.set_widget("OpenSoraTimeline", "timeline", other)
    assert text.input_value() == other
    # Text that was not used is gone with the panel.
    text.fill("half of a tho")
    timeline.page.get_by_role("button", name="Back to the track").click()
    timeline.page.locator(".os-code").click()
    assert text.input_value() == other
    timeline.page.get_by_role("button", name="Back to the track").click()

    for faulty in ('{"keyframes": [oops', '{"version": 2, "keyframes": []}'):
        timeline.set_widget("OpenSoraTimeline", "timeline", faulty)
        assert "cannot be drawn" in timeline.page.locator(".os-problem").inner_text()
        all_ways_of_the_tray()
        assert timeline.text() == faulty
    timeline.set_widget("OpenSoraTimeline", "timeline", other)
    timeline.page.evaluate("""() => {
        const [node] = app.graph.nodes.filter((node) => node.type === 'OpenSoraTimeline');
        const text = LiteGraph.createNode('PrimitiveString');
        app.graph.add(text);
        text.connect(0, node, node.findInputSlot('timeline'));
    }""")
    rest(timeline.page)
    assert "comes in through a wire" in timeline.page.locator(".os-problem").inner_text()
    all_ways_of_the_tray()
    assert timeline.text() == other


def test_a_clip_is_drawn_with_its_whole_length_until_it_is_rewired(page, server):
    forget(server)
    keyframes = [{"image": 1, "frame": 0}, {"image": 1, "frame": 30}]
    nodes = without(graph(keyframes), "1", "2", "4", "7", "8", "9", "12", "13")
    nodes["6"]["inputs"] = {**without(nodes["6"]["inputs"], "image_2", "image_3"), "image_1": ["14", 0]}
    nodes["14"] = {"class_type": "RepeatImageBatch", "inputs": {"image": ["11", 0], "amount": 17}}
    nodes["10"] = {"class_type": "PreviewAny", "inputs": {"source": ["6", 0]}}
    timeline = Timeline(page, nodes)

    def holds():
        thumbs = timeline.page.locator(".os-thumb")
        return [words.split("holds ")[1].split(", ")[0] for words in
                thumbs.evaluate_all("(all) => all.map((one) => one.getAttribute('aria-valuetext'))")]  # fmt: skip

    assert page.queue()["success"]
    timeline.show()
    assert holds() == ["0–16", "30–33"]
    timeline.page.evaluate("""() => {
        const find = (kind) => app.graph.nodes.find((node) => node.type === kind);
        const node = find('OpenSoraTimeline');
        find('LoadImage').connect(0, node, node.findInputSlot('image_1'));
    }""")
    rest(timeline.page)
    assert holds() == ["0", "30–33"]


def test_a_copied_node_is_its_own_and_a_removed_one_leaves_nothing(timeline):
    timeline.pin(1, 9)
    timeline.page.mouse.click(*[a + b for a, b in zip((300, 0), (0, 145))])  # its title
    timeline.key("Control+c")
    timeline.page.mouse.move(1100, 700)
    timeline.page.keyboard.press("Control+v")
    rest(timeline.page)
    texts = """() => app.graph.nodes.filter((node) => node.type === 'OpenSoraTimeline')
        .map((node) => node.widgets.find((widget) => widget.name === 'timeline').value)"""
    first, second = timeline.page.evaluate(texts)
    assert first == second and json.loads(first)["keyframes"]
    assert timeline.page.locator(".opensora-timeline").count() == 2
    timeline.page.evaluate("""() => { for (const node of [...app.graph.nodes])
        if (node.type === 'OpenSoraTimeline') app.graph.remove(node) }""")
    rest(timeline.page)
    assert timeline.page.locator(".opensora-timeline").count() == 0


def test_strip_and_size_appear_after_a_run(page, server):
    forget(server)
    nodes = without(graph([]), "1", "2", "4", "7", "8", "9", "12", "13")
    nodes["6"] = {"class_type": "OpenSoraKeyframe", "inputs": {"latent": ["5", 0], "vae": ["3", 0], "image": ["11", 0],
                                                               "frame": 9, "strength": 0.5}}  # fmt: skip
    nodes["10"] = {"class_type": "PreviewAny", "inputs": {"source": ["6", 0]}}
    shown = GraphPage(page, nodes, "OpenSoraEmptyLatent")
    size, report = shown.page.locator(".opensora-size"), shown.page.locator(".opensora-report")
    assert size.inner_text() == "auto size · 34 frames · 1.42 s at 24 fps"
    report.locator(".opensora-strip").wait_for(state="hidden")
    assert report.locator(".opensora-hint").inner_text()

    shown.page.evaluate(
        "window.undoSteps = () => app.extensionManager.workflow.activeWorkflow.changeTracker.undoQueue.length"
    )
    rest(shown.page)
    shown.page.mouse.click(1300, 850)  # a look of undo's: Load Image has grown to its picture, which is not our matter
    steps = shown.page.evaluate("undoSteps()")
    assert page.queue()["success"]
    shown.page.mouse.click(1300, 850)
    rest(shown.page)
    assert shown.page.evaluate("undoSteps()") == steps
    assert size.inner_text().split("\n")[0] == "64 × 64 · 34 frames · 1.42 s at 24 fps"
    assert size.get_attribute("data-from") == "run"
    cells = report.locator(".opensora-strip-cells .opensora-cell")
    assert cells.evaluate_all("(all) => all.map((one) => one.dataset.kind[0]).join('')") == "gggpgggggg"
    assert "image at frame 9: frames 9–12 (0.38–0.54 s), partly kept" in report.inner_text()

    # Settings that say it all need no run, and an answer to other settings is none.
    for name, value in (("resolution", "240p"), ("aspect_ratio", "16:9"), ("duration", "2s")):
        shown.set_widget("OpenSoraEmptyLatent", name, value)
    assert size.inner_text() == "426 × 240 · 51 frames · 2.13 s at 24 fps"
    shown.set_widget("OpenSoraEmptyLatent", "resolution", "custom")
    assert size.inner_text() == "424 × 240 · 51 frames · 2.13 s at 24 fps"
    shown.set_widget("OpenSoraEmptyLatent", "resolution", "auto")
    assert size.inner_text() == "auto size · 51 frames · 2.13 s at 24 fps"


def test_model_of_the_timeline(page):
    """The pure functions, in the page that imports them."""
    page.page.evaluate("""async () => {
        window.model = await import('/extensions/opensora_comfy/timeline_model.js');
    }""")
    ask = page.page.evaluate
    for frames in (1, 17, 21, 34, 38, 51, 20):
        expected = [[group[0], group[-1]] for group in pack("model.frames").CHUNKS.groups(frames)]
        assert ask("(frames) => model.groupsOf(frames)", frames) == expected
    shared = pack("model.frames").OVERLAPPING
    for frames in (1, 17, 18, 20, 33, 40, 113):
        expected = [[group[0], group[-1]] for group in shared.groups(frames)]
        assert ask("(frames) => model.groupsOf(frames, 'vae_v1_3')", frames) == expected
    assert ask("model.groupsOf(3, 'vae_2d')") == [[0, 0], [1, 1], [2, 2]]
    assert ask("[0, 0.9, 1, 4.9, 17.5, 40, -3].map((at) => model.snap(model.groupsOf(34), at))") == [
        0, 0, 1, 1, 17, 30, 0,
    ]  # fmt: skip
    assert ask("[[12, 1], [12, -1], [0, -1], [33, 1]].map(([at, by]) => model.step(model.groupsOf(34), at, by))") == [
        13, 5, 0, 30,
    ]  # fmt: skip
    assert ask("[-1, -34, -35, 34, 33].map((frame) => model.resolve(frame, 34))") == [33, 0, None, None, 33]
    # An image holds its group (of Open-Sora 1.3's chunks, which share a frame, both); a clip the groups it covers.
    assert ask("model.held(model.groupsOf(34), 12)") == [3]
    assert ask("model.held([[0, 0], [1, 4], [4, 4], [5, 8]], 4)") == [1, 2]
    assert ask("model.held(model.groupsOf(34), 8, 12)") == [3, 4, 5]
    assert ask("model.placeWords(model.groupsOf(34), 12, 1, 24)") == "frame 12 · 0.50 s, holds 9–12"

    words = ask("""model.review(
        [{image: 1, frame: 10}, {image: 2, frame: 9}, {image: 3, frame: 99}, {image: 4, frame: 0}, 7, {image: 1, frame: 5,
         strength: 2}], model.groupsOf(17), 17, {connected: new Set(['image_1', 'image_2', 'image_3'])}
    ).map((one) => one.faults.join())""")
    assert "image 1 at frame 10 is hidden: image 2 at frame 9 holds 9–12 too and wins" in words[0]
    assert "nearest free place is 13–16" in words[0]
    assert words[1] == ""
    assert "outside of the clip, which has frames 0 to 16" in words[2]
    assert "image_4 is not connected" in words[3]
    assert "keyframe 5 is no object" in words[4]
    assert "strength is 2; allowed are 0 to 1" in words[5]
    notes = ask("""model.review([{image: 1, frame: 0}, {image: 2, frame: 5}], model.groupsOf(17), 17,
        {counts: {image_1: 9}})[0].notes""")
    assert notes == ["image 1 at frame 0: image 2 at frame 5 comes later in the list and takes 5–8"]

    for bad in ("", "{", "[]", "3", '{"version": 1}', '{"keyframes": {}}'):
        assert ask("(text) => model.parse(text).error", bad), bad
    for version in ("2", "null", "true", '"1"'):
        error = ask("(text) => model.parse(text).error", f'{{"version": {version}, "keyframes": []}}')
        assert error == f"it has version {version}; this node reads version 1"
    for good in ('{"version": 1, "keyframes": []}', '{"a": {"b": [1, null, "x"]}, "keyframes": [{"image": 1}]}'):
        assert ask("(text) => model.serialise(model.parse(text).value)", good) == good


def test_a_length_made_for_another_duration_is_none(page):
    """A duration is what a run made of it, else what it is named for."""
    found = page.page.evaluate("""async () => {
        const { lengthOf } = await import('/extensions/opensora_comfy/graph.js');
        const made = [[55, 'by frames'], [49, '2s']];
        return made.map(([frames, duration]) => lengthOf({
            widgets: [{ name: 'duration', value: '2s' }, { name: 'frames', value: 55 }, { name: 'fps', value: 24 }],
            opensoraOutput: { opensora_size: [{ frames, duration }] },
        }).frames);
    }""")
    assert found == [51, 49]
