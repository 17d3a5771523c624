"""Mask builder nodes in a real server: what they show reaches the page, what they refuse comes in their own words."""

import json

import pytest

SIDE = 64


def picture(color, width=SIDE, height=SIDE):
    values = {"width": width, "height": height, "batch_size": 1, "color": color}
    return {"class_type": "EmptyImage", "inputs": values}


NODES = {
    "vae": {"class_type": "OpenSoraLoadVAE", "inputs": {"vae_name": "tiny (bundled)"}},
    "empty": {
        "class_type": "OpenSoraEmptyLatent",
        "inputs": {
            "vae": ["vae", 0], "resolution": "custom", "aspect_ratio": "auto", "frames": 17, "fps": 24.0, "width": SIDE,
            "height": SIDE, "batch_size": 1,
        },
    },
    "red": picture(0xFF0000),
    "blue": picture(0x0000FF),
    "wide": picture(0x0000FF, width=96),
    "mask": {"class_type": "SolidMask", "inputs": {"value": 0.5, "width": SIDE, "height": SIDE}},
}  # fmt: skip


def graph(node_id, latent="empty", **inputs):
    """An API graph that ends with the frames of one mask builder's latent; a node's name stands for its output."""
    given = {name: [value, 0] if value in NODES else value for name, value in inputs.items()}
    node = {"class_type": node_id, "inputs": {"latent": [latent, 0], "vae": ["vae", 0], **given}}
    return {
        **NODES,
        "built": node,
        "decode": {"class_type": "OpenSoraVAEDecode", "inputs": {"vae": ["vae", 0], "samples": ["built", 0]}},
        "show": {"class_type": "PreviewImage", "inputs": {"images": ["decode", 0]}},
    }


def timeline(*keyframes, **images):
    text = json.dumps(
        {"version": 1, "keyframes": [dict(zip(("image", "frame", "strength"), each)) for each in keyframes]}
    )
    return graph("OpenSoraTimeline", timeline=text, **images)


def shown(server, prompt):
    """The report in the node's `executed` message."""
    found = []

    def watch(kind, data):
        if kind == "executed" and data.get("node") == "built":
            found.append(data["output"]["opensora"][0])

    result = server.post_prompt(prompt, on_event=watch)
    assert result.success, result.message
    return found[-1]


def test_the_timelines_report_reaches_the_page(server):
    found = shown(server, timeline((1, 0), (2, -1, 0.5), image_1="red", image_2="blue"))
    assert found["groups"] == [[0, 0, 0.0], [1, 4, 1.0], [5, 8, 1.0], [9, 12, 1.0], [13, 16, 0.5]]
    assert [each["landed"] for each in found["keyframes"]] == [[0, 0], [13, 16]]
    assert found["lines"][0] == "image_1 at frame 0: frame 0 (0.00–0.04 s), kept"
    assert sorted(found["thumbnails"]) == ["image_1", "image_2"]
    for thumbnail in found["thumbnails"].values():
        assert server.view(thumbnail).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("node_id", "inputs"),
    [
        ("OpenSoraKeyframe", {"image": "red", "frame": 0, "strength": 1.0}),
        ("OpenSoraMaskStrategy", {"reference_1": "red", "strategy": "0", "align": 5}),
    ],
)
def test_the_others_report_too(server, node_id, inputs):
    found = shown(server, graph(node_id, **inputs))
    assert [group[2] for group in found["groups"]] == [0, 1, 1, 1, 1] and len(found["keyframes"]) == 1


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (graph("OpenSoraTimeline", timeline="{"), "timeline is no JSON: Expecting"),
        (timeline((2, 0), image_1="red"), "takes image_2, which is not connected; connected are image_1"),
        (timeline((1, 17), image_1="red"), "is 17, but the clip has 17 frames; allowed are -17 to 16, the nearest is 16"),
        (timeline((1, 0), (2, 0), image_1="red", image_2="blue"), "would hide the earlier image_1 at frame 0"),
        (graph("OpenSoraMaskStrategy", reference_1="wide", strategy="0", align=5), "96 x 64 pixels, but the clip is 64 x 64"),
        (graph("OpenSoraMaskStrategy", reference_1="red", strategy="", align=5), "strategy is empty"),
        (graph("OpenSoraMaskStrategy", reference_1="red", strategy="0,0,x", align=5), "character 5, 'x', is no whole number"),
    ],
)  # fmt: skip
def test_refusals_come_in_the_nodes_words(server, prompt, words):
    result = server.post_prompt(prompt)
    assert not result.success and words in result.message and server.alive()
