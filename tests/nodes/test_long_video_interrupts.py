"""Interrupting Extend, Connect and Loop: finished segments are kept, and a part is never taken for the whole."""

import logging

import pytest
import torch
from long_clips import call, clip_of, extend
from small import pack


def interrupted_at(setup, call_number):
    """(MODEL, VAE) whose network asks for an interrupt at its call of this number, from 1."""
    import comfy.model_management

    model, calls = setup[0].clone(), []

    def watch(apply, args):
        calls.append(1)
        if len(calls) == call_number:
            comfy.model_management.interrupt_current_processing(True)
        return apply(args["input"], args["timestep"], **args["c"])

    model.set_model_unet_function_wrapper(watch)
    return model, setup[1]


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_an_interrupt_keeps_the_finished_segments(comfy, setups, caplog, direction):
    """Two steps a segment, so the interrupt comes in the third."""
    setup, node = setups["1.2"], pack("nodes.long_video").OpenSoraExtend
    clip, before = clip_of(setup[1], 29), node.fingerprint_inputs(frames=85)
    added = 68 if direction == "backward" else 73
    with caplog.at_level(logging.WARNING):
        part = extend(interrupted_at(setup, 5), clip, added, direction)
    whole = extend(setup, clip, added, direction)
    frames, T = (29 + 34, 18) if direction == "backward" else (51, 15)
    kept = whole["samples"][:, :, -T:] if direction == "backward" else whole["samples"][:, :, :T]
    assert torch.equal(part["samples"], kept) and part["frames"] == frames
    assert f"{frames} of {29 + added} frames are finished" in caplog.text
    # ComfyUI asks again before the next run, and another answer makes it forget the part.
    assert node.fingerprint_inputs(frames=85) != before


def test_only_the_node_that_was_cut_short_runs_again(comfy, setups):
    """Two Extends in a row are one class; what the finished one made stays in ComfyUI's cache."""
    from comfy_execution.utils import CurrentNodeContext

    node = pack("nodes.long_video").OpenSoraExtend

    def asked(node_id):
        with CurrentNodeContext("prompt", node_id):
            return node.fingerprint_inputs()

    before = asked("cut"), asked("whole")
    with CurrentNodeContext("prompt", "cut"):
        extend(interrupted_at(setups["1.2"], 3), clip_of(setups["1.2"][1], 17), 34)
    assert asked("cut") != before[0] and asked("whole") == before[1]


def test_an_interrupt_in_the_first_segment_stops_the_run(comfy, setups):
    import comfy.model_management as management

    before = pack("nodes.long_video").OpenSoraExtend.fingerprint_inputs()
    with pytest.raises(management.InterruptProcessingException):
        extend(interrupted_at(setups["1.2"], 1), clip_of(setups["1.2"][1], 17), 34)
    assert pack("nodes.long_video").OpenSoraExtend.fingerprint_inputs() == before


def test_an_interrupted_bridge_leaves_the_second_clip_out(comfy, setups, caplog):
    setup = setups["1.2"]
    first, second = clip_of(setup[1], 17), clip_of(setup[1], 17, seed=2)
    with caplog.at_level(logging.WARNING):
        part = call("OpenSoraConnect", interrupted_at(setup, 3), first=first, second=second, frames=34)
    whole = call("OpenSoraConnect", setup, first=first, second=second, frames=34)
    assert part["frames"] == 34 and torch.equal(part["samples"], whole["samples"][:, :, :10])
    assert "34 of 68 frames are finished and kept; the second clip is left out" in caplog.text


def test_an_interrupt_at_the_last_touch_keeps_the_whole(comfy, setups, caplog, monkeypatch):
    """The bridge is made, but its last latent stays the pin that was encoded from a still."""
    import comfy.model_management as management

    setup, node = setups["1.2"], pack("nodes.long_video").OpenSoraLoop
    clip, before = clip_of(setup[1], 17), node.fingerprint_inputs()
    whole = call("OpenSoraLoop", setup, latent=clip, frames=17)

    def stop(*arguments):
        raise management.InterruptProcessingException

    monkeypatch.setattr(pack("nodes.long_video"), "meet", stop)
    with caplog.at_level(logging.WARNING):
        part = call("OpenSoraLoop", setup, latent=clip, frames=17)
    assert torch.equal(part["samples"][:, :, :-1], whole["samples"][:, :, :-1])
    assert not torch.allclose(part["samples"][:, :, -1], whole["samples"][:, :, -1], atol=1e-3)
    assert "may jump at a seam" in caplog.text and node.fingerprint_inputs() != before
