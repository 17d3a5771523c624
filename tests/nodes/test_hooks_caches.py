"""EasyCache and LazyCache: steps are skipped, the picture stays, kept frames stay exact."""

import pytest
import torch
from families import VIDEO, clip, negative, ours
from opensora_comfy.training.tiny.painting import psnr
from opensora_comfy.training.tiny.shapes import Scene, render
from stock import computed, ksampler, stock
from tiny import run

CACHES = ("EasyCache", "LazyCache")
STEPS = 12
MASK = [0.0, 1.0, 1.0, 0.0, 1.0]


def cached(kind, model, threshold):
    """MODEL behind a cache that may skip from the second step to the last but one."""
    settings = {"reuse_threshold": threshold, "start_percent": 0.0, "end_percent": 1.0, "verbose": False}
    return stock("comfy_extras.nodes_easycache", f"{kind}Node", model=model, **settings)[0]


def with_original(model, positive, latent):
    return ours(model, positive, latent, steps=STEPS)


def with_ksampler(model, positive, latent):
    return ksampler(model, positive, negative(model, positive), latent, steps=STEPS)


WAYS = {"original": with_original, "ksampler": with_ksampler}


@pytest.mark.parametrize("kind", CACHES)
@pytest.mark.parametrize("name", ["stdit2", "stdit3"])
def test_a_cache_that_may_not_skip_changes_nothing(comfy, models, positive, name, kind):
    model, latent = models[name], clip(name, MASK)
    for way, sample in WAYS.items():
        assert torch.equal(sample(cached(kind, model, 0.0), positive, latent), sample(model, positive, latent)), way


@pytest.mark.parametrize(("name", "mask"), [(name, MASK) for name in VIDEO] + [("stdit2", None), ("stdit3", None)])
@pytest.mark.parametrize("kind", CACHES)
def test_steps_are_skipped(comfy, models, positive, name, kind, mask):
    """Counted where the network begins; with the ancestral sampler of 1.0 and 1.1 too, which reads its variance half."""
    model, latent = models[name], clip(name, mask)
    for way, sample in WAYS.items():
        with computed(model) as calls:
            whole = sample(model, positive, latent)
            full = len(calls)
            fewer = sample(cached(kind, model, 1.0), positive, latent)
        assert len(calls) - full <= full - 3, way
        assert torch.isfinite(fewer).all() and fewer.std() > 0.1
        assert not torch.equal(fewer, whole)
        if mask is not None:
            assert torch.equal(fewer[:, :, [0, 3]], latent["samples"][:, :, [0, 3]]), way


@pytest.mark.parametrize("kind", CACHES)
def test_image_guidance_of_1_3_is_skipped_as_well(comfy, models, positive, kind):
    """It asks for a third prediction, the caption without the condition, which a cache must know again."""
    latent = clip("stdit3_v1_3", MASK)
    with computed(models["stdit3_v1_3"]) as calls:
        samples = ours(cached(kind, models["stdit3_v1_3"], 1.0), positive, latent, steps=STEPS)
    assert len(calls) < STEPS
    assert torch.equal(samples[:, :, [0, 3]], latent["samples"][:, :, [0, 3]])


SCENE = Scene("circle", "red", "white", "right", 13.0, (21.0, 32.0), 22 / 16, 64, 64, 17)


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("kind", CACHES)
def test_the_picture_stays(tiny, kind, pinned):
    """The tiny model at its 30 steps, with a threshold that spares it a fifth of them or more."""
    latent = tiny.empty()
    if pinned:
        latent = tiny.pin(latent, render(SCENE)[:1])
    with computed(tiny.model) as calls:
        whole = sample(tiny, tiny.model, latent)
        full = len(calls)
        fewer = sample(tiny, cached(kind, tiny.model, 0.025), latent)
    assert 0 < len(calls) - full <= 0.8 * full
    found = psnr(tiny.decode(fewer)[None], tiny.decode(whole)[None], 1)
    print(f"{kind}, pinned {pinned}: {len(calls) - full} of {full} calls, {found:.1f} dB")
    assert found >= 33
    if pinned:
        assert torch.equal(fewer["samples"][:, :, 0], latent["samples"][:, :, 0])


def sample(tiny, model, latent):
    positive = tiny.text("a red circle moves right on a white background")
    return run("OpenSoraSampler", model=model, positive=positive, latent=latent)[0]
