"""The templates as apps, opened by their card: they show what they name and no more, run, and give a video.

A front end that knows no apps shows no card of one, and no card without its picture.
"""

import json

import pytest
from PIL import Image

from runner.server.comfyui import PACK_NAME
from runner.templates import OFFICIAL, WORKFLOWS, templates

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

CARD = "template-workflow-"
DRAWN = """([card, ...size]) => {
    const pictures = [...(document.querySelector(`[data-testid="${card}"]`)?.querySelectorAll('img') ?? [])];
    return pictures.some(({ naturalWidth, naturalHeight }) => String([naturalWidth, naturalHeight]) === String(size));
}"""
SHOWN = """(items) => items.map((item) => item.dataset.widgetKey.split(':').slice(-2))
    .map(([node, widget]) => [Number(node), widget])"""
APP = "1 Text to video.app"
STORYBOARD = "4 Keyframe timeline (storyboard).app"


def knows_apps(page):
    return page.evaluate("() => app.extensionManager.getSidebarTabs().some((tab) => tab.id === 'apps')")


def content(name):
    return json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))


def inputs_of(workflow):
    """[[node, widget], …] that an app names."""
    return [item[:2] for item in workflow["extra"]["linearData"]["inputs"]]


def shown_inputs(page, count):
    """Those that App mode shows, from top to bottom, once there are `count`."""
    items = page.get_by_test_id("app-mode-widget-item")
    items.nth(count - 1).wait_for()
    return items.evaluate_all(SHOWN)


def without_the_tour(page):
    """Newer front ends greet the first app of a user with a tour, which lies over it."""
    if knows_apps(page):
        page.evaluate("() => app.extensionManager.setting.set('Comfy.OnboardingCoachmarks.Seen', ['appMode'])")


def open_the_cards(page, names):
    """Open the template browser at this pack and scroll past the cards `names`; all names listed, in their order.

    A card and its picture are made when they come into view: each is waited for, the page's list is read at the end.
    For a picture that is missing the page shows one of its own, which has another size.
    """
    page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_role("dialog").get_by_text(PACK_NAME).first.click()
    for name in names:
        page.get_by_test_id(f"{CARD}{name}").scroll_into_view_if_needed()
        page.get_by_test_id(f"{CARD}{name}").locator("img").first.wait_for()
        page.wait_for_function(DRAWN, arg=[f"{CARD}{name}", *Image.open(WORKFLOWS / f"{name}.jpg").size])
    listed = page.locator(f"[data-testid^={CARD}]").evaluate_all("(cards) => cards.map((card) => card.dataset.testid)")
    return [name.removeprefix(CARD) for name in listed]


def test_by_its_card_to_its_video(each_page, each_server):
    page = each_page.page
    own = [path.stem for path in templates()]
    apps = [f"{name}.app" for name in own] if knows_apps(page) else []
    official = sorted(path.stem for path in WORKFLOWS.glob(f"*{OFFICIAL}.json"))
    assert open_the_cards(page, own + apps + official) == own + apps + official
    name = APP if apps else APP.removesuffix(".app")
    without_the_tour(page)
    page.get_by_test_id(f"{CARD}{name}").click()
    page.wait_for_function("() => app.graph.nodes.some((node) => node.type === 'OpenSoraSampler')")
    page.get_by_role("dialog").filter(has_text=PACK_NAME).wait_for(state="detached")
    if not apps:
        return
    named = inputs_of(content(APP))
    assert shown_inputs(page, len(named)) == named
    prompt = page.get_by_test_id("linear-widgets").locator("textarea")
    prompt.fill("a red circle stays still on a white background")
    page.evaluate("""() => {
        const node = app.graph.nodes.find((node) => node.type === 'OpenSoraSampler');
        node.widgets.find((widget) => widget.name === 'steps').value = 2;
        app.api.addEventListener('execution_error', () => (window.failed = true));
    }""")
    page.get_by_test_id("linear-run-button").get_by_role("button", name="Run").click()
    page.wait_for_function("() => window.failed || document.querySelector('video')?.src", timeout=600_000)
    assert not page.evaluate("window.failed")
    shown = page.locator("video").first
    shown.wait_for()
    run = max(each_server.client.get("/history").values(), key=lambda run: run["prompt"][0])
    assert run["prompt"][2]["4"]["inputs"]["prompt"] == "a red circle stays still on a white background"
    (file,) = run["outputs"]["9"]["images"]
    assert file["filename"] in shown.get_attribute("src")
    assert each_server.view(file)[4:8] == b"ftyp"


def test_the_timeline_of_an_app_is_drawn_and_dragged(each_page):
    """Where there are no apps the template stands for it, which is drawn on its node."""
    page = each_page.page
    name = STORYBOARD if knows_apps(page) else STORYBOARD.removesuffix(".app")
    workflow = content(name)
    without_the_tour(page)
    each_page.load(workflow, name)
    if name == STORYBOARD:
        named = inputs_of(workflow)
        assert shown_inputs(page, len(named)) == named
        drawn = page.get_by_test_id("linear-widgets").locator(".opensora-timeline")
    else:
        drawn = page.locator(".dom-widget .opensora-timeline")
    drawn.wait_for()
    thumbs = drawn.locator(".os-thumb")
    thumbs.nth(2).wait_for()
    thumbs.nth(1).scroll_into_view_if_needed()
    whole, track = drawn.bounding_box(), drawn.locator(".os-track").bounding_box()
    assert track["width"] > 240 and track["width"] > 0.8 * whole["width"] and whole["height"] > 300
    assert thumbs.evaluate_all("(all) => all.map((one) => one.getAttribute('aria-valuenow'))") == ["0", "17", "33"]
    box = thumbs.nth(1).bounding_box()
    assert track["x"] - 1 <= box["x"] and box["x"] + box["width"] <= track["x"] + track["width"] + 1
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 20, y, steps=4)
    page.mouse.move(x + 0.25 * track["width"], y, steps=4)
    page.mouse.up()
    moved = "(one) => Number(one.getAttribute('aria-valuenow')) > 20"
    page.wait_for_function(moved, arg=thumbs.nth(1).element_handle())
    sent = json.loads(each_page.api_graph()["9"]["inputs"]["timeline"])["keyframes"]
    assert [each["frame"] for each in sent if each["image"] == 2][0] > 20
