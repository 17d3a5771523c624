"""Ten prompts in a row in a real server: from the third on its memory stays as it is."""

import os

import pytest

BUNDLED = "tiny (bundled)"
RUNS, SETTLED, ALLOWED = 10, 3, 1.02


def graph(seed):
    """Text to video with a frame pinned, through every kind of node that holds weights."""
    words = {"aesthetic_score": 0.0, "motion_score": 0.0, "camera_motion": "none", "clean_caption": True}
    size = {"resolution": "auto", "aspect_ratio": "auto", "width": 64, "height": 64, "batch_size": 1}
    inputs = {
        "model": ("OpenSoraLoadModel", {"model_name": BUNDLED, "weight_dtype": "auto"}),
        "clip": ("OpenSoraLoadTextEncoder", {"text_encoder_name": BUNDLED, "device": "default"}),
        "vae": ("OpenSoraLoadVAE", {"vae_name": BUNDLED}),
        "text": ("OpenSoraTextEncode", {"clip": ["clip", 0], "prompt": f"a red circle moves left, take {seed}", **words}),
        "empty": ("OpenSoraEmptyLatent", {"vae": ["vae", 0], "frames": 34, "fps": 24.0, **size}),
        "image": ("EmptyImage", {"width": 64, "height": 64, "batch_size": 1, "color": 0x808080}),
        "pin": (
            "OpenSoraKeyframe",
            {"latent": ["empty", 0], "vae": ["vae", 0], "image": ["image", 0], "frame": -1, "strength": 1.0},
        ),
        "sampler": (
            "OpenSoraSampler",
            {"model": ["model", 0], "positive": ["text", 0], "latent": ["pin", 0], "seed": seed, "steps": 4, "cfg": 7.0,
             "sampler_name": "original", "denoise": 1.0},
        ),
        "decode": ("OpenSoraVAEDecode", {"vae": ["vae", 0], "samples": ["sampler", 0]}),
        "show": ("PreviewImage", {"images": ["decode", 0]}),
    }  # fmt: skip
    return {name: {"class_type": kind, "inputs": values} for name, (kind, values) in inputs.items()}


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="RssAnon is a Linux figure")
def test_ten_prompts_in_a_row_leak_nothing(server):
    memory = []
    for seed in range(RUNS):
        server.run(graph(1000 + seed))
        memory.append(server.anonymous_memory())
    print("MiB after each run:", [round(size / 2**20) for size in memory])
    settled = memory[SETTLED - 1]
    assert max(memory[SETTLED:]) <= ALLOWED * settled, memory
