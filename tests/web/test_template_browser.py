"""The template browser of the page: this pack's templates in order, on every file system and in both front ends."""

import pytest

from runner.server.comfyui import PACK_NAME
from runner.templates import OFFICIAL, WORKFLOWS, templates

pytestmark = pytest.mark.browser


def test_templates_are_in_order_whatever_the_server_says(each_page):
    """The first card runs at once, official files come last; apps only where the front end knows apps."""
    listed = each_page.page.evaluate("""async (pack) => {
        const ask = window.fetch;
        window.fetch = async (...values) => {
            const answer = await ask(...values);
            if (!String(values[0]).includes('workflow_templates')) return answer;
            const packs = await answer.json();
            packs[pack].sort().reverse();
            packs.another = ['b', 'a'];
            return new Response(JSON.stringify(packs));
        };
        return app.api.getWorkflowTemplates();
    }""", PACK_NAME)  # fmt: skip
    own = [path.stem for path in templates()]
    official = sorted(path.stem for path in WORKFLOWS.glob(f"*{OFFICIAL}.json"))
    newer = each_page.page.evaluate("() => app.extensionManager.getSidebarTabs().some((tab) => tab.id === 'apps')")
    assert listed[PACK_NAME] == own + ([f"{name}.app" for name in own] if newer else []) + official
    assert listed["another"] == ["b", "a"]
