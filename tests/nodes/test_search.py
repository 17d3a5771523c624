"""What artists type into the search box finds the nodes that do it."""

import inspect

import pytest
from small import pack

FINDS = {
    "interpolate": {"Keyframe", "Timeline", "Connect"},
    "in-between": {"Keyframe", "Timeline", "Connect"},
    "tween": {"Keyframe", "Timeline", "Connect"},
    "camera": {"TextEncode", "PromptSchedule"},
    "zoom": {"TextEncode", "PromptSchedule"},
    "vid2vid": {"VAEEncode", "FrameStrength", "MaskRegion", "Sampler"},
    "video to video": {"VAEEncode", "FrameStrength", "MaskRegion", "Sampler"},
    "duration": {"EmptyLatent", "Extend"},
    "fps": {"EmptyLatent"},
    "first frame": {"Keyframe", "Timeline", "Connect"},
    "last frame": {"Keyframe", "Timeline", "Connect"},
    "image to video": {"Keyframe", "Timeline", "MaskStrategy", "Sampler"},
    "text to video": {"LoadModel", "EmptyLatent", "Sampler"},
    "i2v": {"Keyframe", "Timeline", "Sampler"},
    "extend": {"Extend"},
    "outpaint": {"MaskRegion", "Extend"},
    "inpaint": {"MaskRegion"},
    "loop": {"Loop"},
    "transition": {"Connect"},
    "storyboard": {"Timeline"},
    "prompt travel": {"PromptSchedule"},
    "negative prompt": {"NullPrompt"},
    "resize": {"FitImage"},
}


@pytest.mark.parametrize("words", FINDS)
def test_the_words_are_among_a_nodes_own(comfy, monkeypatch, words):
    """Older versions take no aliases: the words are looked for before they are left out."""
    module = pack("nodes.comfy.schema")
    aliases = {}
    known = module.known

    def remember(function, keywords):
        aliases[keywords["node_id"]] = [keywords["display_name"], *keywords.get("search_aliases", [])]
        return known(function, keywords)

    monkeypatch.setattr(module, "known", remember)
    for node in pack("nodes").NODES:
        node.define_schema()
    found = {name[8:] for name, own in aliases.items() if any(words in each.lower() for each in own)}
    assert FINDS[words] <= found


def test_the_server_hands_the_words_to_the_page(comfy, server):
    """Where ComfyUI knows them; the page's own search looks at `search_aliases`."""
    from comfy_api.latest import io

    known = "search_aliases" in inspect.signature(io.Schema.__init__).parameters
    nodes = server.object_info()
    for name, words in {"OpenSoraKeyframe": "first frame", "OpenSoraVAEEncode": "vid2vid"}.items():
        assert (words in nodes[name].get("search_aliases", [])) == known, name
