"""The pack under any folder name: what ComfyUI serves there, what the log says, and scripts that are listed twice."""

import asyncio
import contextlib
import types
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import COMFYUI, ROOT
from small import pack

# Made of every character that a folder may have and an address must quote.
ODD = "Open Sora #1 {x} [y] a%20b ä"
NAMES = ["ComfyUI-OpenSora", "open_sora", "opensora_comfy", "Open-Sora (copy)", "a+b", "a&b", "it's", "a=b,c;d", "x~1", "v!",
         "Open Sora", "#1", "a%20b", "100%", "{x}", "[x]", "what?", "ä", "\u5f00\u653e", "a|b", "a^b", "`", "<x>", 'a"b', "a\\b",
         "name.", "v1.2", ODD]  # fmt: skip


async def served(name, folder):
    """Whether aiohttp, asked for a file as the page asks, finds what ComfyUI registered for a pack of this name."""
    from aiohttp import web_urldispatcher
    from yarl import URL

    routes = web_urldispatcher.UrlDispatcher()
    routes.add_static(f"/extensions/{name}", folder)
    request = types.SimpleNamespace(method="GET", rel_url=URL.build(path=f"/extensions/{name}/opensora.js"))
    return (await routes.resolve(request)).http_exception is None


@pytest.mark.parametrize("name", NAMES)
def test_the_log_speaks_where_the_web_server_does_not_find_the_folder(comfy, name, caplog):
    module = pack("nodes.comfy.folder_name")
    # In a thread of its own: a browser's loop may be running in this one.
    with ThreadPoolExecutor() as pool:
        found = pool.submit(asyncio.run, served(name, ROOT / "web")).result()
    assert ("templates" in module.lost_under(name)) is not found
    module.warn_of_folder_name(name)
    if module.lost_under(name):
        assert f"in a folder called {name!r}; rename the folder to ComfyUI-OpenSora" in caplog.text
    else:
        assert found and not caplog.text


def test_every_kind_of_loss_has_its_name(comfy):
    lost = pack("nodes.comfy.folder_name").lost_under
    assert lost("ComfyUI-OpenSora") == []
    assert lost("Open Sora") == ["templates", "help pages"]
    assert lost("OpenSora-v1.2") == lost("opensora@nightly") == ["help pages"]
    assert lost("[x]") == ["templates", "help pages", "translations"]
    assert lost(".opensora") == ["help pages", "templates", "blueprints", "translations"]
    assert lost(pack("nodes.comfy.folder_name").PLAIN) == []


def test_one_place_registers_extensions():
    scripts = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "web").glob("*.js")}
    assert [name for name, text in scripts.items() if "app.registerExtension(" in text] == ["once.js"]


SHOWN = """() => {
    const node = LiteGraph.createNode('OpenSoraTimeline')
    app.graph.add(node)
    const drawn = node.widgets.filter((widget) => widget.element)
    return {
        drawn: drawn.length,
        keyframe: (() => {
            const other = LiteGraph.createNode('OpenSoraKeyframe')
            app.graph.add(other)
            return other.widgets.filter((widget) => widget.element).length
        })(),
        extensions: app.extensions.map(({ name }) => name).filter((name) => name.startsWith('OpenSora.')).sort(),
        sheets: document.querySelectorAll('link[href$="/opensora.css"]').length,
    }
}"""


def extensions():
    scripts = [path.read_text(encoding="utf-8") for path in (ROOT / "web").glob("*.js")]
    names = [line.split("'")[1] for text in scripts for line in text.splitlines() if "name: 'OpenSora." in line]
    assert len(names) > 1
    return sorted(names)


def check_page(page):
    page.page.wait_for_function("() => LiteGraph.registered_node_types['OpenSoraTimeline']", timeout=120_000)
    found = page.page.evaluate(SHOWN)
    assert found == {"drawn": 1, "keyframe": 1, "extensions": extensions(), "sheets": 1}


@pytest.mark.browser
def test_scripts_that_are_listed_twice_run_once(each_server, each_page):
    listed = [path for path in each_server.client.get("/extensions") if path.endswith("/opensora.js")]
    assert sorted(listed) == ["/extensions/open-sora/opensora.js", "/extensions/opensora_comfy/opensora.js"]
    for path in listed:
        # As ComfyUI lists them both, each is loaded by now; a failure would be one here too.
        each_page.page.evaluate("async (path) => { await import(path) }", path)
    check_page(each_page)
    assert "rename the folder" not in each_server.output_of_server()


@pytest.mark.browser
def test_under_an_odd_name_the_displays_are_there_and_the_log_says_what_is_not(browser, tmp_path):
    from browser import ComfyPage
    from comfy_server import ComfyServer

    server = ComfyServer(COMFYUI, tmp_path)
    packs = server.base / "custom_nodes"
    (packs / "opensora_comfy").rename(packs / ODD)
    with server, contextlib.closing(ComfyPage(browser, server.address)) as page:
        check_page(page)
        log = server.output_of_server()
        assert log.count("rename the folder to ComfyUI-OpenSora") == 1
        assert f"templates, help pages, translations in a folder called {ODD!r}" in log
        assert server.object_info("OpenSoraTimeline")
