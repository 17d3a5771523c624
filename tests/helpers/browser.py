"""Headless Chromium and ComfyUI's page in it, driven by Playwright."""

import contextlib
import time

from playwright.sync_api import Error, sync_playwright

from runner.server.browser import HOW_TO_GET_ONE, installed

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Nothing but the server is reachable.
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]

# Settings stay in the tab: the server, which tests share, would hand them to the next. (Playwright's own way to answer
# requests turns the browser's cache off, and a page is two hundred files.) `asking` counts what is not answered yet.
ASK = r"""(() => {
    const [fetch, kept] = [window.fetch, 'settings of this test'];
    window.asking = 0;
    const ask = async (...values) => {
        window.asking += 1;
        try { return await fetch(...values) } finally { window.asking -= 1 }
    };
    const own = () => JSON.parse(sessionStorage.getItem(kept) ?? '{}');
    window.fetch = async (what, options) => {
        const found = /\/api\/settings(?:\/([^/?]+))?$/.exec(what.url ?? what);
        if (!found) return ask(what, options);
        const name = decodeURIComponent(found[1] ?? '');
        if ((options?.method ?? 'GET') === 'GET') {
            const known = { ...(await (await ask('/api/settings')).json()), ...own() };
            return Response.json(name ? (known[name] ?? null) : known);
        }
        const value = JSON.parse(options.body);
        sessionStorage.setItem(kept, JSON.stringify({ ...own(), ...(name ? { [name]: value } : value) }));
        return new Response(null, { status: 200 });
    };
})()"""
FORGET = """async () => {
    localStorage.clear();
    sessionStorage.clear();
    for (const { name } of await indexedDB.databases()) indexedDB.deleteDatabase(name);
    for (const name of await caches.keys()) await caches.delete(name);
}"""

# Counted in frames, which a busy page draws later: as many without a change, a question or a picture on its way.
REST = """([frames, most]) => new Promise((done) => {
    let calm = 0;
    const watch = new MutationObserver(() => (calm = 0));
    watch.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
    const began = performance.now();
    const pictures = () => [...document.images].some((one) => !one.complete);
    const players = () => [...document.querySelectorAll('video')].some((one) => one.networkState === 2 && !one.readyState);
    const look = () => {
        const { dirty_canvas, dirty_bgcanvas } = app.canvas;
        calm = dirty_canvas || dirty_bgcanvas || window.asking || pictures() || players() ? 0 : calm + 1;
        if (calm < frames && performance.now() - began < most) return requestAnimationFrame(look);
        watch.disconnect();
        done();
    };
    requestAnimationFrame(look);
})"""
SETTLED, DRAWN = 24, 8  # frames, at 60 a second: what is put off has been done; what was pressed is drawn


@contextlib.contextmanager
def headless_chromium():
    """A `Chromium`: the one that run.py found (OPENSORA_BROWSER), else an installed one."""
    path = installed()
    assert path is not None, HOW_TO_GET_ONE
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(path), args=FLAGS)
        try:
            yield Chromium(browser)
        finally:
            browser.close()


def rest(page, frames: int = SETTLED) -> None:
    """As ComfyPage.rest, of a Playwright page."""
    page.evaluate(REST, [frames, 10_000])


class Chromium:
    """A browser with one tab a server, which one test has after the other: what it has read it need not read again."""

    def __init__(self, browser):
        self.browser, self.tabs = browser, {}

    def tab(self, address: str):
        """The tab for that server, empty: a Playwright `Page`."""
        if address not in self.tabs:
            context = self.browser.new_context(viewport={"width": 1600, "height": 1000})
            context.add_init_script(ASK)
            self.tabs[address] = page = context.new_page()
            page.on("crash", lambda: self.tabs.pop(address, None))  # the next test gets another
        return self.tabs[address]

    def empty(self, address: str) -> None:
        """Leave the page in the tab and forget what it kept, keys that a failed test holds included."""
        page = self.tabs.get(address)
        if page is None:  # it has crashed
            return
        try:
            page.unroute_all()
            for key in ("Control", "Shift", "Alt", "Meta"):
                page.keyboard.up(key)
            page.mouse.up()
            page.goto(f"{address}/system_stats")  # of the same origin, and no program
            page.evaluate(FORGET)
            page.context.clear_cookies()
            page.mouse.move(0, 0)
        except Error:
            self.tabs.pop(address, None)
            page.context.close()


class ComfyPage:
    """ComfyUI's page with its editor ready, at the settings of a first visit; what it is set to stays in the page."""

    def __init__(self, browser: Chromium, address: str):
        self.browser, self.address, self.page = browser, address, browser.tab(address)
        self.page.goto(address, wait_until="domcontentloaded", timeout=180_000)
        self._wait_until_ready()

    def reload(self) -> None:
        """Load the page anew, as a user does; what it was set to stays."""
        self.page.reload(wait_until="domcontentloaded", timeout=180_000)
        self._wait_until_ready()

    def _wait_until_ready(self):
        """The page opens a workflow of its own when all else is done: one that is loaded before would be lost to it."""
        self.page.wait_for_function(
            "() => Boolean(window.app?.graph && app.extensionManager?.workflow?.activeWorkflow"
            " && LiteGraph.registered_node_types['KSampler'])",
            timeout=180_000,
        )
        self.close_dialogs()

    def close(self) -> None:
        """Let go of the page."""
        self.browser.empty(self.address)

    def rest(self, frames: int = SETTLED) -> None:
        """Wait until the page has not changed for so many frames; no longer than 10 s, as a page may never rest."""
        rest(self.page, frames)

    def close_dialogs(self) -> None:
        """Press Escape until no dialog covers the canvas."""
        self.rest()
        for _ in range(10):
            if not self.page.locator("[role=dialog], .p-dialog-mask").count():
                return
            self.page.keyboard.press("Escape")
            self.rest()
        raise AssertionError("a dialog does not close")

    def dialogs(self) -> list[str]:
        """The words of every dialog that is open (the page reports missing nodes and models in one)."""
        return self.page.locator("[role=dialog]").all_inner_texts()

    def complaints(self) -> list[str]:
        """The words in which the page says what a workflow lacks: its dialogs, in newer front ends a panel beside it."""
        said = self.dialogs()
        details = self.page.locator("[data-testid=error-overlay-see-errors]")
        if details.count():
            details.dispatch_event("click")  # passing messages may lie over it
            panel = self.page.locator("[data-testid=properties-panel]")
            panel.wait_for()
            said.append(panel.inner_text())
        return said

    def load(self, workflow: dict, name: str) -> None:
        """Open a workflow as a user does who drops its file onto the canvas."""
        script = "async ([workflow, name]) => { await app.loadGraphData(workflow, true, true, name) }"
        self.page.evaluate(script, [workflow, name])
        self.rest()

    def faulty_nodes(self) -> list[str]:
        """Nodes of the open graph, subgraphs included, that are unknown to the page or marked red, with the reason."""
        return self.page.evaluate("""() => {
            const bad = [];
            const visit = (graph) => { for (const node of graph.nodes ?? graph._nodes) {
                const virtual = node.isVirtualNode || node.isSubgraphNode?.();
                if (!virtual && !LiteGraph.registered_node_types[node.type]) bad.push(`${node.type}: missing`);
                if (node.has_errors) bad.push(`${node.type}: has errors`);
                if (node.subgraph) visit(node.subgraph);
            } };
            visit(app.graph);
            for (const [id, error] of Object.entries(app.lastNodeErrors ?? {}))
                bad.push(`${error.class_type}: ${error.errors.map((e) => e.message + ' ' + e.details).join('; ')}`);
            return bad;
        }""")

    def saved(self) -> dict:
        """The open graph as the page would save it."""
        return self.page.evaluate("() => JSON.parse(JSON.stringify(app.graph.serialize()))")

    def api_graph(self) -> dict:
        """The open graph in API format, as the page would send it."""
        return self.page.evaluate("async () => (await app.graphToPrompt()).output")

    def queue(self, timeout: float = 240.0) -> dict:
        """Click the queue button and wait. Returns {"success": bool, "messages": [...], "outputs": {id: output}}."""
        self.page.evaluate("""() => {
            window.seen = [];
            const kinds = ['execution_start', 'execution_success', 'execution_error', 'execution_interrupted'];
            for (const kind of kinds)
                app.api.addEventListener(kind, (event) => window.seen.push({ kind, detail: event.detail }));
        }""")
        self.page.locator('[data-testid="queue-button"]').first.click()
        ends = {"execution_success", "execution_error", "execution_interrupted"}
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            messages = self.page.evaluate("() => window.seen")
            # A graph that the server refuses never starts; the page then marks the nodes.
            if ends & {message["kind"] for message in messages} or self.faulty_nodes():
                break
            self.page.wait_for_timeout(200)
        success = any(message["kind"] == "execution_success" for message in messages)
        self.rest()
        outputs = self.page.evaluate("() => JSON.parse(JSON.stringify(app.nodeOutputs))")
        return {"success": success, "messages": messages, "outputs": outputs}
