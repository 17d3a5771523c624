"""Open-Sora Cache in a real server: the page is told at its node what a run saved."""

import re

TEXT = b"\x00\x00\x00\x03"  # ComfyUI's binary message of words for a node


def node(kind, **inputs):
    return {
        "class_type": kind,
        "inputs": {name: [value, 0] if value in NAMES else value for name, value in inputs.items()},
    }


NAMES = {"load", "cache", "clip", "vae", "prompt", "empty", "sample", "decode"}
GRAPH = {
    "load": node("OpenSoraLoadModel", model_name="tiny (bundled)", weight_dtype="auto"),
    "cache": node("OpenSoraCache", model="load", speed=1.0),
    "clip": node("OpenSoraLoadTextEncoder", text_encoder_name="tiny (bundled)", device="default"),
    "vae": node("OpenSoraLoadVAE", vae_name="tiny (bundled)"),
    "prompt": node("CLIPTextEncode", clip="clip", text="a red circle moves right on a white background"),
    "empty": node(
        "OpenSoraEmptyLatent", vae="vae", resolution="custom", aspect_ratio="auto", frames=17, fps=24.0, width=64, height=64,
        batch_size=1,
    ),
    "sample": node(
        "OpenSoraSampler", model="cache", positive="prompt", latent="empty", seed=1, steps=12, cfg=7.0,
        sampler_name="original", denoise=1.0,
    ),
    "decode": node("OpenSoraVAEDecode", vae="vae", samples="sample"),
    "show": node("PreviewImage", images="decode"),
}  # fmt: skip


def test_the_node_shows_what_was_saved(server):
    shown = []

    def watch(kind, data):
        if kind == "preview" and data.startswith(TEXT):
            length = int.from_bytes(data[4:8], "big")
            shown.append((data[8 : 8 + length].decode(), data[8 + length :].decode()))

    result = server.post_prompt(GRAPH, on_event=watch)
    assert result.success, result.message
    ((place, text),) = shown
    assert place == "cache"
    assert re.fullmatch(
        r"\d+ of 576 block calls saved \(\d\d%\); the network was computed in \d+ of 24 calls\.", text
    ), text
