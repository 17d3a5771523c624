"""Context windows: long clips in pieces, what the network is told in each, and kept frames."""

import inspect

import pytest
import torch
from families import VIDEO, clip, negative, ours
from golden import difference
from stock import computed, ksampler, stock

NODE = "comfy_extras.nodes_context_windows"
LATENTS, LENGTH, OVERLAP = 10, 5, 2


def windowed(model, length=LENGTH, overlap=OVERLAP, **settings):
    """MODEL with windows over time; settings that this ComfyUI does not know are left out."""
    import comfy.context_windows

    known = inspect.signature(comfy.context_windows.IndexListContextHandler.__init__).parameters
    settings = {key: value for key, value in settings.items() if key in known}
    inputs = {"context_length": length, "context_overlap": overlap, "dim": 2, **settings}
    return stock(NODE, "ContextWindowsManualNode", model=model, **inputs)[0]


def newer():
    """Whether this ComfyUI puts a frame in front of a window."""
    import comfy.context_windows

    return "causal_window_fix" in inspect.signature(comfy.context_windows.IndexListContextHandler.__init__).parameters


def long_clip(name, kept=None):
    """A random LATENT of LATENTS latents, `kept` of which are held."""
    latent = clip(name)
    shape = (*latent["samples"].shape[:2], LATENTS, *latent["samples"].shape[3:])
    frames = {"stdit": LATENTS, "stdit2": LATENTS, "stdit3": 34}.get(name, 33)
    latent |= {"samples": torch.zeros(shape), "frames": frames}
    if kept is not None:
        latent["samples"] = torch.randn(shape, generator=torch.Generator().manual_seed(9))
        mask = torch.ones(1, 1, *shape[2:])
        mask[:, :, kept] = 0
        latent["noise_mask"] = mask
    return latent


class Told:
    """What the network is given in each call: latents, and everything it is told beside them."""

    def __init__(self, model, monkeypatch):
        self.calls = []
        run = type(model.model.diffusion_model).run

        def record(network, x, timestep, caption, caption_mask, frame_mask, sizes, **condition):
            self.calls.append((x, {"frame_mask": frame_mask, **sizes._asdict(), **condition}))
            return run(network, x, timestep, caption, caption_mask, frame_mask, sizes, **condition)

        monkeypatch.setattr(type(model.model.diffusion_model), "run", record)


@pytest.mark.parametrize("kept", [None, [0, 7]])
@pytest.mark.parametrize("name", VIDEO)
def test_a_window_as_long_as_the_clip_changes_nothing(comfy, models, positive, name, kept):
    latent, model = long_clip(name, kept), models[name]
    plain, whole = (ours(each, positive, latent, steps=2) for each in (model, windowed(model, LATENTS)))
    assert torch.equal(plain, whole)


@pytest.mark.parametrize("anchored", [True, False])
@pytest.mark.parametrize("name", VIDEO)
def test_every_window_is_told_its_own_frames(comfy, models, positive, monkeypatch, name, anchored):
    """The mask and the condition of a window are those of its latents, of one in front of it (0.33) too."""
    kept = [0, 5, 7]
    latent = long_clip(name, kept)
    model = windowed(models[name], causal_window_fix=anchored)
    told = Told(model, monkeypatch)
    samples = ours(model, positive, latent, steps=2)
    starts = [0, 3, 5]
    assert len(told.calls) == 2 * len(starts)
    for (x, given), start in zip(told.calls, starts * 2):
        front = int(anchored and newer() and start > 0)
        shown = list(range(start - front, start + LENGTH))
        own = [position for position, index in enumerate(shown) if index in kept]
        assert x.shape[2] == len(shown)
        assert given["num_frames"] == {"stdit3": 17.0 + 4 * front, "stdit3_v1_3": 17.0}.get(name, len(shown))
        assert given["fps"] == 24.0
        if name == "stdit3_v1_3":
            assert given["condition_frames"] == own
            clean = latent["samples"][0, :, [shown[position] for position in own]]
            # One row of the batch, that of image guidance, has none.
            assert {tuple(row[:, own].flatten().tolist()) for row in given["condition"] if row.any()} <= {
                tuple(clean.flatten().tolist())
            }
            assert (given["condition_mask"][0].amax((0, 2, 3)) == 1).nonzero().flatten().tolist() == own
        else:
            assert (~given["frame_mask"][0]).nonzero().flatten().tolist() == own
            expected = latent["samples"][0, :, [shown[position] for position in own]]
            assert torch.allclose(x[0][:, own], expected, atol=1e-5)
    assert torch.equal(samples[:, :, kept], latent["samples"][:, :, kept])
    rest = [index for index in range(LATENTS) if index not in kept]
    assert torch.isfinite(samples).all()
    assert (samples - latent["samples"])[:, :, rest].abs().amax((0, 1, 3, 4)).min() > 0.05


@pytest.mark.parametrize("name", VIDEO)
def test_long_clips_through_both_samplers(comfy, models, positive, name):
    latent, model = long_clip(name), models[name]
    for sample in (
        lambda model: ours(model, positive, latent, steps=4),
        lambda model: ksampler(model, positive, negative(model, positive), latent),
    ):
        with computed(model) as calls:
            plain = sample(model)
            assert len(calls) == 4
            pieces = sample(windowed(model))
        assert len(calls) == 4 + 4 * 3
        assert torch.isfinite(pieces).all() and difference(pieces, plain) > 1e-3


@pytest.mark.parametrize("schedule", ["standard_static", "standard_uniform", "looped_uniform", "batched"])
def test_every_schedule(comfy, models, positive, schedule):
    latent = long_clip("stdit3", [0, 9])
    model = windowed(models["stdit3"], context_schedule=schedule)
    samples = ours(model, positive, latent, steps=3)
    assert torch.isfinite(samples).all()
    assert torch.equal(samples[:, :, [0, 9]], latent["samples"][:, :, [0, 9]])


def test_a_retained_latent_brings_its_mask(comfy, models, positive, monkeypatch):
    """0.33 can show one latent in every window; the network must be told of it what holds for that latent."""
    latent = long_clip("stdit3", [0])
    model = windowed(models["stdit3"], latent_retain_index_list="0", causal_window_fix=False)
    told = Told(model, monkeypatch)
    samples = ours(model, positive, latent, steps=2)
    for (x, given), start in zip(told.calls, [0, 3, 5] * 2):
        here = start == 0 or newer()
        assert given["frame_mask"][0].tolist() == [not here, True, True, True, True]
        assert torch.equal(x[0][:, 0], latent["samples"][0][:, 0]) == here
    assert torch.equal(samples[:, :, 0], latent["samples"][:, :, 0])


def test_windows_are_a_run_each_where_they_do_not_overlap(comfy, models, positive):
    """Without overlap a window is a clip of its own: the first five latents of ten are those of a clip of five."""
    latent, model = long_clip("stdit3"), models["stdit3"]
    pieces = ksampler(windowed(model, LENGTH, 0), positive, negative(model, positive), latent)
    short = {**latent, "samples": latent["samples"][:, :, :LENGTH], "frames": 17}
    import comfy.sample

    noise = comfy.sample.prepare_noise(latent["samples"], 5)
    alone = comfy.sample.sample(
        model, noise[:, :, :LENGTH], 4, 4.0, "euler", "simple", positive, negative(model, positive), short["samples"],
        disable_pbar=True, seed=5,
    )  # fmt: skip
    assert difference(pieces[:, :, :LENGTH], alone) <= 1e-5
