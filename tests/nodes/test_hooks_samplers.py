"""KSampler, KSampler Advanced and SamplerCustomAdvanced: samplers, schedulers, and runs in two halves."""

import pytest
import torch
from families import VIDEO, clip, negative, ours
from golden import difference
from small import pack, run
from stock import ksampler, ksampler_advanced, sampler_custom_advanced

SAMPLERS = (
    "euler", "euler_ancestral", "heun", "dpm_2", "lms", "dpmpp_2m", "dpmpp_sde", "ddim", "uni_pc", "res_multistep"
)  # fmt: skip
MASK = [0.0, 1.0, 1.0, 0.0, 1.0]


def checked(samples, latent):
    """Every sample is a number, kept frames are untouched, and the others are not."""
    assert samples.shape == latent["samples"].shape and torch.isfinite(samples).all()
    assert torch.equal(samples[:, :, [0, 3]], latent["samples"][:, :, [0, 3]])
    assert (samples - latent["samples"])[:, :, 1:3].abs().amax((0, 1, 3, 4)).min() > 0.05
    return samples


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", ["stdit2", "stdit3"])
def test_both_ways_to_sample_agree(comfy, models, positive, name, sampler):
    latent, against = clip(name, MASK), negative(models[name], positive)
    one = checked(ksampler(models[name], positive, against, latent, sampler), latent)
    # BasicScheduler keeps the last level but one, which KSampler leaves out for some samplers (dpm_2, uni_pc).
    sigmas = comfy.samplers.KSampler(models[name], 4, "cpu", sampler, "simple", 1.0).sigmas
    assert torch.equal(sampler_custom_advanced(models[name], positive, against, latent, sampler, sigmas), one)


@pytest.mark.parametrize("name", ["stdit2", "stdit3"])
def test_every_scheduler(comfy, models, positive, name):
    """All that this ComfyUI has; each visits other noise levels, so each gives another clip."""
    latent, against, seen = clip(name, MASK), negative(models[name], positive), []
    for scheduler in comfy.samplers.KSampler.SCHEDULERS:
        samples = checked(ksampler(models[name], positive, against, latent, scheduler=scheduler), latent)
        custom = sampler_custom_advanced(models[name], positive, against, latent, sigmas=scheduler)
        assert torch.equal(custom, samples), scheduler
        seen.append(samples)
    assert len(seen) >= 9
    assert sum((seen[0] - other).abs().max() > 1e-4 for other in seen[1:]) >= len(seen) - 3


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("name", VIDEO)
def test_two_halves_are_one_run(comfy, models, positive, name, mask):
    """KSampler Advanced hands a half-finished clip on; the second one knows which frames are kept by the same mask.

    The rest of the run is given the kept frames of 1.3 without their noise, which moves the others a little.
    """
    latent, against = clip(name, mask), negative(models[name], positive)
    whole = ksampler(models[name], positive, against, latent)
    half = ksampler_advanced(models[name], positive, against, latent, 0, 2)
    both = ksampler_advanced(models[name], positive, against, half, 2, 4)["samples"]
    assert difference(half["samples"], whole) > 0.005
    assert difference(both, whole) <= (0.2 if name == "stdit3_v1_3" and mask else 1e-5)
    if mask:
        checked(both, latent)


def test_ksampler_advanced_in_one_piece_is_open_soras_own(models, positive):
    latent = clip("stdit3", MASK)
    model = run(pack("nodes.sampler").OpenSoraModelSampling, model=models["stdit3"], latent=latent)[0]
    whole = ksampler_advanced(model, positive, negative(model, positive), latent, 0, 5, steps=5)
    assert difference(whole["samples"], ours(model, positive, latent, steps=5)) <= 1e-5
    assert whole["fps"] == latent["fps"] and whole["frames"] == latent["frames"]
