"""Previews while sampling: in the colours that the clip will have, and alive when the first frame stands still."""

import importlib
import io

import numpy
import prompts
import pytest
import torch
from PIL import Image
from small import VAE_CONFIG, pack, random_weights, small_causal_vae, write

PROMPT = "a red circle moves to the right on a white background"


@pytest.fixture
def previews(comfy, monkeypatch):
    """The pictures that ComfyUI sends while the test samples, fp32 [H, W, 3] in 0…1."""
    import comfy.cli_args
    import comfy.utils
    import latent_preview

    monkeypatch.setattr(comfy.cli_args.args, "preview_method", latent_preview.LatentPreviewMethod.Latent2RGB)
    pictures = []

    def hook(value, total, preview, **context):
        if preview is not None:
            pictures.append(numpy.asarray(preview[1], dtype=numpy.float32) / 255)

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    return pictures


def cells_of_video(video, groups, height, width):
    """The frames [T, H, W, 3] behind each latent, averaged and made small: [latents, height, width, 3]."""
    cells = torch.stack([video[group.start : group.stop].mean(0) for group in groups])
    return torch.nn.functional.interpolate(cells.movedim(-1, 1), (height, width), mode="area").movedim(1, -1)


def alike(a, b):
    """Pearson's correlation of two tensors' values."""
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def previewer_of(model):
    """What ComfyUI makes at the start of a run: its previewer."""
    import latent_preview

    return latent_preview.get_previewer(torch.device("cpu"), model.get_model_object("latent_format"))


def shown_by(previewer, x0):
    """The next picture [H, W, 3] in 0…1."""
    return torch.from_numpy(numpy.asarray(previewer.decode_latent_to_preview(x0), dtype=numpy.float32) / 255)


PROMPTS = (
    PROMPT,
    "a blue square stays still on a black background",
    "a yellow triangle grows on a gray background",
    "a green circle moves up on a pink background",
    "an orange square moves down on a white background",
)
LARGEST_ERROR = 0.15  # root of the mean square, of colours in -1…1


def error_of(tiny, prompt, seed, **size):
    """How far the pictures of the last step's latents are from the clip's colours."""
    latent = tiny.sample(prompt, tiny.empty(**size), seed=seed)
    samples, frames = latent["samples"], tiny.decode(latent)
    groups = tiny.vae.first_stage_model.counting.groups(len(frames))
    previewer = previewer_of(tiny.model)
    shown = torch.stack([shown_by(previewer, samples) for _ in groups])
    return float(2 * (shown - cells_of_video(frames, groups, *samples.shape[3:])).square().mean().sqrt())


def test_previews_have_the_colors_of_the_clip(tiny, previews):
    errors = {prompt: error_of(tiny, prompt, seed) for seed, prompt in enumerate(PROMPTS)}
    assert max(errors.values()) <= LARGEST_ERROR, errors
    assert len(previews) == 30 * len(PROMPTS)


@pytest.mark.parametrize("size", [{"frames": 34}, {"width": 80, "height": 48}], ids=["34 frames", "wide"])
def test_so_have_those_of_other_sizes(tiny, previews, size):
    assert error_of(tiny, PROMPT, 7, **size) <= LARGEST_ERROR


@pytest.mark.long
def test_previews_of_48_clips(tiny, previews):
    trials = importlib.import_module("opensora_comfy.training.tiny.evaluate").held_out_trials(48)
    errors = torch.tensor([error_of(tiny, trial.text, trial.seed) for trial in trials])
    print(f"previews against decoded clips: {errors.mean():.3f} on average, {errors.max():.3f} at most")
    assert errors.max() <= LARGEST_ERROR


def test_the_picture_moves(tiny, previews):
    """Each step shows the next latent frame, from the first on and again; a new run begins anew."""
    for run in range(2):
        previews.clear()
        latent = tiny.sample(PROMPT, tiny.empty(), seed=run)
        truth = cells_of_video(tiny.decode(latent), tiny.vae.first_stage_model.counting.groups(17), 8, 8)
        assert [picture.shape for picture in previews] == [(8, 8, 3)] * 30
        nearest = [int((truth - torch.from_numpy(picture)).square().mean((1, 2, 3)).argmin()) for picture in previews]
        assert nearest[20:] == [0, 1, 2, 3, 4] * 2


def test_the_page_is_sent_moving_pictures(server):
    """As the server sends them: large enough to be looked at, one latent frame each, in the clip's colours."""
    graph = prompts.text_to_latent(PROMPT, 17) | prompts.shown("sample")
    values = {"seed": 5, "steps": 10, "cfg": 7.0, "sampler_name": "original", "denoise": 1.0}
    graph["sample"] = (
        "OpenSoraSampler",
        {"model": ["model", 0], "positive": ["text", 0], "latent": ["empty", 0], **values},
    )
    sent = []
    result = server.post_prompt(
        prompts.as_prompt(graph), on_event=lambda kind, data: kind == "preview" and sent.append(data)
    )
    assert result.success, result.message
    pictures = [Image.open(io.BytesIO(data[data.index(b"\xff\xd8") :])).convert("RGB") for data in sent]
    assert [picture.size for picture in pictures] == [(512, 512)] * 10
    frames = [Image.open(io.BytesIO(server.view(file))).convert("RGB") for file in result.files()]
    video = torch.stack([torch.from_numpy(numpy.asarray(frame) / 255) for frame in frames])
    truth = cells_of_video(video, pack("model.frames").CHUNKS.groups(17), 8, 8)
    small = [
        torch.from_numpy(numpy.asarray(picture.resize((8, 8), Image.Resampling.BOX)) / 255) for picture in pictures
    ]
    nearest = [int((truth - picture).square().mean((1, 2, 3)).argmin()) for picture in small]
    assert nearest[5:] == [0, 1, 2, 3, 4]


def test_long_clips_are_passed_in_one_run(comfy):
    """Of 120 latent frames 30 steps show every fourth; of 30 every one."""
    for length, expected in ((30, list(range(30))), (120, list(range(0, 120, 4))), (31, list(range(0, 31, 2)))):
        picture = pack("nodes.comfy.latent_formats").VideoLatents().latent_rgb_factors_reshape
        x0 = torch.arange(length).float().view(1, 1, -1, 1, 1).expand(1, 4, length, 2, 2)
        passed = [int(picture(x0)[0, 0, 0, 0, 0]) for _ in range(len(expected) + 1)]
        assert passed == [*expected, 0]


def test_previewers_that_play_the_clip_themselves(tiny):
    """They hand over frames [T, C, H, W], any number of them, and take the factors of what comes back."""
    latent_format = tiny.model.get_model_object("latent_format")
    x0 = tiny.sample(PROMPT, tiny.empty(), seed=1, steps=4)["samples"]
    play, one_by_one = (latent_format.latent_rgb_factors_reshape for _ in range(2))
    frames = play(x0[0].movedim(1, 0))
    assert frames.shape == (5, 4, 8, 8)
    assert all(torch.allclose(frame, one_by_one(x0)[0, :, 0], atol=1e-4) for frame in frames)
    assert torch.allclose(play(x0[0].movedim(1, 0)), frames)  # and nothing was counted


@pytest.mark.parametrize("shape", [(1, 4, 1, 8, 8), (3, 4, 5, 8, 8), (1, 4, 5, 1, 3), (2, 4, 8, 8)])
def test_previews_of_images_and_batches(tiny, previews, shape):
    generator = torch.Generator().manual_seed(0)
    picture = shown_by(previewer_of(tiny.model), torch.randn(shape, generator=generator).half())
    assert picture.shape == (*shape[-2:], 3)


def test_runs_side_by_side_count_for_themselves(tiny):
    latent_format = tiny.model.get_model_object("latent_format")
    first, second = (latent_format.latent_rgb_factors_reshape for _ in range(2))
    x0 = torch.randn(1, 4, 5, 8, 8, generator=torch.Generator().manual_seed(0))
    started = first(x0)
    assert not torch.equal(first(x0), started) and torch.equal(second(x0), started)


@pytest.mark.parametrize("text", ["", "no network", "AAAA", 7], ids=repr)
def test_a_network_that_is_none_costs_the_colors_only(previews, caplog, text):
    """A file of another maker, or of a later version, still loads and previews by its factors."""
    path = pack("nodes.comfy.files").path_of("tiny (bundled)", "diffusion_models", "transformer")
    state_dict, metadata, _ = pack("nodes.comfy.files").read(path, "model_name")
    model = pack("nodes.comfy.loading").model_of(state_dict, metadata | {"latent_rgb_network": text})
    assert "previews are in rough colours" in caplog.text
    assert shown_by(previewer_of(model), torch.zeros(1, 4, 5, 8, 8)).shape == (8, 8, 3)


def test_files_of_earlier_versions_keep_their_colors(comfy):
    """Those with `latent_rgb_mixing`: what the clip's mean adds."""
    path = pack("nodes.comfy.files").path_of("tiny (bundled)", "diffusion_models", "transformer")
    state_dict, metadata, _ = pack("nodes.comfy.files").read(path, "model_name")
    metadata = {key: value for key, value in metadata.items() if key != "latent_rgb_network"}
    latent_format = pack("nodes.comfy.loading").model_of(state_dict, metadata).model.latent_format
    x0 = torch.randn(1, 4, 5, 8, 8, generator=torch.Generator().manual_seed(0))
    mean = x0.mean((2, 3, 4)) @ torch.tensor(metadata["latent_rgb_mixing"])
    assert torch.allclose(latent_format.latent_rgb_factors_reshape(x0)[:, :, 0], x0[:, :, 0] + mean[..., None, None])


def test_a_pinned_first_frame_does_not_stop_the_preview(tiny, previews, monkeypatch):
    image = tiny.decode(tiny.sample(PROMPT, tiny.empty(), seed=1))[:1]
    pinned = tiny.pin(tiny.empty(), image)

    def changes():
        previews.clear()
        tiny.sample(PROMPT, pinned, seed=2)
        return [abs(a - b).mean() for a, b in zip(previews, previews[1:])]

    assert min(changes()[:20]) > 5e-4
    # By itself ComfyUI shows the first frame only, and that one stands still.
    monkeypatch.setattr(tiny.model.get_model_object("latent_format"), "latent_rgb_factors_reshape", None)
    assert max(changes()) == 0


@pytest.fixture
def formats(comfy, monkeypatch):
    """Family → class of latent format, which a test may teach; afterwards all is as it was."""
    colors = pack("nodes.comfy.vae.preview_colors")
    monkeypatch.setattr(colors, "_learned", set())
    for latent_format in colors.FORMATS.values():
        for name in ("latent_rgb_factors", "latent_rgb_factors_bias"):
            monkeypatch.setattr(latent_format, name, getattr(latent_format, name))
    return colors.FORMATS


def test_colors_are_learned_where_a_file_does_not_tell_them(tiny, formats, monkeypatch):
    """Decoding teaches them; the tiny VAE, whose colours are taken away, stands for a file of another maker."""
    latent = tiny.sample(PROMPT, tiny.empty(), seed=1)
    told = formats["vae_v1_2"].latent_rgb_factors
    tiny.decode(latent)
    assert formats["vae_v1_2"].latent_rgb_factors is told  # its file tells them, nothing was learned

    monkeypatch.setattr(tiny.vae.first_stage_model, "opensora", {})
    truth = cells_of_video(tiny.decode(latent), tiny.vae.first_stage_model.counting.groups(17), 8, 8)
    learned = formats["vae_v1_2"]()
    factors, bias = map(torch.tensor, (learned.latent_rgb_factors, learned.latent_rgb_factors_bias))
    shown = (latent["samples"][0].movedim(0, -1) @ factors + bias + 1) / 2
    guess = (latent["samples"][0].movedim(0, -1) @ torch.tensor(told) + 1) / 2
    assert alike(shown, truth) > 0.3 > alike(guess, truth)


def test_every_video_vae_can_teach(tmp_path, formats):
    """The causal VAE of 1.3 with random weights: its own encodings of the test card are what the colours fit."""
    path = write(tmp_path / "vae.safetensors", random_weights(small_causal_vae(), 3), config=VAE_CONFIG)
    vae = pack("nodes.comfy.loading").load_vae(path)
    vae.encode(torch.rand(17, 32, 32, 3))
    learned = formats["vae_v1_3"]
    assert len(learned.latent_rgb_factors) == 16
    colors = pack("nodes.comfy.vae.preview_colors")
    card = colors.test_card(17, colors.CARD_SIDE)
    latents = vae.first_stage_model.encode(card)
    shown = latents.movedim(1, -1) @ torch.tensor(learned.latent_rgb_factors)
    shown = shown + torch.tensor(learned.latent_rgb_factors_bias)
    truth = torch.nn.functional.interpolate(card[:, :, :1], (1, *latents.shape[3:]), mode="area")[:, :, 0]
    assert alike(shown[:, 0].movedim(-1, 1), truth) > 0.2


def test_a_clip_is_not_lost_for_the_colours_of_previews(comfy, tiny, formats, monkeypatch, caplog):
    """Neither by a failure, nor by an interrupt, which stops what comes next."""
    colors, management = pack("nodes.comfy.vae.preview_colors"), comfy.model_management
    vae, before = tiny.vae, formats["vae_v1_2"].latent_rgb_factors
    clip = torch.rand(17, 32, 32, 3)
    expected = vae.encode(clip)
    monkeypatch.setattr(vae.first_stage_model, "opensora", {})

    def fail(*_):
        raise RuntimeError("singular")

    def stop(*_):
        raise management.InterruptProcessingException

    for fit, words in ((fail, "singular"), (lambda *_: ([[float("nan")] * 3] * 4, [0.0] * 3, None), "not numbers")):
        colors._learned.clear()
        monkeypatch.setattr(colors, "fit_colors", fit)
        assert torch.equal(vae.encode(clip), expected) and words in caplog.text
        assert formats["vae_v1_2"].latent_rgb_factors is before
    colors._learned.clear()
    monkeypatch.setattr(colors, "fit_colors", stop)
    assert torch.equal(vae.encode(clip), expected) and not colors._learned
    with pytest.raises(management.InterruptProcessingException):
        management.throw_exception_if_processing_interrupted()
