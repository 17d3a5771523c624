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
    broken = copy.deepcopy(WITH_PIPE)
    (sampler,) = (node for node in broken["nodes"] if node["type"] == "OpenSoraSampler")
    del sampler["pos"]
    after = """async (workflow) => {
        const { translate } = await import('/extensions/opensora_comfy/old_workflows.js');
        let failed = false;
        try { translate(workflow) } catch { failed = true }
        return [failed, workflow];
    }"""
    assert page.page.evaluate(after, broken) == [True, broken]


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
