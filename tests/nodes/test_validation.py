"""Errors that are known before a run: the server answers with our sentence at the input, and nothing is queued."""

import json
import urllib.error
import urllib.request

import pytest

LOAD = {
    "model": {"class_type": "OpenSoraLoadModel", "inputs": {"model_name": "tiny (bundled)", "weight_dtype": "auto"}},
    "clip": {
        "class_type": "OpenSoraLoadTextEncoder",
        "inputs": {"text_encoder_name": "tiny (bundled)", "device": "default"},
    },
    "vae": {"class_type": "OpenSoraLoadVAE", "inputs": {"vae_name": "tiny (bundled)"}},
    "picture": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255}},
    "number": {"class_type": "PrimitiveInt", "inputs": {"value": 17}},
    "share": {"class_type": "PrimitiveFloat", "inputs": {"value": 1.0}},
    "words": {"class_type": "PrimitiveString", "inputs": {"value": "0"}},
}
SIZE = {"resolution": "auto", "aspect_ratio": "auto", "width": 424, "height": 240}
RUN = {"seed": 1, "steps": 1, "cfg": 1.0, "sampler_name": "original"}
LONG = {
    "model": ["model", 0],
    "positive": ["text", 0],
    "vae": ["vae", 0],
    "frames": 17,
    "context": 17,
    "segment": 17,
    **RUN,
}
SAID = {
    "aesthetic_score": 0.0, "motion_score": 0.0, "camera_motion": "none", "clean_caption": True, "clip": ["clip", 0],
}  # fmt: skip
ON = {"latent": ["empty", 0], "vae": ["vae", 0]}
NODES = {
    "empty": ("OpenSoraEmptyLatent", {**SIZE, "vae": ["vae", 0], "frames": 17, "fps": 24.0, "batch_size": 1}),
    "text": ("OpenSoraPromptSchedule", {**SAID, "prompt": "|0| a red circle"}),
    "keyframe": ("OpenSoraKeyframe", {**ON, "image": ["picture", 0], "frame": 0, "strength": 1.0}),
    "timeline": ("OpenSoraTimeline", {**ON, "image_1": ["picture", 0], "timeline": '{"keyframes": []}'}),
    "strategy": ("OpenSoraMaskStrategy", {**ON, "reference_1": ["picture", 0], "strategy": "0", "align": 5}),
    "firm": ("OpenSoraFrameStrength", {**ON, "first_frame": 0, "last_frame": -1, "strength": 0.5}),
    "fit": ("OpenSoraFitImage", {**SIZE, "image": ["picture", 0]}),
    "extend": ("OpenSoraExtend", {**LONG, "latent": ["empty", 0], "direction": "forward"}),
    "loop": ("OpenSoraLoop", {**LONG, "latent": ["empty", 0]}),
    "connect": ("OpenSoraConnect", {**LONG, "first": ["empty", 0], "second": ["empty", 0]}),
}
SHOWN = {"fit": "PreviewImage", "text": "PreviewAny"}


def graph(node, **changes):
    """A prompt that ends with `node`; `changes` to its inputs, or to those of "empty" as empty={…}."""
    nodes = {name: {"class_type": kind, "inputs": dict(inputs)} for name, (kind, inputs) in NODES.items()}
    nodes["empty"]["inputs"].update(changes.pop("empty", {}))
    nodes[node]["inputs"].update(changes)
    if node == "fit":
        end = {"class_type": "PreviewImage", "inputs": {"images": [node, 0]}}
    else:
        end = {"class_type": "PreviewAny", "inputs": {"source": [node, 0]}}
    return {**LOAD, **nodes, "end": end}


def refused(server, prompt):
    """{node: {input: details}} of the server's 400; {} where it takes the prompt, which is taken back at once."""
    body = json.dumps({"prompt": prompt}).encode()
    request = urllib.request.Request(f"{server.address}/prompt", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            queued = json.load(answer)["prompt_id"]
    except urllib.error.HTTPError as error:
        assert error.code == 400
        found = json.load(error)["node_errors"]
        return {
            node: {each["extra_info"]["input_name"]: each["details"] for each in errors["errors"]}
            for node, errors in found.items()
            if errors["errors"]
        }
    for path, order in (("/queue", {"delete": [queued]}), ("/interrupt", {})):
        order = json.dumps(order).encode()
        urllib.request.urlopen(
            urllib.request.Request(server.address + path, order, {"Content-Type": "application/json"}), timeout=120
        ).close()
    return {}


FAULTS = [
    ("empty", "frames", {"frames": 20}, "frames is 20, which this VAE cannot represent; the nearest valid counts are 17 and 21"),
    ("empty", "frames", {"frames": 5000}, "frames is 5000; it must be at most 4096"),
    ("fit", "height", {"resolution": "custom", "height": 5000}, "height is 5000; it must be at most 4096"),
    ("fit", "width", {"resolution": "custom", "width": 8}, "width is 8; it must be at least 16"),
    ("text", "prompt", {"prompt": "sunrise |2| noon"}, "a schedule that does not begin at |0|"),
    ("text", "prompt", {"prompt": "|0| sunrise |2|"}, "which has no text after |2|"),
    ("keyframe", "strength", {"strength": 1.5}, "strength is 1.5; allowed are 0 (generate) to 1 (keep exactly), the nearest is 1"),
    ("keyframe", "frame", {"frame": 17}, "frame is 17, but the clip has 17 frames; allowed are -17 to 16, the nearest is 16"),
    ("keyframe", "frame", {"frame": 60, "empty": {"duration": "2s"}}, "the clip has 51 frames"),
    ("timeline", "timeline", {"timeline": "{"}, "timeline is no JSON"),
    ("timeline", "timeline", {"timeline": '{"keyframes": [{"image": 2, "frame": 0}]}'}, "takes image_2, which is not connected"),
    ("timeline", "timeline", {"timeline": '{"keyframes": [{"image": 1, "frame": 40}]}'}, "the frame of keyframe 1 is 40, but"),
    ("strategy", "strategy", {"strategy": ""}, "strategy is empty"),
    ("strategy", "strategy", {"strategy": "0,0,x"}, "character 5, 'x', is no whole number"),
    ("strategy", "strategy", {"strategy": "0,1"}, "asks for reference 1"),
    ("strategy", "strategy", {"strategy": "0,0,0,5"}, "5"),
    ("firm", "first_frame", {"first_frame": 9, "last_frame": 3}, "first_frame is frame 9, which comes after last_frame"),
    ("firm", "last_frame", {"last_frame": 17}, "last_frame is 17, but the clip has 17 frames"),
    ("firm", "strength", {"strength": -1.0}, "strength is -1; allowed are 0"),
    ("extend", "frames", {"frames": 20}, "frames is 20; the 37 frames of the whole are no length"),
    ("extend", "frames", {"frames": 20, "direction": "backward"}, "in front of a clip only whole chunks of 17 fit"),
    ("extend", "context", {"context": 20}, "context is 20; this VAE works in chunks of 17 frames"),
    ("loop", "segment", {"segment": 18}, "segment is 18; this VAE works in chunks of 17 frames"),
    ("loop", "frames", {"frames": 18}, "frames is 18; with the clip's 17 frames that is 35"),
    ("connect", "frames", {"frames": 18}, "frames is 18; with the 17 frames of first that is 35"),
]  # fmt: skip


@pytest.mark.parametrize(("node", "name", "changes", "words"), FAULTS)
def test_the_server_refuses_in_the_nodes_words(server, node, name, changes, words):
    found = refused(server, graph(node, **changes))
    assert words in found[node][name], found
    assert list(found) == [node]


def test_a_wrong_count_is_marked_at_its_own_input_alone(server):
    assert list(refused(server, graph("empty", frames=20))["empty"]) == ["frames"]


@pytest.mark.parametrize("node", NODES)
def test_a_prompt_without_faults_is_taken(server, node):
    assert refused(server, graph(node)) == {}


WIRED = {
    "empty": {"frames": "number", "width": "number", "height": "number"},
    "fit": {"width": "number", "height": "number"},
    "text": {"prompt": "words"},
    "keyframe": {"frame": "number", "strength": "share"},
    "timeline": {"timeline": "words"},
    "strategy": {"strategy": "words"},
    "firm": {"first_frame": "number", "last_frame": "number", "strength": "share"},
    **{node: dict.fromkeys(("frames", "context", "segment"), "number") for node in ("extend", "loop", "connect")},
}


@pytest.mark.parametrize("node", WIRED)
def test_what_a_wire_brings_is_left_to_the_run(server, node):
    wires = {name: [origin, 0] for name, origin in WIRED[node].items()}
    assert refused(server, graph(node, **wires)) == {}
    for name, wire in wires.items():
        assert refused(server, graph(node, **{name: wire})) == {}, name


def test_what_is_not_ours_is_left_to_comfyui(server):
    """Other ranges, and values that no check of ours understands; older versions do not look at combos before a run."""
    for changes in ({"fps": 0.0}, {"batch_size": 0}, {"width": 8}, {"frames": "many"}):
        assert next(iter(changes)) in refused(server, graph("empty", **changes))["empty"]
    for changes in ({"resolution": "7p"}, {"duration": "3s"}):
        found = refused(server, graph("empty", **changes))
        assert not found or list(found["empty"]) == list(changes)


def test_a_length_that_only_a_run_knows_is_left_to_it(server):
    assert refused(server, graph("keyframe", frame=60, empty={"frames": ["number", 0]})) == {}
