"""Nodes that change the schedule or the guidance: they do what they do to other models, and kept frames stay."""

import pytest
import torch
from families import EPSILON, VIDEO, clip, negative, ours
from golden import difference
from small import pack, run
from stock import ksampler, sampler_custom_advanced, stock

MASK = [0.0, 1.0, 1.0, 0.0, 1.0]
FLOW = [name for name in VIDEO if name not in EPSILON]
ADVANCED = "comfy_extras.nodes_model_advanced"
SHIFTS = {  # node: (inputs, noise levels halfway through for a time of 0.5)
    "ModelSamplingSD3": ({"shift": 9.0}, 0.9),
    "ModelSamplingAuraFlow": ({"shift": 9.0}, 0.9),
    "ModelSamplingFlux": ({"max_shift": 2.1972246, "base_shift": 2.1972246}, 0.9),  # e to this is 9
}
GUIDANCE = {
    "RescaleCFG": (ADVANCED, "RescaleCFG", {}),
    "CFGZeroStar": ("comfy_extras.nodes_cfg", "CFGZeroStar", {}),
    "CFGNorm": ("comfy_extras.nodes_cfg", "CFGNorm", {"strength": 0.8}),
    "APG": ("comfy_extras.nodes_apg", "APG", {"norm_threshold": 2.0, "momentum": 0.5}),
    "TCFG": ("comfy_extras.nodes_tcfg", "TCFG", {}),
}


def ways(model, positive, latent, steps=4):
    """The same run by Open-Sora Sampler and by KSampler."""
    yield "original", ours(model, positive, latent, steps=steps)
    yield "ksampler", ksampler(model, positive, negative(model, positive), latent, steps=steps)


def shifted(model, node):
    return stock(ADVANCED, node, model=model, **SHIFTS[node][0])[0]


@pytest.mark.parametrize("node", SHIFTS)
@pytest.mark.parametrize("name", FLOW)
def test_a_shift_by_hand_moves_the_schedule(comfy, models, positive, name, node):
    """The artist's shift goes before the clip's own, in Open-Sora Scheduler and Sampler as in stock samplers."""
    latent, model = clip(name, MASK), shifted(models[name], node)
    sigmas = run(pack("nodes.sampler").OpenSoraScheduler, model=model, latent=latent, steps=4, denoise=1.0)[0]
    assert sigmas[0] == 1 and abs(sigmas[2] - SHIFTS[node][1]) < 1e-4
    own = run(pack("nodes.sampler").OpenSoraScheduler, model=models[name], latent=latent, steps=4, denoise=1.0)[0]
    assert (own - sigmas).abs().max() > 0.05
    stock_sigmas = stock(
        "comfy_extras.nodes_custom_sampler", "BasicScheduler", model=model, scheduler="simple", steps=4, denoise=1.0
    )[0]
    assert torch.allclose(stock_sigmas, sigmas, atol=1e-3)
    for (way, changed), (_, plain) in zip(ways(model, positive, latent), ways(models[name], positive, latent)):
        assert torch.isfinite(changed).all() and (changed - plain).abs().max() > 1e-2, way
        assert torch.equal(changed[:, :, [0, 3]], latent["samples"][:, :, [0, 3]]), way
    used = []

    def watch(apply, given):
        used.append(apply.__self__.model_sampling)
        return apply(given["input"], given["timestep"], **given["c"])

    watched = model.clone()
    watched.set_model_unet_function_wrapper(watch)
    ours(watched, positive, latent, steps=1)
    assert used == [model.object_patches["model_sampling"]]
    # The clip's rate and size still reach the network, and both ways to sample agree.
    prepared = run(pack("nodes.sampler").OpenSoraModelSampling, model=models[name], latent=latent)[0]
    expected = sampler_custom_advanced(
        shifted(prepared, node), positive, negative(prepared, positive), latent, sigmas=sigmas
    )
    sampled = ours(model, positive, latent, steps=4, sampler_name="euler")
    assert difference(sampled, expected) <= 1e-5


@pytest.mark.parametrize("name", FLOW)
def test_the_network_is_told_the_same_by_every_shift_node(comfy, models, positive, name):
    """Nodes of Flux and AuraFlow count timesteps to 1, Open-Sora's networks to 1000."""
    latent = clip(name, [0.0, 1.0, 0.5, 0.0, 1.0])
    results = [ours(shifted(models[name], node), positive, latent, steps=4) for node in SHIFTS]
    assert all(difference(other, results[0]) <= 1e-4 for other in results[1:])


def test_open_sora_model_sampling_behind_it_has_the_last_word(comfy, models, positive):
    latent = clip("stdit3")
    node = pack("nodes.sampler").OpenSoraModelSampling
    both = run(node, model=shifted(models["stdit3"], "ModelSamplingSD3"), latent=latent)[0]
    alone = run(node, model=models["stdit3"], latent=latent)[0]
    assert both.get_model_object("model_sampling").shift == alone.get_model_object("model_sampling").shift
    assert torch.equal(ours(both, positive, latent, steps=2), ours(models["stdit3"], positive, latent, steps=2))


@pytest.mark.parametrize(
    ("name", "node", "inputs", "words"),
    [
        ("stdit2", "ModelSamplingSD3", {}, "model was given the sampling .* 1.1 takes that of ModelSamplingDiscrete"),
        ("stdit3", "ModelSamplingDiscrete", {"sampling": "eps", "zsnr": False}, "takes that of ModelSamplingSD3"),
    ],
)
def test_the_sampling_of_another_kind_of_model_is_refused(comfy, models, positive, name, node, inputs, words):
    model = stock(ADVANCED, node, model=models[name], **inputs)[0]
    with pytest.raises(ValueError, match=words):
        ksampler(model, positive, negative(model, positive), clip(name))


@pytest.mark.parametrize("node", GUIDANCE)
@pytest.mark.parametrize("name", VIDEO)
def test_guidance_nodes_act(comfy, models, positive, name, node):
    module, kind, inputs = GUIDANCE[node]
    model, latent = stock(module, kind, model=models[name], **inputs)[0], clip(name, MASK)
    for (way, changed), (_, plain) in zip(ways(model, positive, latent), ways(models[name], positive, latent)):
        assert torch.isfinite(changed).all() and difference(changed, plain) > 1e-3, way
        assert torch.equal(changed[:, :, [0, 3]], latent["samples"][:, :, [0, 3]]), way


@pytest.mark.parametrize("name", ["stdit", "stdit2"])
def test_the_fourth_channel_stays_out_of_other_guidance_too(comfy, models, positive, name):
    """RescaleCFG brings its own formula; on a channel whose two halves agree, cfg has nothing to act on."""
    model = stock(ADVANCED, "RescaleCFG", model=models[name], multiplier=0.0)[0]
    sigmas = model.get_model_object("model_sampling").sigmas[[500, 400]]
    low, high = (
        sampler_custom_advanced(model, positive, negative(model, positive), clip(name), sigmas=sigmas, cfg=cfg)
        for cfg in (2.0, 9.0)
    )
    change = (low - high).abs().amax(dim=(0, 2, 3, 4)) / low.abs().max()
    assert change[3] <= 1e-5 and change[:3].min() > 1e-4


def test_kept_frames_of_1_3_head_for_their_latents_whatever_the_patch(comfy, models, positive):
    """The path of a kept frame from its noise to its latent is straight, as without the patch."""
    latent, seen = clip("stdit3_v1_3", MASK), {}
    for label, model in {
        "plain": models["stdit3_v1_3"],
        "patched": stock("comfy_extras.nodes_cfg", "CFGZeroStar", model=models["stdit3_v1_3"])[0],
    }.items():
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(positive, negative(model, positive))
        guider.set_cfg(4.0)
        seen[label] = []
        guider.sample(
            comfy.sample.prepare_noise(latent["samples"], 5),
            latent["samples"],
            comfy.samplers.sampler_object("euler"),
            torch.tensor([1.0, 0.6, 0.3, 0.0]),
            denoise_mask=latent["noise_mask"],
            callback=lambda step, x0, x, total, label=label: seen[label].append(x0[:, :, [0, 3]].clone()),
            disable_pbar=True,
            seed=5,
        )
    for plain, patched in zip(seen["plain"], seen["patched"]):
        assert torch.equal(plain, patched) and torch.equal(plain, latent["samples"][:, :, [0, 3]])


@pytest.mark.parametrize("name", VIDEO)
def test_differential_diffusion_takes_the_place_of_the_mask_function(comfy, models, positive, name):
    """Kept and generated frames stay so; a partial value wakes by its rule then, not by the original's."""
    model = stock("comfy_extras.nodes_differential_diffusion", "DifferentialDiffusion", model=models[name])[0]
    own = pack("nodes.comfy.transformer.kept_frames").wake_frames
    assert models[name].model_options["denoise_mask_function"] is own
    assert model.model_options["denoise_mask_function"] is not own
    latent = clip(name, MASK)
    for way, samples in ways(model, positive, latent, steps=6):
        assert torch.isfinite(samples).all()
        assert torch.equal(samples[:, :, [0, 3]], latent["samples"][:, :, [0, 3]]), way
        assert (samples - latent["samples"])[:, :, 1:3].abs().amax((0, 1, 3, 4)).min() > 0.05, way
