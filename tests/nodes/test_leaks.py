"""Ten prompts in a row in a real server: from the third on its memory stays as it is."""

import os

import pytest
from prompts import as_prompt, shown, text_to_latent

RUNS, SETTLED, ALLOWED = 10, 3, 1.02


def graph(seed):
    """Text to video with a frame pinned, through every kind of node that holds weights."""
    pin = {"latent": ["empty", 0], "vae": ["vae", 0], "image": ["image", 0], "frame": -1, "strength": 1.0}
    sampling = {"seed": seed, "steps": 4, "cfg": 7.0, "sampler_name": "original", "denoise": 1.0}
    return as_prompt(
        {
            **text_to_latent(f"a red circle moves left, take {seed}", frames=34),
            "image": ("EmptyImage", {"width": 64, "height": 64, "batch_size": 1, "color": 0x808080}),
            "pin": ("OpenSoraKeyframe", pin),
            "sampler": (
                "OpenSoraSampler",
                {"model": ["model", 0], "positive": ["text", 0], "latent": ["pin", 0], **sampling},
            ),
            **shown("sampler"),
        }
    )


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="RssAnon is a Linux figure")
def test_ten_prompts_in_a_row_leak_nothing(server):
    memory = []
    for seed in range(RUNS):
        server.run(graph(1000 + seed))
        memory.append(server.anonymous_memory())
    print("MiB after each run:", [round(size / 2**20) for size in memory])
    settled = memory[SETTLED - 1]
    assert max(memory[SETTLED:]) <= ALLOWED * settled, memory
