"""Sampling: the pack's sampler against stock samplers, and both against the original's loop."""

import math

import pytest
import torch
from golden import psnr
from small import FLOW, pack, run

STEPS = 8  # divides 1000
SIZES = {  # name: LATENT keys; sizes and rates that are and are not what the samples alone would say
    "default": {"frames": 17, "fps": 24.0, "height": 64, "width": 64},
    "odd": {"frames": 21, "fps": 12.0, "height": 44, "width": 86},
    "image": {"frames": 1, "fps": 24.0, "height": 64, "width": 48},
}


def clip(name="default", batch=1, mask=None):
    """An empty LATENT of SIZES[name]; with a mask [T] of values 0…1, a random one whose frames are held so far."""
    keys = SIZES[name]
    T = pack("model.frames").CHUNKS.latent_frames(keys["frames"])
    shape = (batch, 4, T, keys["height"] // 8, keys["width"] // 8)
    latent = {"samples": torch.zeros(shape), **keys}
    if mask is not None:
        latent["samples"] = torch.randn(shape, generator=torch.Generator().manual_seed(9))
        values = torch.tensor([float(mask(i, T)) for i in range(T)])
        latent["noise_mask"] = values.view(1, 1, -1, 1, 1).expand(batch, 1, *shape[2:]).clone()
    return latent


MASKS = {
    "no mask": None,
    "first kept": lambda i, T: i > 0,
    "ends kept": lambda i, T: 0 < i < T - 1,
    "partial": lambda i, T: (0.0, 0.6, 1.0, 0.45, 0.05)[i % 5],
}


def ours(model, positive, latent, steps=STEPS, **options):
    sampler = pack("nodes.sampler").OpenSoraSampler
    settings = {"seed": 5, "steps": steps, "cfg": 4.0, "sampler_name": "original", "denoise": 1.0, **options}
    return run(sampler, model=model, positive=positive, latent=latent, **settings)[0]


def negative(model, positive):
    return pack("nodes.comfy.sampling.conditioning").null_conditioning(model, positive)


def prepared(model, latent):
    return run(pack("nodes.sampler").OpenSoraModelSampling, model=model, latent=latent)[0]


def stock_advanced(comfy, model, positive, latent, steps=STEPS, sampler="euler"):
    """What SamplerCustomAdvanced does, with only what it hands on: samples and noise_mask."""
    sigmas = run(pack("nodes.sampler").OpenSoraScheduler, model=model, latent=latent, steps=steps, denoise=1.0)[0]
    model = prepared(model, latent)
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative(model, positive))
    guider.set_cfg(4.0)
    noise = comfy.sample.prepare_noise(latent["samples"], 5)
    return guider.sample(
        noise,
        latent["samples"],
        comfy.samplers.sampler_object(sampler),
        sigmas,
        denoise_mask=latent.get("noise_mask"),
        disable_pbar=True,
        seed=5,
    )


def stock_ksampler(comfy, model, positive, latent, steps):
    model = prepared(model, latent)
    noise = comfy.sample.prepare_noise(latent["samples"], 5)
    return comfy.sample.sample(
        model,
        noise,
        steps,
        4.0,
        "euler",
        "simple",
        positive,
        negative(model, positive),
        latent["samples"],
        noise_mask=latent.get("noise_mask"),
        disable_pbar=True,
        seed=5,
    )


# A single frame has nothing to hold.
@pytest.mark.parametrize(
    ("size", "mask"), [(size, mask) for size in SIZES for mask in MASKS if size != "image" or mask == "no mask"]
)
def test_sampler_custom_advanced_gives_the_same_bits(comfy, model, positive, size, mask):
    latent = clip(size, mask=MASKS[mask])
    result = ours(model, positive, latent)
    assert torch.equal(stock_advanced(comfy, model, positive, latent), result["samples"])
    assert result["samples"].std() > 0.1 and torch.isfinite(result["samples"]).all()


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("size", ["default", "odd"])
def test_ksampler_simple_agrees(comfy, model, positive, size, mask):
    latent = clip(size, mask=MASKS[mask])
    stock = stock_ksampler(comfy, model, positive, latent, STEPS)
    expected = ours(model, positive, latent)["samples"]
    assert (stock - expected).abs().max() / expected.abs().max() <= 1e-5
    stock = stock_ksampler(comfy, model, positive, latent, 30)
    expected = ours(model, positive, latent, steps=30)["samples"]
    assert psnr(stock, expected) >= 35


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("size", ["default", "odd"])
def test_follows_the_originals_loop(comfy, model, positive, checkpoints, size, mask):
    """The same numbers as model.flow.sample, whose agreement with the original is tested with the model."""
    flow, loading = pack("model.flow"), pack("model.checkpoints.loading")
    state_dict, _ = pack("model.files").read_file(checkpoints["transformer"])
    latent = clip(size, mask=MASKS[mask])
    keys = SIZES[size]
    noise = comfy.sample.prepare_noise(latent["samples"], 5)
    frame_mask = latent["noise_mask"][:, 0, :, 0, 0] if mask != "no mask" else None
    start = noise
    if frame_mask is not None:
        start = torch.where((frame_mask == 1)[:, None, :, None, None], noise, latent["samples"])
    caption, extra = positive[0]
    network = loading.load_transformer(state_dict)
    expected = flow.sample(
        network,
        start,
        caption,
        network.null_caption,
        caption_mask=extra["attention_mask"],
        timesteps=flow.timesteps(STEPS, keys["height"], keys["width"], keys["frames"], **FLOW),
        guidance=4.0,
        frame_mask=frame_mask,
        noise=lambda step, shape: noise,
        fps=torch.tensor([keys["fps"]]),
        height=torch.tensor([float(keys["height"])]),
        width=torch.tensor([float(keys["width"])]),
    )
    result = ours(model, positive, latent)["samples"]
    assert (result - expected).abs().max() / expected.abs().max() <= 1e-5


@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_2m", "uni_pc", "dpm_adaptive", "euler_ancestral"])
def test_kept_frames_come_out_bit_for_bit(comfy, model, positive, name):
    latent = clip(mask=MASKS["ends kept"], batch=2)
    for samples in (
        ours(model, positive, latent, sampler_name=name)["samples"],
        stock_advanced(comfy, model, positive, latent, sampler=name),
    ):
        assert torch.equal(samples[:, :, [0, -1]], latent["samples"][:, :, [0, -1]])
        assert (samples[:, :, 1:-1] - latent["samples"][:, :, 1:-1]).abs().max() > 0.1


def test_a_frame_that_never_wakes_stays_exact(comfy, model, positive):
    latent = clip(mask=MASKS["partial"])  # frame 4 has 0.05: below the last of 8 steps' noise level
    samples = ours(model, positive, latent)["samples"]
    assert torch.equal(samples[:, :, [0, 4]], latent["samples"][:, :, [0, 4]])
    assert (samples[:, :, 1:4] - latent["samples"][:, :, 1:4]).abs().amax(dim=(0, 1, 3, 4)).min() > 0.1


def test_kept_frames_change_the_others(model, positive):
    """The frame mask reaches the network: the same run with another kept frame gives other in-betweens."""
    one = clip(mask=MASKS["first kept"])
    other = {**one, "samples": one["samples"].clone()}
    other["samples"][:, :, 0] *= -1
    first, second = (ours(model, positive, latent)["samples"][:, :, 1:] for latent in (one, other))
    assert (first - second).abs().max() > 1e-3


def test_fps_and_sizes_reach_the_network(comfy, model, positive):
    latent = clip("odd")
    usual = ours(model, positive, latent)["samples"]
    for change in ({"fps": 60.0}, {"height": 47}, {"width": 80}):
        assert (ours(model, positive, {**latent, **change})["samples"] - usual).abs().max() > 1e-5, change
    # Without its keys a LATENT means 24 frames per second and 8 pixels a latent.
    bare = {"samples": latent["samples"]}
    spelled = {**latent, "fps": 24.0, "height": 40, "width": 80}
    assert torch.equal(ours(model, positive, bare)["samples"], ours(model, positive, spelled)["samples"])


def test_an_image_is_told_120_frames_per_second(comfy, model, positive):
    base = model.model
    noise = torch.zeros(1, 4, 1, 8, 8)
    conds = base.extra_conds(noise=noise, cross_attn=positive[0][0], device="cpu", prompt_type="positive")
    assert conds["fps"].cond == 120.0
    conds = base.extra_conds(noise=noise.repeat(1, 1, 5, 1, 1), cross_attn=positive[0][0], device="cpu")
    assert (conds["fps"].cond, conds["height"].cond, conds["num_frames"].cond) == (24.0, 64.0, 17.0)


@pytest.mark.parametrize("size", SIZES)
def test_scheduler_is_the_flows_timesteps(model, size):
    latent, keys = clip(size), SIZES[size]
    sigmas = run(pack("nodes.sampler").OpenSoraScheduler, model=model, latent=latent, steps=30, denoise=1.0)[0]
    expected = pack("model.flow").timesteps(30, keys["height"], keys["width"], keys["frames"], **FLOW) / 1000
    assert sigmas.dtype == torch.float32 and sigmas.shape == (31,) and sigmas[-1] == 0
    assert torch.equal(sigmas[:-1], expected)


def test_denoise_runs_the_end_of_a_longer_schedule(model, positive):
    scheduler = pack("nodes.sampler").OpenSoraScheduler
    half = run(scheduler, model=model, latent=clip(), steps=10, denoise=0.5)[0]
    whole = run(scheduler, model=model, latent=clip(), steps=20, denoise=1.0)[0]
    assert torch.equal(half, whole[-11:])
    assert run(scheduler, model=model, latent=clip(), steps=10, denoise=0.0)[0].numel() == 0
    start = clip(mask=lambda i, T: 1)
    assert torch.equal(ours(model, positive, start, denoise=0.0)["samples"], start["samples"])
    little, much = (
        (ours(model, positive, start, denoise=d)["samples"] - start["samples"]).pow(2).mean() for d in (0.2, 0.9)
    )
    assert 0 < little < much


@pytest.mark.parametrize("size", SIZES)
def test_sigma_max_is_exactly_one(model, size):
    sampling = prepared(model, clip(size)).get_model_object("model_sampling")
    assert sampling.sigma_max == 1.0 and sampling.sigmas.max() == 1.0 and sampling.multiplier == 1000
    assert (sampling.sigmas[1:] > sampling.sigmas[:-1]).all()


def test_model_sampling_leaves_the_original_model_alone(model, positive):
    before = ours(model, positive, clip())["samples"]
    prepared(model, clip("odd"))
    ours(model, positive, clip("odd"))
    assert torch.equal(ours(model, positive, clip())["samples"], before)


def test_negative_left_out_is_the_null_caption_with_the_prompts_mask(model, positive):
    ((caption, extra),) = negative(model, positive)
    assert torch.equal(caption[0], model.model.diffusion_model.null_caption)
    assert torch.equal(extra["attention_mask"], positive[0][1]["attention_mask"])
    given = ours(model, positive, clip(), negative=negative(model, positive))["samples"]
    assert torch.equal(ours(model, positive, clip())["samples"], given)
    other = [[caption * 2, extra]]
    assert not torch.equal(ours(model, positive, clip(), negative=other)["samples"], given)


def test_padding_tokens_do_not_take_part(model, positive):
    caption, extra = positive[0]
    changed = caption.clone()
    changed[:, 7:] = 5
    assert torch.equal(ours(model, [[changed, extra]], clip())["samples"], ours(model, positive, clip())["samples"])


def test_the_first_clip_of_a_batch_is_the_single_one(model, positive):
    """Noise is drawn clip after clip from one seed; rounding alone tells a batch from a single clip."""
    samples = ours(model, positive, clip(batch=2))["samples"]
    single = ours(model, positive, clip())["samples"]
    assert samples.shape[0] == 2 and torch.allclose(samples[:1], single, atol=1e-4)
    assert (samples[1] - samples[0]).abs().max() > 0.1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"samples": torch.zeros(1, 16, 5, 8, 8)}, ["latent", "16", "4"]),
        ({"samples": torch.zeros(1, 4, 3, 8, 8), "frames": 12}, ["12", "17"]),
    ],
)
def test_latents_that_do_not_fit_are_refused(model, positive, change, words):
    with pytest.raises(ValueError) as error:
        ours(model, positive, {**clip(), **change})
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize("shape", [(4, 8, 8), (1, 4, 1, 5, 8, 8)])
def test_latents_of_another_rank_are_refused(model, positive, shape):
    latent = {**clip(), "samples": torch.zeros(shape)}
    nodes = pack("nodes.sampler")
    for use in (
        lambda: ours(model, positive, latent),
        lambda: run(nodes.OpenSoraScheduler, model=model, latent=latent, steps=4, denoise=1.0),
        lambda: prepared(model, latent),
    ):
        with pytest.raises(ValueError, match="latent has shape .*a video latent is"):
            use()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_sizes_that_are_no_numbers_count_as_missing(comfy, value):
    sizes_of = pack("nodes.comfy.latent").sizes_of
    latent = clip("odd")
    for key, derived in {"fps": 24.0, "frames": 21, "height": 40, "width": 80}.items():
        assert getattr(sizes_of({**latent, key: value}), key) == derived


def test_captions_of_another_text_encoder_are_refused(model):
    caption = [[torch.zeros(1, 24, 4096), {}]]
    with pytest.raises(ValueError, match="positive has 4096 channels.*32"):
        ours(model, caption, clip(), negative=caption)


def test_other_models_are_refused(positive, vae):
    with pytest.raises(ValueError, match="Load Open-Sora Model"):
        ours(vae, positive, clip())
