"""Files dropped on the drawn timeline in a real page: uploaded, loaded by nodes, wired in and pinned, or refused."""

import io
import json

import av
import numpy
import pytest
from browser import rest
from PIL import Image, PngImagePlugin
from timeline_page import Timeline

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]


def graph(inputs=1, frames=34):
    """A timeline with so many of its images wired, and what asks for its result."""
    keyframes = [{"image": 1, "frame": 9}]
    nodes = {
        "3": ("OpenSoraLoadVAE", {"vae_name": "tiny (bundled)"}),
        "5": ("OpenSoraEmptyLatent", {"vae": ["3", 0], "duration": "by frames", "frames": frames, "fps": 24.0,
                                      "resolution": "custom", "aspect_ratio": "auto", "width": 64, "height": 64}),
        "4": ("EmptyImage", {"width": 64, "height": 64}),
        "6": ("OpenSoraTimeline", {"latent": ["5", 0], "vae": ["3", 0],
                                   **{f"image_{number}": ["4", 0] for number in range(1, inputs + 1)},
                                   "timeline": json.dumps({"version": 1, "keyframes": keyframes})}),
        "10": ("PreviewAny", {"source": ["6", 0]}),
    }  # fmt: skip
    return {key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in nodes.items()}


def picture(name="cat.png", colour="red"):
    """A PNG that carries a workflow, which the page would open instead of the artist's."""
    about, data = PngImagePlugin.PngInfo(), io.BytesIO()
    about.add_text("workflow", json.dumps({"nodes": [], "links": [], "version": 0.4, "extra": {}}))
    Image.new("RGB", (64, 64), colour).save(data, "PNG", pnginfo=about)
    return name, "image/png", data.getvalue()


def clip(name="run.mp4", frames=9):
    """An MP4 of plain frames."""
    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.width = stream.height = 64
        for value in range(frames):
            frame = av.VideoFrame.from_ndarray(numpy.full((64, 64, 3), 20 * value, numpy.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return name, "video/mp4", data.getvalue()


def nodes(timeline):
    """[(type, left, top, right, bottom), …] of all nodes, titles included."""
    return timeline.page.evaluate(
        """(app.canvas.graph ?? app.graph).nodes.map(({ type, pos, size }) =>
            [type, pos[0], pos[1] - 30, pos[0] + size[0], pos[1] + size[1]])"""
    )


def wired(timeline, name):
    """The types of the nodes behind an image input, one after the other."""
    return timeline.page.evaluate(
        """(name) => {
            const { graph } = app.canvas;
            let node = graph.nodes.find((each) => each.type === 'OpenSoraTimeline');
            const types = [];
            for (let input = node.inputs.find((each) => each.name === name); input; input = node.inputs[0]) {
                node = input.link === null ? null : node.getInputNode(node.inputs.indexOf(input));
                if (!node) break;
                types.push(node.type);
            }
            return types;
        }""",
        name,
    )


def arrived(timeline, keyframes):
    timeline.page.wait_for_function(
        """(count) => JSON.parse(app.canvas.graph.nodes.find((each) => each.type === 'OpenSoraTimeline').widgets
            .find((each) => each.name === 'timeline').value).keyframes.length === count""",
        arg=keyframes,
    )
    rest(timeline.page)


def test_pictures_and_clips_are_pinned_where_they_fall_in_one_step(each_page):
    timeline = Timeline(each_page, graph())
    for vue in (False, True):
        timeline.renderer(vue)
        timeline.build(graph())
        count, steps = timeline.count(), timeline.steps()
        point = timeline.block(1)
        timeline.drop(point, picture(), kinds=("dragenter", "dragover"))
        hint, block = (timeline.page.locator(one).bounding_box() for one in (".os-drop", ".os-block:nth-child(2)"))
        assert hint["x"] == pytest.approx(block["x"], abs=3) and hint["width"] == pytest.approx(block["width"], abs=3)
        assert "holds 1–4" in timeline.page.locator(".os-bubble").inner_text()
        timeline.drop(point, picture())
        arrived(timeline, 2)
        assert timeline.keyframes() == [(1, 9, 1), (2, 1, 1)]
        assert wired(timeline, "image_2") == ["LoadImage"] and timeline.count() == count + 1
        assert not timeline.page.locator(".os-drop").is_visible()
        timeline.page.mouse.click(1250, 950)
        rest(timeline.page)
        assert timeline.steps() == steps + 1
        timeline.undo_key("Control+z")
        assert timeline.keyframes() == [(1, 9, 1)] and timeline.count() == count
        timeline.undo_key("Control+y")
        assert timeline.keyframes() == [(1, 9, 1), (2, 1, 1)] and wired(timeline, "image_2") == ["LoadImage"]

        # Several at once, on a place that is taken: the nearest free ones, with a node each that hides no other.
        timeline.drop(timeline.block(9), picture("dog.png", "blue"), clip())
        arrived(timeline, 4)
        assert timeline.keyframes()[2:] == [(3, 13, 1), (4, 17, 1)] and timeline.selected() == [2, 3]
        assert wired(timeline, "image_3") == ["LoadImage"]
        assert wired(timeline, "image_4") == ["GetVideoComponents", "LoadVideo"]
        placed = nodes(timeline)
        own = [node for node in placed if node[0] in {"LoadImage", "LoadVideo", "GetVideoComponents"}]
        ((_, left, *_),) = (node for node in placed if node[0] == "OpenSoraTimeline")
        assert len(own) == 4 and all(node[3] <= left for node in own)
        for node in own:
            over = [
                o
                for o in placed
                if o is not node and node[1] < o[3] and o[1] < node[3] and node[2] < o[4] and o[2] < node[4]
            ]
            assert not over, (node, over)
    result = each_page.queue()
    assert result["success"], (result["messages"], each_page.faulty_nodes())
    assert timeline.page.evaluate(
        """Object.values(app.nodeOutputs).map((one) => one.opensora?.[0]?.counts).find(Boolean)"""
    ) == {"image_1": 1, "image_2": 1, "image_3": 1, "image_4": 9}


def test_what_cannot_be_taken_is_refused_in_words_and_changes_nothing(each_page):
    timeline = Timeline(each_page, graph(inputs=7))
    before = timeline.page.evaluate("JSON.stringify(app.graph.serialize())")

    def refused(point, words, *files):
        timeline.drop(point, *files)
        timeline.page.wait_for_function(
            "(words) => document.querySelector('.os-notice').textContent.includes(words)", arg=words
        )
        assert timeline.page.evaluate("JSON.stringify(app.graph.serialize())") == before

    point = timeline.block(18)
    refused(point, "notes.txt: only pictures", ("notes.txt", "text/plain", b"x"), picture())
    refused(point, "plan.svg: only pictures", ("plan.svg", "image/svg+xml", b"<svg/>"))
    refused(point, "2 files need as many free image inputs; 1 of eight are free", picture(), picture("dog.png"))
    timeline.drop(point, ("notes.txt", "text/plain", b"x"), kinds=("dragenter", "dragover"))
    assert timeline.page.locator(".os-bubble.os-warning").inner_text() == "Only pictures and clips can be dropped here"
    timeline.page.route("**/upload/image", lambda route: route.fulfill(status=413, body="too large"))
    refused(point, "cat.png could not be uploaded: 413", picture())
    timeline.page.unroute("**/upload/image")

    # Beside the track nothing is pinned, and nothing is opened.
    timeline.drop(timeline.middle(".os-tray"), picture())
    timeline.page.wait_for_function("document.querySelector('.os-notice').textContent.startsWith('Wired to image_8')")
    assert timeline.keyframes() == [(1, 9, 1)] and wired(timeline, "image_8") == ["LoadImage"]
    before = timeline.page.evaluate("JSON.stringify(app.graph.serialize())")
    refused(point, "All eight image inputs are taken", picture())


def test_a_pasted_picture_is_dropped_at_the_playhead_in_a_subgraph_too(each_page):
    timeline = Timeline(each_page, graph())
    timeline.page.evaluate("""() => {
        const { graph } = app.canvas;
        const inside = graph.nodes.filter((node) => ['OpenSoraTimeline', 'EmptyImage'].includes(node.type));
        const { subgraph, node } = graph.convertToSubgraph(new Set(inside));
        app.canvas.openSubgraph(subgraph, node);
    }""")
    timeline.page.wait_for_function("app.canvas.graph.nodes.some((node) => node.type === 'OpenSoraTimeline')")
    timeline.page.evaluate("""() => {
        const node = app.canvas.graph.nodes.find((each) => each.type === 'OpenSoraTimeline');
        app.canvas.ds.scale = 1;
        app.canvas.ds.offset = [460 - node.pos[0], 160 - node.pos[1]];
        app.canvas.setDirty(true, true);
    }""")
    timeline.page.locator(".opensora-timeline:visible .os-block").nth(4).wait_for()
    rest(timeline.page)
    timeline.page.mouse.click(timeline.block(5)[0], timeline.middle(".os-ruler")[1])
    name, kind, data = picture("image.png")
    timeline.page.evaluate(
        """([name, type, bytes]) => {
            const clipboardData = new DataTransfer();
            clipboardData.items.add(new File([Uint8Array.from(bytes)], name, { type }));
            document.body.dispatchEvent(new ClipboardEvent('paste', { bubbles: true, cancelable: true, clipboardData }));
        }""",
        [name, kind, list(data)],
    )
    arrived(timeline, 2)
    frames = timeline.page.evaluate(
        """JSON.parse(app.canvas.graph.nodes.find((each) => each.type === 'OpenSoraTimeline').widgets
            .find((each) => each.name === 'timeline').value).keyframes.map(({ image, frame }) => [image, frame])"""
    )
    assert frames == [[1, 9], [2, 5]] and wired(timeline, "image_2") == ["LoadImage"]
    # Escape leaves a subgraph, but with a keyframe selected it only takes back the selection.
    timeline.click(1)
    timeline.key("Escape")
    assert timeline.selected() == []
    assert timeline.page.evaluate("app.canvas.graph.nodes.some((node) => node.type === 'OpenSoraTimeline')")
