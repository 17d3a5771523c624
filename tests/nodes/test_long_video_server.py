"""Interrupting a long video in a real server: the finished part is decoded and shown, and queueing again makes the whole."""

import io

import numpy
import pytest
from PIL import Image
from prompts import as_prompt, shown, text_to_latent

CLIP, SEGMENT, STEPS = 17, 17, 24


def long_graph(seed, frames):
    """A clip, and Extend behind it, at nodes' defaults where they have some."""
    sampling = {"model": ["model", 0], "positive": ["text", 0], "seed": seed, "cfg": 1.0, "sampler_name": "original"}
    more = {"frames": frames, "direction": "forward", "context": 17, "segment": SEGMENT, "steps": STEPS}
    return as_prompt(
        {
            **text_to_latent("a red circle moves left", frames=CLIP),
            "sampler": ("OpenSoraSampler", {"latent": ["empty", 0], "steps": 2, "denoise": 1.0, **sampling}),
            "extend": ("OpenSoraExtend", {"vae": ["vae", 0], "latent": ["sampler", 0], **more, **sampling}),
            **shown("extend"),
        }
    )


def executed(result):
    """The nodes that were run, not taken from the cache."""
    return {data["node"] for kind, data in result.events if kind == "executing" and data.get("node")}


def pictures(server, result):
    return [numpy.asarray(Image.open(io.BytesIO(server.view(file)))) for file in result.files()]


def interrupting(server, step):
    """(watcher for `on_event` that interrupts at this step of Extend, the progress it saw)."""
    seen = []

    def watch(kind, data):
        if kind == "progress" and data.get("node") == "extend":
            seen.append((data["value"], data["max"]))
            if data["value"] == step:
                server.interrupt()

    return watch, seen


def test_a_part_is_kept_and_never_served_again(server):
    prompt = long_graph(seed=31, frames=2 * SEGMENT)
    watch, progress = interrupting(server, STEPS + 5)
    part = server.post_prompt(prompt, on_event=watch)
    assert part.success and not part.interrupted and len(part.files()) == CLIP + SEGMENT
    values = [value for value, _ in progress]
    assert values == sorted(values) and {total for _, total in progress} == {2 * STEPS} and values[-1] < 2 * STEPS
    assert f"{CLIP + SEGMENT} of {CLIP + 2 * SEGMENT} frames are finished" in server.output_of_server()
    assert part.previews

    beginning = pictures(server, part)
    whole = server.run(prompt)
    shown = pictures(server, whole)
    assert len(shown) == CLIP + 2 * SEGMENT and "extend" in executed(whole) and "sampler" not in executed(whole)
    assert all((a == b).all() for a, b in zip(beginning, shown)) and shown[0].std() > 1
    # What is whole may be served again.
    assert "extend" not in executed(server.run(prompt))


@pytest.mark.parametrize("step", [1, STEPS - 3])
def test_before_a_segment_is_finished_an_interrupt_ends_the_run(server, step):
    watch, _ = interrupting(server, step)
    result = server.post_prompt(long_graph(seed=32 + step, frames=2 * SEGMENT), on_event=watch)
    assert result.interrupted and not result.success and not result.files()
