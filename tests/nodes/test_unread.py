"""Pictures in a prompt's conditioning that no Open-Sora model reads are named in the log, once a run and key."""

from pathlib import Path

import pytest
import torch
from small import pack, run
from stock import ksampler

LATENT = {"samples": torch.zeros(1, 4, 5, 8, 8)}
PICTURE = torch.zeros(1, 4, 5, 8, 8)


def with_keys(conditioning, **keys):
    return [[caption, {**rest, **keys}] for caption, rest in conditioning]


def said(caplog, key):
    return [each.message for each in caplog.records if f"as {key}, as from" in each.message]


def sample(model, positive, negative):
    settings = {"seed": 1, "steps": 2, "cfg": 2.0, "sampler_name": "original", "denoise": 1.0}
    node = pack("nodes.sampler").OpenSoraSampler
    return run(node, model=model, positive=positive, negative=negative, latent=LATENT, **settings)[0]["samples"]


def ksample(model, positive, negative):
    return ksampler(model, positive, negative, LATENT, steps=2)


@pytest.mark.parametrize("act", [sample, ksample], ids=["Open-Sora Sampler", "KSampler"])
@pytest.mark.parametrize("key", ["concat_latent_image", "clip_vision_output"])
def test_a_picture_that_nothing_reads_is_named_once(model, positive, caplog, act, key):
    brought = with_keys(positive, **{key: PICTURE})
    plain = act(model, positive, positive)
    assert not caplog.records or not said(caplog, key)
    assert torch.equal(act(model, brought + brought, brought), act(model, positive + positive, positive))
    lines = said(caplog, key)
    assert len(lines) == 1 and "use Open-Sora Keyframe" in lines[0]
    assert plain.shape == PICTURE.shape
    act(model, brought, positive)
    assert len(said(caplog, key)) == 2, "the next run says it again"


def test_what_stock_nodes_write_is_known(comfy):
    from comfy_extras import nodes_wan

    source = Path(nodes_wan.__file__).read_text(encoding="utf-8")
    for key in ("concat_latent_image", "clip_vision_output", "vace_frames", "time_dim_concat"):
        assert f'"{key}"' in source and key in pack("nodes.comfy.transformer.unread").PICTURES


def test_empty_keys_say_nothing(model, positive, caplog):
    sample(model, with_keys(positive, concat_latent_image=None, concat_mask=PICTURE), positive)
    assert "Open-Sora: the conditioning brings" not in caplog.text
