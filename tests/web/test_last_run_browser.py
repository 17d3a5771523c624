"""What a run showed on the pack's nodes is shown again after a reload, though the next run takes them from the cache."""

import pytest
from small import pack
from test_timeline_browser import graph, pictures_of_the_tests, without
from test_words import table
from timeline_page import Timeline

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", autouse=True)
def pictures(each_server):
    """The pictures of the timeline's tests among the server's inputs."""
    pictures_of_the_tests(each_server)


def test_the_last_run_comes_back_after_a_reload(each_page):
    timeline = Timeline(each_page, graph([{"image": 1, "frame": 0}, {"image": 2, "frame": 26, "strength": 0.75}]))
    page = timeline.page
    assert each_page.queue()["success"]
    saved = each_page.saved()

    each_page.reload()
    each_page.load(saved, "reloaded")
    timeline.show()
    run, size = page.locator(".os-run"), page.locator(".opensora-size")
    assert not run.is_visible() and size.get_attribute("data-from") == "open"

    timeline.set_widget("OpenSoraSampler", "seed", 17)
    result = each_page.queue()
    assert result["success"], (result["messages"], each_page.faulty_nodes())
    timeline.show()
    run.wait_for()
    assert "image_2 at frame 26: frames 26–29 (1.08–1.25 s), partly kept" in run.inner_text()
    assert size.get_attribute("data-from") == "run"


def test_only_a_run_of_the_same_settings_is_shown(each_page):
    nodes = without(graph([]), "1", "2", "4", "7", "8", "9")
    found = each_page.page.evaluate(
        """async (nodes) => {
            const { outputsOf } = await import('/extensions/opensora_comfy/last_run.js');
            const changed = (change) => { const other = structuredClone(nodes); change(other); return other };
            const run = (prompt, words) => ({ prompt: [0, 'id', prompt], outputs: { 6: words } });
            const others = [
                changed((all) => (all[6].inputs.timeline = '{}')),
                changed((all) => (all[5].inputs.frames = 51)),
                changed((all) => (all[3].inputs.vae_name = 'other')),
                changed((all) => (all[6].inputs.image_2 = ['11', 0])),
            ].map((prompt) => run(prompt, 'other'));
            const same = run(changed((all) => (all[99] = { class_type: 'KSampler', inputs: {} })), 'same');
            const ask = (...runs) => outputsOf(runs, nodes, ['6', '5'])[6] ?? null;
            return [ask(...others), ask(same, ...others), ask(run(nodes, 'old'), same)];
        }""",
        nodes,
    )
    assert found == [None, "same", "same"]


def test_a_report_is_said_in_the_pages_language(each_page):
    """Words within words too; a report of an older run, and a line that no table knows, stay as they are."""
    said = pack("nodes.said").said
    kept = said("{frames}, {state}", frames=said("frame {frame}", frame="9"), state=said("kept"))
    line = said("{keyframe}: {held}", keyframe=said("{name} at frame {frame}", name="image_1", frame=9), held=kept)
    found = each_page.page.evaluate(
        """async ([words, line, table]) => {
            window.openSora.words = table;
            const { drawLines } = await import('/extensions/opensora_comfy/strip.js');
            const drawn = (report) => {
                const list = document.createElement('ul');
                drawLines(list, report);
                return [...list.children].map((item) => item.textContent);
            };
            return [drawn({ words: [words, 'unknown'], lines: [line, 'unknown'] }), drawn({ lines: [line] })];
        }""",
        [line.words, line, table("zh")],
    )
    assert found == [["第 9 帧的 image_1：第 9 帧，保持", "unknown"], ["image_1 at frame 9: frame 9, kept"]]
