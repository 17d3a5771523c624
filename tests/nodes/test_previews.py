"""Previews while sampling: in the colours that the clip will have, and alive when the first frame stands still."""

import numpy
import pytest
import torch
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


def cells_of(picture, count, height, width):
    """The first `count` cells [height, width, 3] of a preview, row by row."""
    rows, columns = picture.shape[0] // height, picture.shape[1] // width
    cells = picture.reshape(rows, height, columns, width, 3).swapaxes(1, 2).reshape(-1, height, width, 3)
    return torch.from_numpy(cells[:count])


def alike(a, b):
    """Pearson's correlation of two tensors' values."""
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


PROMPTS = (
    PROMPT,
    "a blue square stays still on a black background",
    "a yellow triangle grows on a gray background",
    "a green circle moves up on a pink background",
)


def test_the_last_previews_are_the_clips(tiny, previews):
    groups = tiny.vae.first_stage_model.groups(17)
    shown, truth = [], []
    for seed, prompt in enumerate(PROMPTS):
        latent = tiny.sample(prompt, tiny.empty(), seed=seed)
        truth.append(cells_of_video(tiny.decode(latent), groups, 8, 8))
        shown.append(cells_of(previews[-1], len(groups), 8, 8))
    assert len(previews) == 30 * len(PROMPTS)
    shown, truth = torch.stack(shown), torch.stack(truth)
    assert alike(shown, truth) > 0.85
    # Not only alike but of the same brightness: what is on white is shown on white.
    assert (shown - truth).abs().mean() < 0.13


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
    colors = pack("nodes.comfy.preview_colors")
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
    truth = cells_of_video(tiny.decode(latent), tiny.vae.first_stage_model.groups(17), 8, 8)
    learned = formats["vae_v1_2"]()
    factors, bias = map(torch.tensor, (learned.latent_rgb_factors, learned.latent_rgb_factors_bias))
    shown = (latent["samples"][0].movedim(0, -1) @ factors + bias + 1) / 2
    guess = (latent["samples"][0].movedim(0, -1) @ torch.tensor(told) + 1) / 2
    assert alike(shown, truth) > 0.3 > alike(guess, truth)


def test_every_video_vae_can_teach(tmp_path, formats):
    """The causal VAE of 1.3 with random weights: its own encodings of the test card are what the colours fit."""
    path = write(tmp_path / "vae.safetensors", random_weights(small_causal_vae(), 3), config=VAE_CONFIG)
    vae = pack("nodes.comfy.vae").load_vae(path)
    vae.encode(torch.rand(17, 32, 32, 3))
    learned = formats["vae_v1_3"]
    assert len(learned.latent_rgb_factors) == 16
    colors = pack("nodes.comfy.preview_colors")
    card = colors.test_card(17, colors.CARD_SIDE)
    latents = vae.first_stage_model.encode(card)
    shown = latents.movedim(1, -1) @ torch.tensor(learned.latent_rgb_factors)
    shown = shown + torch.tensor(learned.latent_rgb_factors_bias)
    truth = torch.nn.functional.interpolate(card[:, :, :1], (1, *latents.shape[3:]), mode="area")[:, :, 0]
    assert alike(shown[:, 0].movedim(-1, 1), truth) > 0.2


def test_a_clip_is_not_lost_for_the_colours_of_previews(comfy, tiny, formats, monkeypatch, caplog):
    """Neither by a failure, nor by an interrupt, which stops what comes next."""
    colors, management = pack("nodes.comfy.preview_colors"), comfy.model_management
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
