"""Workflows of the other Open-Sora packs: opened in the page they are of our nodes; over the API single nodes are."""

import copy

import pytest
from old_workflows import TINY, WITH_PIPE, WITH_SCHEDULER


def by_type(graph):
    """{class_type: [inputs]} and a function that says what feeds an input: (class_type, slot)."""
    found = {}
    for node in graph.values():
        found.setdefault(node["class_type"], []).append(node["inputs"])

    def fed(inputs, name):
        return (graph[str(inputs[name][0])]["class_type"], inputs[name][1]) if name in inputs else None

    return found, fed


@pytest.mark.browser
@pytest.mark.timeout(600)
def test_image_to_video_with_a_pipe(page, server):
    page.load(copy.deepcopy(WITH_PIPE), "old")
    assert page.complaints() == [] and page.faulty_nodes() == []
    graph = page.api_graph()
    nodes, fed = by_type(graph)
    assert {kind: len(each) for kind, each in nodes.items()} == {
        "OpenSoraLoadModel": 1, "OpenSoraLoadTextEncoder": 1, "OpenSoraLoadVAE": 1, "OpenSoraEmptyLatent": 1,
        "OpenSoraTextEncode": 2, "OpenSoraKeyframe": 1, "OpenSoraSampler": 1, "OpenSoraVAEDecode": 1,
        "EmptyImage": 1, "ImageScale": 1, "SaveImage": 1,
    }  # fmt: skip
    (empty,), (sampler,), (keyframe,), (scale,) = (
        nodes[kind] for kind in ("OpenSoraEmptyLatent", "OpenSoraSampler", "OpenSoraKeyframe", "ImageScale")
    )
    # Theirs is height to width; steps and guidance come from their configuration or, unconnected, from the node.
    assert (empty["resolution"], empty["aspect_ratio"], empty["duration"], empty["fps"]) == ("480p", "16:9", "4s", 24)
    assert (sampler["seed"], sampler["steps"], sampler["cfg"], sampler["sampler_name"]) == (771, 30, 4.5, "original")
    positive, negative = graph[sampler["positive"][0]]["inputs"], graph[sampler["negative"][0]]["inputs"]
    assert positive["prompt"].startswith("a red disc") and negative["prompt"] == "a square"
    assert (positive["camera_motion"], positive["motion_score"], positive["aesthetic_score"]) == ("zoom out", 20, 0)
    assert fed(sampler, "latent") == ("OpenSoraKeyframe", 0) and fed(keyframe, "latent") == ("OpenSoraEmptyLatent", 0)
    assert fed(keyframe, "image") == ("ImageScale", 0)
    assert (fed(scale, "width"), fed(scale, "height")) == (("OpenSoraEmptyLatent", 1), ("OpenSoraEmptyLatent", 2))
    assert fed(nodes["SaveImage"][0], "images") == ("OpenSoraVAEDecode", 0)
    for name in ("model", "clip"):
        assert fed(positive, name) == fed(negative, name) and fed(positive, name)

    empty.update(resolution="auto", aspect_ratio="auto", duration="by frames", frames=17)
    sampler["steps"] = 2
    assert len(server.run(graph).files()) == 17


@pytest.mark.browser
@pytest.mark.timeout(600)
def test_text_to_video_with_a_scheduler(page):
    page.load(copy.deepcopy(WITH_SCHEDULER), "older")
    nodes, fed = by_type(page.api_graph())
    (model,), (vae,), (clip,) = (nodes[f"OpenSoraLoad{part}"] for part in ("Model", "VAE", "TextEncoder"))
    assert model["model_name"] == "OpenSora-v1-HQ-16x512x512.pth"
    assert vae["vae_name"] == "sd-vae-ft-ema.safetensors" and clip["text_encoder_name"] == "t5xxl_fp16.safetensors"
    (sampler,), (empty,), (text,) = (nodes[f"OpenSora{kind}"] for kind in ("Sampler", "EmptyLatent", "TextEncode"))
    assert (sampler["seed"], sampler["steps"], sampler["cfg"], sampler["denoise"]) == (42, 60, 7, 1)
    assert (empty["resolution"], empty["frames"], empty["height"], empty["width"]) == ("custom", 16, 256, 512)
    assert text["prompt"] == "a cat" and "negative" not in sampler
    assert fed(sampler, "latent") == ("OpenSoraEmptyLatent", 0) and fed(sampler, "positive") == (
        "OpenSoraTextEncode",
        0,
    )
    assert fed(nodes["SaveImage"][0], "images") == ("OpenSoraVAEDecode", 0)


def node_of(workflow, number):
    return next(node for node in workflow["nodes"] if node["id"] == number)


def add(workflow, kind, outputs, values, inputs=()):
    """A node more in a page workflow."""
    number = max(node["id"] for node in workflow["nodes"]) + 1
    workflow["nodes"].append({
        "id": number, "type": kind, "pos": [0, 900], "size": [200, 60], "flags": {}, "order": 0, "mode": 0,
        "inputs": [{"name": name, "type": type_, "link": None} for name, type_ in inputs], "properties": {},
        "outputs": [{"name": name, "type": type_, "links": []} for name, type_ in outputs], "widgets_values": values,
    })  # fmt: skip
    return number


def wire(workflow, origin, slot, target, name, type_=None):
    """A link more; `type_` makes an input of the target's widget of that name first."""
    into, link = node_of(workflow, target), max(each[0] for each in workflow["links"]) + 1
    if type_:
        into["inputs"].append({"name": name, "type": type_, "link": None, "widget": {"name": name}})
    place = next(index for index, entry in enumerate(into["inputs"]) if entry["name"] == name)
    into["inputs"][place]["link"] = link
    output = node_of(workflow, origin)["outputs"][slot]
    output["links"] = [*(output["links"] or []), link]
    workflow["links"].append([link, origin, slot, target, place, output["type"]])


def rerouted(workflow, numbers, times=2):
    """Leads each of these links through a chain of reroutes."""
    for number in numbers:
        link = next(each for each in workflow["links"] if each[0] == number)
        _, origin, slot, target, place, type_ = link
        output = node_of(workflow, origin)["outputs"][slot]
        output["links"].remove(number)
        workflow["links"].remove(link)
        for _ in range(times):
            through = add(workflow, "Reroute", [("", type_)], [], [("", "*")])
            wire(workflow, origin, slot, through, "")
            origin, slot = through, 0
        wire(workflow, origin, slot, target, node_of(workflow, target)["inputs"][place]["name"])
    return workflow


def said(comfy_page):
    """The messages that the page shows, then closed."""
    boxes = comfy_page.page.locator(".p-toast-message")
    words = "\n".join(boxes.all_inner_texts())
    comfy_page.page.evaluate("app.extensionManager.toast.removeAll()")
    return words


@pytest.mark.browser
@pytest.mark.timeout(600)
def test_reroutes_lead_to_what_is_behind_them(each_page):
    """A workflow with reroutes before everything means what it means without; those of a PIPE are gone."""
    each_page.load(copy.deepcopy(WITH_PIPE), "plain")
    plain, _ = by_type(each_page.api_graph())
    every = [link[0] for link in WITH_PIPE["links"]]
    each_page.load(rerouted(copy.deepcopy(WITH_PIPE), every), "rerouted")
    graph = each_page.api_graph()
    nodes, fed = by_type(graph)
    assert {kind: len(found) for kind, found in nodes.items()} == {kind: len(found) for kind, found in plain.items()}
    (sampler,), (keyframe,) = nodes["OpenSoraSampler"], nodes["OpenSoraKeyframe"]
    assert (sampler["seed"], sampler["steps"], sampler["cfg"]) == (771, 30, 4.5)
    assert fed(sampler, "model") == ("OpenSoraLoadModel", 0) and fed(sampler, "latent") == ("OpenSoraKeyframe", 0)
    assert fed(keyframe, "image") == ("ImageScale", 0)
    assert not [
        node
        for node in each_page.saved()["nodes"]
        if node["type"] == "Reroute" and node["outputs"][0]["type"] == "PIPE"
    ]

    broken = rerouted(copy.deepcopy(WITH_PIPE), [1], 1)
    first = next(link for link in broken["links"] if link[5] == "PIPE" and link[1] == 1)
    broken["links"].remove(first)
    node_of(broken, first[3])["inputs"][0]["link"] = None
    said(each_page)
    each_page.load(broken, "broken")
    (sampler,) = by_type(each_page.api_graph())[0]["OpenSoraSampler"]
    assert isinstance(sampler["steps"], int)
    assert "OpenSoraSampler (6): the wire into pipe comes from nowhere" in said(each_page)


@pytest.mark.browser
@pytest.mark.timeout(600)
def test_what_was_switched_off_stays_off(each_page):
    def opened(number, mode):
        workflow = copy.deepcopy(WITH_PIPE)
        node_of(workflow, number)["mode"] = mode
        each_page.load(workflow, f"mode {mode} of {number}")
        return by_type(each_page.api_graph())

    for mode in (2, 4):
        nodes, fed = opened(5, mode)  # the picture
        assert "OpenSoraKeyframe" not in nodes
        assert fed(nodes["OpenSoraSampler"][0], "latent") == ("OpenSoraEmptyLatent", 0)
        nodes, _ = opened(2, mode)  # the prompt
        assert [text["prompt"] for text in nodes["OpenSoraTextEncode"]] == [""]
        assert "negative" not in nodes["OpenSoraSampler"][0]
        nodes, _ = opened(1, mode)  # the loader
        assert not {"OpenSoraLoadModel", "OpenSoraLoadVAE", "OpenSoraEmptyLatent"} & set(nodes)
        assert "OpenSoraVAEDecode" not in opened(7, mode)[0]
    assert "OpenSoraSampler" not in opened(6, 2)[0]
    nodes, fed = opened(6, 4)  # hands on its reference
    assert "OpenSoraSampler" not in nodes and fed(nodes["OpenSoraVAEDecode"][0], "samples") == ("OpenSoraVAEEncode", 0)


@pytest.mark.browser
@pytest.mark.timeout(600)
def test_wires_into_widgets_and_nodes_that_others_read(each_page):
    workflow = copy.deepcopy(WITH_PIPE)
    words = add(workflow, "PrimitiveString", [("STRING", "STRING")], ["typed elsewhere"])
    seed = add(workflow, "PrimitiveNode", [("INT", "INT")], [4711, "fixed"])
    ratio = add(workflow, "PrimitiveNode", [("COMBO", "COMBO")], ["16:9", "fixed"])
    reader = add(workflow, "PreviewAny", [], [], [("source", "*")])
    wire(workflow, words, 0, 2, "positive_prompt", "STRING")
    wire(workflow, seed, 0, 6, "seed", "INT")
    wire(workflow, ratio, 0, 1, "aspect_ratio", "COMBO")
    wire(workflow, 1, 0, reader, "source")
    second = add(workflow, "OpenSoraDecoder", [("images", "IMAGE")], ["fp16"], [("vae", "VAE"), ("latents", "LATENT")])
    save = add(workflow, "SaveImage", [], ["picture"], [("images", "IMAGE")])
    wire(workflow, 1, 4, second, "vae")
    wire(workflow, 5, 0, second, "latents")
    wire(workflow, second, 0, save, "images")
    node_of(workflow, 6)["widgets_values"] = [5, "fixed", "fp16", None, "strong"]
    node_of(workflow, 5).update(title="First picture", color="#322", bgcolor="#533", flags={"collapsed": True})
    node_of(workflow, 7).update(title="Open Sora Decoder")
    workflow["groups"] = [{"title": "mine", "bounding": [30, -20, 330, 130], "color": "#3f789e", "flags": {}}]
    each_page.load(workflow, "wires")
    told = said(each_page)
    nodes, fed = by_type(each_page.api_graph())
    (sampler,), (empty,) = nodes["OpenSoraSampler"], nodes["OpenSoraEmptyLatent"]
    positive = next(text for text in nodes["OpenSoraTextEncode"] if fed(text, "prompt"))
    assert fed(positive, "prompt") == ("PrimitiveString", 0)
    assert (sampler["seed"], sampler["steps"], sampler["cfg"], empty["aspect_ratio"]) == (4711, 30, 4.5, "9:16")
    assert {fed(decoder, "samples")[0] for decoder in nodes["OpenSoraVAEDecode"]} == {
        "OpenSoraSampler",
        "OpenSoraVAEEncode",
    }
    for part in ("guidance cannot be read", "into aspect_ratio is left out; its value was 16:9", "it read pipe of"):
        assert part in told, told
    saved = each_page.saved()
    keyframe = next(node for node in saved["nodes"] if node["type"] == "OpenSoraKeyframe")
    assert (keyframe["title"], keyframe["color"], keyframe["flags"]["collapsed"]) == ("First picture", "#322", True)
    assert "title" not in node_of(saved, 7) or node_of(saved, 7)["title"] != "Open Sora Decoder"
    inside = each_page.page.evaluate("""() => {
        const [group] = app.graph.groups ?? app.graph._groups;
        group.recomputeInsideNodes();
        return [...group.children].map((node) => node.type);
    }""")
    assert {"OpenSoraLoadModel", "OpenSoraLoadTextEncoder", "OpenSoraLoadVAE", "OpenSoraEmptyLatent"} <= set(inside)


@pytest.mark.browser
def test_where_the_other_pack_is_installed_its_workflows_stay(page):
    """Its loader is then a node that the page knows."""
    page.page.evaluate("""() => {
        class Theirs extends LiteGraph.LGraphNode {}
        LiteGraph.registerNodeType('OpenSoraLoader', Theirs);
    }""")
    page.load(copy.deepcopy(WITH_PIPE), "theirs")
    types = [node["type"] for node in page.saved()["nodes"]]
    assert sorted(types) == sorted(node["type"] for node in WITH_PIPE["nodes"])


@pytest.mark.browser
def test_a_workflow_that_cannot_be_translated_stays_whole(page):
    """Whether it fails in the middle or when nearly all is done."""
    halfway, late = (copy.deepcopy(WITH_PIPE) for _ in range(2))
    del node_of(halfway, 6)["pos"]
    late["extra"] = {"linkExtensions": {"damaged": True}}
    after = """async (workflows) => {
        const { translate } = await import('/extensions/opensora_comfy/old_workflows.js');
        const fails = (workflow) => { try { translate(workflow) } catch { return true } return false };
        return workflows.map((workflow) => [fails(workflow), workflow]);
    }"""
    assert page.page.evaluate(after, [halfway, late]) == [[True, halfway], [True, late]]


@pytest.mark.timeout(600)
def test_single_nodes_over_the_api(server):
    """Encode, text and decode of theirs run as ours where ComfyUI replaces nodes, and are unknown where it does not."""
    graph = {
        "1": {"class_type": "OpenSoraLoadVAE", "inputs": {"vae_name": TINY}},
        "2": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 17, "color": 255}},
        "3": {"class_type": "OpenSoraEncoder", "inputs": {"vae": ["1", 0], "image": ["2", 0], "dtype": "fp16"}},
        # Not theirs: ComfyUI 0.33 fails where it replaces both ends of a wire whose input changes its name.
        "4": {"class_type": "LatentBatchSeedBehavior", "inputs": {"samples": ["3", 0], "seed_behavior": "fixed"}},
        "5": {"class_type": "OpenSoraDecoder", "inputs": {"vae": ["1", 0], "latents": ["4", 0], "dtype": "fp16"}},
        "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "a"}},
        "7": {"class_type": "OpenSoraRun", "inputs": {"vae": ["1", 0], "samples": ["3", 0], "dtype": "fp16"}},
        "8": {"class_type": "SaveImage", "inputs": {"images": ["7", 0], "filename_prefix": "b"}},
    }
    for node in graph.values():
        node["_meta"] = {"title": node["class_type"]}
    replaces = server.client.get("/features").get("node_replacements", False)
    result = server.post_prompt(graph)
    assert result.success == replaces
    if replaces:
        assert len(result.files()) == 34
        offered = server.client.get("/node_replacements")
        assert offered["OpenSoraTextEncoder"][0]["new_node_id"] == "OpenSoraTextEncode"
        assert "OpenSoraSampler" not in offered and "OpenSoraLoader" not in offered
    else:
        assert "OpenSoraEncoder" in result.message
