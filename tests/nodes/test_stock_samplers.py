"""Pinned frames through ComfyUI's own samplers, and when a frame of partial strength wakes."""

import pytest
import torch
from small import FLOW, pack, run

STEPS, SEED, CFG = 8, 5, 4.0  # the steps divide 1000
SIZES = {"frames": 17, "fps": 24.0, "height": 64, "width": 64}
# Kept, wakes early, is generated, wakes late, never wakes: the last of 8 steps has more noise than 5 %.
VALUES = (0.0, 0.9, 1.0, 0.7, 0.05)


def clip(values=VALUES, batch=1):
    """A LATENT of random samples with these mask values, one a latent."""
    samples = torch.randn(batch, 4, len(values), 8, 8, generator=torch.Generator().manual_seed(9))
    mask = torch.tensor(values).view(1, 1, -1, 1, 1).expand(batch, 1, -1, 8, 8).clone()
    return {"samples": samples, "noise_mask": mask, **SIZES}


def with_nodes(model, positive, latent, sampler="original", steps=STEPS):
    settings = {"seed": SEED, "steps": steps, "cfg": CFG, "sampler_name": sampler, "denoise": 1.0}
    node = pack("nodes.sampler").OpenSoraSampler
    return run(node, model=model, positive=positive, latent=latent, **settings)[0]["samples"]


def prepared(comfy, model, positive, latent):
    """(MODEL, negative, noise) as a stock graph has them."""
    negative = pack("nodes.comfy.sampling.conditioning").null_conditioning(model, positive)
    model = run(pack("nodes.sampler").OpenSoraModelSampling, model=model, latent=latent)[0]
    return model, negative, comfy.sample.prepare_noise(latent["samples"], SEED)


def with_ksampler(comfy, model, positive, latent, sampler, steps=STEPS):
    model, negative, noise = prepared(comfy, model, positive, latent)
    keep = {"noise_mask": latent["noise_mask"], "disable_pbar": True, "seed": SEED}
    start = latent["samples"]
    return comfy.sample.sample(model, noise, steps, CFG, sampler, "simple", positive, negative, start, **keep)


def with_sampler_custom_advanced(comfy, model, positive, latent, sampler, steps=STEPS):
    scheduler = pack("nodes.sampler").OpenSoraScheduler
    sigmas = run(scheduler, model=model, latent=latent, steps=steps, denoise=1.0)[0]
    model, negative, noise = prepared(comfy, model, positive, latent)
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(CFG)
    sampler = comfy.samplers.sampler_object(sampler)
    keep = {"denoise_mask": latent["noise_mask"], "disable_pbar": True, "seed": SEED}
    return guider.sample(noise, latent["samples"], sampler, sigmas, **keep)


def difference(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


@pytest.mark.parametrize(
    "name", ["euler", "heun", "ddim", "dpm_2", "deis", "res_multistep", "dpmpp_2m", "lms", "er_sde"]
)
def test_kept_latents_come_out_as_they_went_in(comfy, model, positive, name):
    latent = clip(batch=2)
    before = latent["samples"]
    assert torch.equal(with_nodes(model, positive, latent, name, 4)[:, :, [0, 4]], before[:, :, [0, 4]])
    for samples in (
        with_ksampler(comfy, model, positive, latent, name, 4),
        with_sampler_custom_advanced(comfy, model, positive, latent, name, 4),
    ):
        assert (samples - before)[:, :, [0, 4]].abs().max() <= 1e-6
        assert torch.isfinite(samples).all() and (samples - before)[:, :, 1:3].abs().amax((0, 1, 3, 4)).min() > 0.1


def test_no_stock_sampler_changes_a_kept_latent(comfy, model, positive):
    """What the help page says of all of them; dpm_adaptive chooses its own steps and takes the longest."""
    latent = clip()
    for name in comfy.samplers.KSampler.SAMPLERS:
        samples = with_ksampler(comfy, model, positive, latent, name, 2)
        assert torch.equal(samples[:, :, [0, 4]], latent["samples"][:, :, [0, 4]]), name


def original(comfy, checkpoints, positive, latent):
    """The same run by `model.flow.sample`, whose agreement with the original is tested with the model."""
    flow, loading = pack("model.flow"), pack("model.checkpoints.loading")
    network = loading.load_transformer(pack("model.files").read_file(checkpoints["transformer"])[0])
    mask, (caption, extra) = latent["noise_mask"][:, 0, :, 0, 0], positive[0]
    noise = comfy.sample.prepare_noise(latent["samples"], SEED)
    return flow.sample(
        network,
        torch.where((mask == 1)[:, None, :, None, None], noise, latent["samples"]),
        caption,
        network.null_caption,
        caption_mask=extra["attention_mask"],
        timesteps=flow.timesteps(STEPS, SIZES["height"], SIZES["width"], SIZES["frames"], **FLOW),
        guidance=CFG,
        frame_mask=mask,
        noise=lambda step, shape: noise,  # ComfyUI's samplers draw once
        **{name: torch.tensor([float(SIZES[name])]) for name in ("fps", "height", "width")},
    )


def test_the_mask_function_makes_partial_strengths_the_originals(comfy, model, positive, checkpoints):
    """Taken away, a partial value mixes kept and generated on every step, and the run is another one."""
    latent = clip()
    expected = original(comfy, checkpoints, positive, latent)
    without = model.clone()
    assert without.model_options.pop("denoise_mask_function") is pack("nodes.comfy.transformer.kept_frames").wake_frames
    for sample in (
        lambda model: with_nodes(model, positive, latent),
        lambda model: with_sampler_custom_advanced(comfy, model, positive, latent, "euler"),
        lambda model: with_ksampler(comfy, model, positive, latent, "euler"),
    ):
        assert difference(sample(model), expected) <= 1e-5
        assert difference(sample(without), expected) > 0.05
    assert (expected - latent["samples"])[:, :, 1:4].abs().amax((0, 1, 3, 4)).min() > 0.1


def test_a_frame_wakes_when_the_noise_has_fallen_to_its_value(model, positive):
    """What the network is given: clean latents until then, noisy ones from then on, each told so."""
    latent, steps = clip(), []

    def record(apply, given):
        t = given["timestep"][0].item() * 1000
        steps.append((t, given["input"][0]))
        return apply(given["input"], given["timestep"], **given["c"])

    watched = model.clone()
    watched.set_model_unet_function_wrapper(record)
    with_nodes(watched, positive, latent)
    assert len(steps) == STEPS
    seen = []
    for t, given in steps:
        clean = [torch.equal(given[:, i], latent["samples"][0, :, i]) for i in range(len(VALUES))]
        assert clean == [value * 1000 < t for value in VALUES]
        seen.append(clean)
    awake = [sum(not clean[i] for clean in seen) for i in range(len(VALUES))]
    assert awake[0] == awake[4] == 0 < awake[3] < awake[1] < awake[2] == STEPS
