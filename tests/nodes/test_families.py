"""Every generation inside ComfyUI: loading, the original's samplers and stock ones, kept frames, guidance."""

import json
import shutil

import pytest
import torch
from families import (
    EPSILON,
    SMALL,
    STEPS,
    VERSIONS,
    VIDEO,
    clip,
    negative,
    ours,
    small_family,
    stock_advanced,
    stock_ksampler,
)
from golden import Case, difference, weights
from safetensors.torch import save_file
from small import pack, run, write

# Loading


@pytest.mark.parametrize("name", SMALL)
def test_each_family_is_a_native_model(comfy, models, name):
    import comfy.model_base

    model = models[name]
    expected = comfy.model_base.ModelType.EPS if name in EPSILON else comfy.model_base.ModelType.FLOW
    assert model.model.model_type == expected and model.model.version == VERSIONS[name]
    latent_format = model.get_model_object("latent_format")
    assert latent_format.latent_channels == (16 if name == "stdit3_v1_3" else 4)
    assert latent_format.temporal_downscale_ratio == (1 if name in EPSILON else 4)
    assert len(latent_format.latent_rgb_factors) == latent_format.latent_channels
    if name in EPSILON:
        betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
        kept = (1 - betas).cumprod(0)
        sigmas = model.get_model_object("model_sampling").sigmas
        assert torch.allclose(sigmas, ((1 - kept) / kept).sqrt().float(), rtol=1e-6)


@pytest.mark.parametrize("name", SMALL)
def test_weights_and_lora_keys_are_the_checkpoints(comfy, models, name):
    import comfy.lora

    expected = small_family(name)[1]
    own = models[name].model.diffusion_model.state_dict()
    assert own.keys() == expected.keys() and all(torch.equal(own[key], expected[key]) for key in own)
    known = comfy.lora.model_lora_keys_unet(models[name].model, {})
    for key in expected:
        if key.endswith(".weight"):
            assert known[f"diffusion_model.{key.removesuffix('.weight')}"] == f"diffusion_model.{key}"


@pytest.mark.parametrize("name", SMALL)
def test_a_lora_by_the_checkpoints_names_acts(comfy, models, positive, name):
    import comfy.sd

    key = next(key for key in small_family(name)[1] if key.endswith("attn.qkv.weight"))
    size = SMALL[name][2]["hidden_size"]
    stem = f"diffusion_model.{key.removesuffix('.weight')}"
    generator = torch.Generator().manual_seed(0)
    lora = {
        f"{stem}.lora_A.weight": torch.randn(4, size, generator=generator),
        f"{stem}.lora_B.weight": torch.randn(3 * size, 4, generator=generator),
    }
    changed, _ = comfy.sd.load_lora_for_models(models[name], None, lora, 1.0, 0.0)
    plain, patched = (ours(model, positive, clip(name), steps=2) for model in (models[name], changed))
    assert torch.isfinite(patched).all() and (plain - patched).abs().max() > 1e-3


def test_folders_and_pytorch_files_are_offered_and_load(comfy, tmp_path, monkeypatch):
    import folder_paths

    files = pack("nodes.comfy.files")
    kept = folder_paths.supported_pt_extensions
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "diffusion_models", ([str(tmp_path)], kept))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    state_dict = small_family("stdit")[1]
    folder = tmp_path / "OpenSora-STDiT"
    folder.mkdir()
    save_file(state_dict, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"num_heads": 2}))
    (tmp_path / "plain").mkdir()
    shutil.copy(folder / "model.safetensors", tmp_path / "plain")
    torch.save({"ema": {f"module.{key}": value for key, value in state_dict.items()}}, tmp_path / "old.pth")

    names = files.choices("diffusion_models")
    assert names[0] == "tiny (bundled)" and {"OpenSora-STDiT", "old.pth"} < set(names) and "plain" not in names
    path = files.path_of("OpenSora-STDiT", "diffusion_models", "transformer")
    network = pack("nodes.comfy.loading").load_model(path).model.diffusion_model
    assert network.config.num_heads == 2  # from config.json: the weights cannot tell
    path = files.path_of("old.pth", "diffusion_models", "transformer")
    own = pack("nodes.comfy.loading").load_model(path).model.diffusion_model.state_dict()
    assert all(torch.equal(own[key], state_dict[key]) for key in state_dict)
    with pytest.raises(ValueError, match="'plain' is not in models/diffusion_models"):
        files.path_of("plain", "diffusion_models", "transformer")


# The original's numbers, through the MODEL


@pytest.fixture
def untouched_sizes(monkeypatch):
    """Recorded runs tell the network sizes that do not belong to their small latents."""

    def tell(sizes):
        monkeypatch.setattr(pack("nodes.comfy.transformer.base_model"), "fit", lambda *args, **keys: sizes)

    return tell


def recorded(comfy, case, model, sampler, sigmas, cfg, start, latent=None, mask=None):
    """A guided run with a recorded case's captions."""
    guider = comfy.samplers.CFGGuider(model)
    extra = {"attention_mask": case.inputs["mask"]}
    guider.set_conds([[case.inputs["y"][:, 0], extra]], [[case.inputs["y_null"][:, 0], extra]])
    guider.set_cfg(cfg)
    latent = torch.zeros_like(start) if latent is None else latent
    return guider.sample(start, latent, sampler, sigmas, denoise_mask=mask, disable_pbar=True, seed=0)


def sizes_of(case, frames):
    numbers = (case.inputs[key].item() for key in ("height", "width"))
    return pack("nodes.comfy.latent").Sizes(float(case.inputs["fps"]), frames, *numbers)


@pytest.mark.parametrize("name", ["iddpm_cfg3", "iddpm_mask_first"])
def test_the_ancestral_sampler_gives_the_recorded_numbers(comfy, tmp_path, untouched_sizes, name):
    case, state_dict = Case(name), weights("iddpm")
    model = pack("nodes.comfy.loading").load_model(write(tmp_path / "t.safetensors", state_dict))
    untouched_sizes(sizes_of(case, 4))
    sampler = comfy.samplers.KSAMPLER(
        pack("nodes.comfy.sampling.samplers").ancestral,
        {"total_steps": 10, "noise": lambda draw, shape: case.inputs["randn_like"][draw][:1]},
    )
    start, clean, frame_mask = case.inputs["z_noise"], case.inputs["z0"], case.inputs.get("frame_mask")
    sigmas = pack("nodes.comfy.sampling.run").sigmas_for(model, sizes_of(case, 4), 10)
    if frame_mask is None:
        result = recorded(comfy, case, model, sampler, sigmas, 7.0, start)
        assert difference(result, case.outputs["z"]) <= 1e-5
        return
    mask = frame_mask[:, None, :, None, None].expand(1, 1, *clean.shape[2:])
    result = recorded(comfy, case, model, sampler, sigmas, 7.0, start, clean, mask)
    # The original lets the kept frame move a little at the last step; the same run without that is the reference.
    expected = pack("model.iddpm").sample(
        pack("model.checkpoints.loading").load_transformer(state_dict),
        torch.where(frame_mask[:, None, :, None, None] == 1, start, clean),
        case.inputs["y"][:, 0],
        case.inputs["y_null"][:, 0],
        caption_mask=case.inputs["mask"],
        steps=10,
        guidance=7.0,
        frame_mask=frame_mask,
        noise=lambda draw, shape: case.inputs["randn_like"][draw],
        **{key: case.inputs[key] for key in ("fps", "height", "width", "num_frames")},
    )
    assert difference(result, expected) <= 1e-5 and torch.equal(result[:, :, 0], clean[:, :, 0])
    assert difference(result, case.outputs["z"]) <= 1e-3


@pytest.mark.parametrize("name", ["rflow13_t2v", "rflow13_t2v_osc_flawfix", "rflow13_i2v"])
def test_1_3_gives_the_recorded_numbers(comfy, tmp_path, untouched_sizes, name):
    case = Case(name)
    sampling = pack("nodes.comfy.sampling.run")
    path = write(tmp_path / "t.safetensors", weights("rflow13"), config=case.meta["config"])
    sizes = sizes_of(case, 17)
    model = sampling.for_clip(pack("nodes.comfy.loading").load_model(path), sizes)
    untouched_sizes(sizes)
    model = sampling.with_options(
        model,
        pack("model.flow_v1_3").Options(
            oscillation="osc" in name or "i2v" in name, flaw_fix="flawfix" in name, sdedit="i2v" in name, force_num=2
        ),
    )
    sigmas = sampling.sigmas_for(model, sizes, 6)
    assert difference(sigmas[:-1] * 1000, case.mid["timesteps"][:, 0].float()) <= 1e-6
    noise = {"noise": lambda step, shape: case.inputs["randn_like"][step]} if "i2v" in name else {}
    sampler = comfy.samplers.KSAMPLER(pack("nodes.comfy.sampling.samplers").conditioned_euler, noise)
    if "i2v" not in name:
        result = recorded(comfy, case, model, sampler, sigmas, 7.5, case.inputs["z"])
        assert difference(result, case.outputs["z"]) <= 1e-5
        return
    kept = case.inputs["z_cond_mask"]
    clean = case.inputs["z_cond"] * kept
    result = recorded(comfy, case, model, sampler, sigmas, 7.5, case.inputs["z"], clean, 1 - kept[:, :1])
    assert difference(result[:, :, 1:], case.outputs["z"][:, :, 1:]) <= 1e-5
    assert torch.equal(result[:, :, 0], clean[:, :, 0])  # the original leaves the kept frame to the network


@pytest.mark.parametrize("mask", [None, [0.0, 1.0, 0.5, 0.1]])
@pytest.mark.parametrize("name", ["stdit", "stdit2"])
def test_follows_the_originals_ancestral_loop(comfy, models, positive, name, mask):
    """The same numbers as model.iddpm.sample, with the sampler node's own draws."""
    network = pack("model.checkpoints.loading").load_transformer(small_family(name)[1], SMALL[name][3])
    latent = clip(name, mask)
    start = noise = comfy.sample.prepare_noise(latent["samples"], 5)
    frame_mask = None if mask is None else latent["noise_mask"][:, 0, :, 0, 0]
    if mask is not None:
        start = torch.where((frame_mask == 1)[:, None, :, None, None], noise, latent["samples"])
    draw = pack("nodes.comfy.sampling.samplers").draws(5, start)
    caption, extra = positive[0]
    expected = pack("model.iddpm").sample(
        network,
        start,
        caption,
        network.null_caption,
        caption_mask=extra["attention_mask"],
        steps=6,
        guidance=4.0,
        frame_mask=frame_mask,
        noise=lambda number, shape: draw(number, start.shape).repeat(2, 1, 1, 1, 1),
        fps=24.0,
        height=40.0,
        width=48.0,
        num_frames=4.0,
    )
    # Over more steps these random networks make 5e-5 of a difference in the last bit.
    assert difference(ours(models[name], positive, latent, steps=6), expected) <= 1e-5


# Samplers


@pytest.mark.parametrize("name", SMALL)
def test_every_sampler_runs(comfy, models, positive, name):
    latent = clip(name)
    results = {
        "original": ours(models[name], positive, latent),
        "dpmpp_2m": ours(models[name], positive, latent, sampler_name="dpmpp_2m"),
        "advanced": stock_advanced(comfy, models[name], positive, latent),
        "ksampler": stock_ksampler(comfy, models[name], positive, latent),
        "denoise": ours(models[name], positive, clip(name, [1.0] * 5), denoise=0.5),
    }
    for label, samples in results.items():
        assert samples.shape == latent["samples"].shape and torch.isfinite(samples).all(), label
        assert samples.std() > 0.1, label
    if name not in EPSILON:  # the original of flow is Euler
        assert difference(results["advanced"], results["original"]) <= 1e-5


@pytest.mark.parametrize("sampler", ["original", "euler", "dpmpp_2m", "uni_pc", "euler_ancestral"])
@pytest.mark.parametrize("name", VIDEO)
def test_kept_frames_come_out_bit_for_bit(comfy, models, positive, name, sampler):
    latent = clip(name, [0.0, 1.0, 1.0, 0.0, 1.0], batch=2)
    runs = [ours(models[name], positive, latent, sampler_name=sampler)]
    if sampler != "original":
        runs.append(stock_advanced(comfy, models[name], positive, latent, sampler=sampler))
    for samples in runs:
        assert torch.isfinite(samples).all()
        assert torch.equal(samples[:, :, [0, 3]], latent["samples"][:, :, [0, 3]])
        assert (samples[:, :, 1:3] - latent["samples"][:, :, 1:3]).abs().max() > 0.1


@pytest.mark.parametrize("sampler", ["original", "euler"])
@pytest.mark.parametrize("name", VIDEO)
def test_kept_frames_change_the_others(models, positive, name, sampler):
    one = clip(name, [0.0, 1.0, 1.0, 1.0, 1.0])
    other = {**one, "samples": one["samples"].clone()}
    other["samples"][:, :, 0] *= -1
    first, second = (ours(models[name], positive, latent, sampler_name=sampler)[:, :, 1:] for latent in (one, other))
    assert (first - second).abs().max() > 1e-3


@pytest.mark.parametrize("name", VIDEO)
def test_partial_strengths_hold_less_the_higher_the_value(models, positive, name):
    """A frame that wakes late is nearer to what it was than one that wakes early; one below the last step stays."""
    latent = clip(name, [0.005, 0.3, 0.9, 1.0, 1.0])
    samples = ours(models[name], positive, latent, steps=10)
    moved = (samples - latent["samples"]).pow(2).mean(dim=(0, 1, 3, 4))
    assert moved[0] == 0 and 0 < moved[1] < moved[2]


@pytest.mark.parametrize(("name", "height"), [("stdit2", 42), ("stdit3", 42), ("stdit3_v1_3", 39)])
def test_what_a_clip_says_reaches_the_network(models, positive, name, height):
    latent = clip(name)
    usual = ours(models[name], positive, latent, steps=2)
    for change in ({"fps": 60.0}, {"height": height}):
        assert (ours(models[name], positive, {**latent, **change}, steps=2) - usual).abs().max() > 1e-5, change


@pytest.mark.parametrize("name", EPSILON)
def test_scheduler_gives_the_respaced_schedule(models, name):
    latent = clip(name)
    scheduler = pack("nodes.sampler").OpenSoraScheduler
    sigmas = run(scheduler, model=models[name], latent=latent, steps=10, denoise=1.0)[0]
    timesteps = pack("model.iddpm").respaced_timesteps(10)
    kept = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)[timesteps]
    assert sigmas.dtype == torch.float32 and sigmas.shape == (11,) and sigmas[-1] == 0
    assert torch.allclose(sigmas[:-1], ((1 - kept) / kept).sqrt().float(), rtol=1e-6)
    half = run(scheduler, model=models[name], latent=latent, steps=5, denoise=0.5)[0]
    assert torch.equal(half, sigmas[-6:])
    with pytest.raises(ValueError, match="denoise is 0.05, which with 100 steps.*at least 0.1"):
        run(scheduler, model=models[name], latent=latent, steps=100, denoise=0.05)


@pytest.mark.parametrize(("name", "free"), [("stdit", [3]), ("stdit2", [3]), ("pixart", [])])
def test_guidance_leaves_the_fourth_channel_alone(comfy, models, positive, name, free):
    """One stock step from pure noise: channels outside guidance do not change with cfg, in 1.0 and 1.1 the fourth."""
    low, high = (stock_advanced(comfy, models[name], positive, clip(name), steps=2, cfg=cfg) for cfg in (2.0, 9.0))
    first = [stock_one_step(comfy, models[name], positive, clip(name), cfg=cfg) for cfg in (2.0, 9.0)]
    change = (first[0] - first[1]).abs().amax(dim=(0, 2, 3, 4)) / first[0].abs().max()
    assert (low - high).abs().max() > 1e-3
    for channel in range(4):
        assert change[channel] <= 1e-6 if channel in free else change[channel] > 1e-4, change


def stock_one_step(comfy, model, positive, latent, cfg):
    sigmas = model.get_model_object("model_sampling").sigmas[[500, 400]]
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative(model, positive))
    guider.set_cfg(cfg)
    noise = comfy.sample.prepare_noise(latent["samples"], 5)
    return guider.sample(
        noise, latent["samples"], comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True, seed=5
    )


def test_progress_and_interrupt_of_the_ancestral_sampler(comfy, models, positive, monkeypatch):
    """Every step is told, with a picture of the clean latents, and an interrupt in it ends the run."""
    import comfy.model_management as management
    import comfy.utils

    # Newer versions tell of a step only so many milliseconds after the last.
    monkeypatch.setattr(comfy.utils, "PROGRESS_THROTTLE_MIN_INTERVAL", 0.0, raising=False)
    told = []

    def hook(value, total, preview, node_id=None):
        told.append((value, total))
        if len(told) == 3:
            management.interrupt_current_processing()
        management.throw_exception_if_processing_interrupted()

    comfy.utils.set_progress_bar_global_hook(hook)
    try:
        with pytest.raises(management.InterruptProcessingException):
            ours(models["stdit2"], positive, clip("stdit2"))
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
    assert told == [(1, STEPS), (2, STEPS), (3, STEPS)]


# What does not fit


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("stdit3_v1_3", {"samples": torch.zeros(1, 4, 5, 5, 6)}, ["latent", "4 channels", "takes 16"]),
        ("stdit2", {"samples": torch.zeros(1, 16, 5, 5, 6)}, ["latent", "16 channels", "takes 4"]),
        ("pixart", {"samples": torch.zeros(1, 4, 3, 5, 6)}, ["latent has 3 frames", "PixArt", "frames to 1"]),
    ],
)
def test_latents_of_another_generation_are_refused(models, positive, name, change, words):
    with pytest.raises(ValueError) as error:
        ours(models[name], positive, {**clip(name), **change})
    assert all(word in str(error.value) for word in words), error.value
