"""Headless Chromium and ComfyUI's page in it, driven by Playwright."""

import contextlib
import json
import re
import time
from urllib.parse import unquote

from playwright.sync_api import sync_playwright

from runner.server.browser import HOW_TO_GET_ONE, installed

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

SETTINGS = re.compile(r"/api/settings(?:/([^/?]+))?$")  # of all names, or of one


@contextlib.contextmanager
def headless_chromium():
    """A Playwright Browser: the one that run.py found (OPENSORA_BROWSER), else an installed one."""
    path = installed()
    assert path is not None, HOW_TO_GET_ONE
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(path), args=FLAGS)
        try:
            yield chromium
        finally:
            chromium.close()


class ComfyPage:
    """ComfyUI's page with its editor ready, at the settings of a first visit.

    Nothing but the server is reachable from it, and what it is set to (node renderer, open panels) stays in the page:
    the server, which tests share, would hand it to the next.
    """

    def __init__(self, browser, address: str):
        self.context = browser.new_context(viewport={"width": 1600, "height": 1000})
        self.page = self.context.new_page()
        self.blocked = []
        self.address, self.settings = address, {}
        self.page.route("**/*", lambda route: self._filter(route, address))
        self.page.route(SETTINGS, self._keep_settings)
        self.page.goto(address, wait_until="domcontentloaded", timeout=180_000)
        self.page.wait_for_function(
            "() => Boolean(window.app?.graph && app.extensionManager && LiteGraph.registered_node_types['KSampler'])",
            timeout=180_000,
        )
        self.close_dialogs()

    def _filter(self, route, address):
        url = route.request.url
        if url.startswith((address, address.replace("http", "ws", 1), "data:", "blob:")):
            route.continue_()
        else:
            self.blocked.append(url)
            route.abort()

    def _keep_settings(self, route):
        name = unquote(SETTINGS.search(route.request.url)[1] or "")
        if route.request.method == "GET":
            known = {**route.fetch(url=f"{self.address}/api/settings").json(), **self.settings}
            route.fulfill(json=known.get(name) if name else known)
            return
        value = json.loads(route.request.post_data)
        self.settings.update({name: value} if name else value)
        route.fulfill(status=200)

    def close(self) -> None:
        """Let go of the page."""
        self.context.close()

    def close_dialogs(self) -> None:
        """Press Escape until no dialog covers the canvas."""
        self.page.wait_for_timeout(1000)
        for _ in range(10):
            if not self.page.locator("[role=dialog], .p-dialog-mask").count():
                return
            self.page.keyboard.press("Escape")
            self.page.wait_for_timeout(300)
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
        self.page.wait_for_timeout(1000)

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
        self.page.wait_for_timeout(500)
        outputs = self.page.evaluate("() => JSON.parse(JSON.stringify(app.nodeOutputs))")
        return {"success": success, "messages": messages, "outputs": outputs}
