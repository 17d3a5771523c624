"""The browser's tab that tests have one after the other: nothing of a test is left in it, nothing else is reached from it."""

import contextlib

import pytest
from browser import ComfyPage
from playwright.sync_api import Error

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

FOUND = """() => {
    const keys = (done) => addEventListener('pointermove', ({ ctrlKey, buttons }) => done([ctrlKey, buttons]), true);
    const held = new Promise(keys);
    window.found = (async () => ({
        setting: app.extensionManager.setting.get('Comfy.VueNodes.Enabled'),
        kept: [localStorage, sessionStorage].map((storage) => storage.getItem('of a test')),
        cookie: document.cookie,
        bases: (await indexedDB.databases()).filter(({ name }) => name === 'of a test').length,
        caches: (await caches.keys()).filter((name) => name === 'of a test').length,
        nodes: app.graph.nodes.map((node) => node.type),
        held: await held,
    }))();
}"""
LEAVE = """async () => {
    localStorage.setItem('of a test', '1');
    sessionStorage.setItem('of a test', '1');
    document.cookie = 'of_a_test=1';
    await caches.open('of a test');
    await new Promise((done) => (indexedDB.open('of a test').onsuccess = done));
    app.graph.clear();
    app.graph.add(LiteGraph.createNode('EmptyImage'));
    window.fetch = () => { throw new Error('of a test') };
}"""
SET = "(value) => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', value)"


def found(page):
    """What a test might have left, as the page of the next finds it."""
    page.evaluate(FOUND)
    page.mouse.move(600, 500)
    page.mouse.move(620, 500)
    return page.evaluate("() => window.found")


def test_nothing_of_a_test_is_left_for_the_next(browser, server):
    with contextlib.closing(ComfyPage(browser, server.address)) as first:
        page, settings = first.page, server.client.get("/settings")
        before = found(page)
        page.evaluate(SET, not before["setting"])
        first.reload()  # within a test its settings stay
        assert found(page)["setting"] is not before["setting"]
        page.evaluate(LEAVE)
        page.route("**/object_info", lambda route: route.abort())
        page.keyboard.down("Control")
        page.mouse.move(800, 500)
        page.mouse.down()
        assert found(page)["held"] == [True, 1]
        assert sum(before[name] == value for name, value in found(page).items()) == 0
    assert server.client.get("/settings") == settings
    with contextlib.closing(ComfyPage(browser, server.address)) as second:
        assert found(second.page) == before


def test_nothing_but_the_server_is_reached(page):
    """By another name the same server would answer, were it not for the browser's rules."""
    ask = "(address) => fetch(address, { mode: 'no-cors' }).then(() => 'answered', () => 'not reached')"
    address = f"{page.address}/system_stats"
    assert page.page.evaluate(ask, address) == "answered"
    assert page.page.evaluate(ask, address.replace("127.0.0.1", "localhost")) == "not reached"


def test_a_tab_that_has_crashed_is_replaced(browser, server):
    first = ComfyPage(browser, server.address)
    with contextlib.closing(first), contextlib.suppress(Error), first.page.expect_event("crash"):
        first.page.goto("chrome://crash")
    with contextlib.closing(ComfyPage(browser, server.address)) as second:
        assert second.page.evaluate("() => app.graph.nodes.length") > 0
