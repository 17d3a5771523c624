"""Transparency and grey: one rule for every node that takes an IMAGE. What a batch of images leaves out, and 4-D latents."""

import pytest
import torch
from small import pack, run

H, W = 64, 48
FIT = {"resolution": "custom", "aspect_ratio": "auto", "width": 32, "height": 32}


def empty(frames=17):
    return {"samples": torch.zeros(1, 4, 5, H // 8, W // 8), "frames": frames, "width": W, "height": H, "fps": 24.0}


def keyframe(vae, image, latent=None, frame=0):
    node = pack("nodes.keyframe").OpenSoraKeyframe
    return node.execute(latent=latent or empty(), vae=vae, image=image, frame=frame, strength=1.0)


def timeline(vae, image, **others):
    node, text = pack("nodes.timeline").OpenSoraTimeline, '{"keyframes": [{"image": 1, "frame": 0}]}'
    return node.execute(latent=empty(), vae=vae, timeline=text, image_1=image, **others)


def strategy(vae, image):
    node = pack("nodes.mask_strategy").OpenSoraMaskStrategy
    return node.execute(latent=empty(), vae=vae, reference_1=image, strategy="0", align=5)


def encode(vae, image):
    return pack("nodes.codec").OpenSoraVAEEncode.execute(vae=vae, pixels=image, fps=24.0)


def fit(vae, image):
    return pack("nodes.fit_image").OpenSoraFitImage.execute(image=image, **FIT)


TAKE_IMAGES = {"image": keyframe, "image_1": timeline, "reference_1": strategy, "pixels": encode, "image of Fit": fit}


def made(output):
    """The pixels or latents that a node puts out."""
    first = output.result[0]
    return first["samples"] if isinstance(first, dict) else first


@pytest.mark.parametrize("name", TAKE_IMAGES)
def test_transparent_parts_are_laid_over_black_and_that_is_said(vae, caplog, name):
    act, picture = TAKE_IMAGES[name], torch.rand(1, H, W, 3, generator=torch.Generator().manual_seed(1))
    alpha = torch.rand(1, H, W, 1, generator=torch.Generator().manual_seed(2)).round()
    output = act(vae, torch.cat([picture, alpha], -1))
    assert torch.equal(made(output), made(act(vae, picture * alpha)))
    said = f"{name.split()[0]} has transparent parts, which a video has not: they are laid over black"
    assert said in caplog.text
    if name not in ("pixels", "image of Fit"):
        assert said in output.ui["opensora"][0]["lines"]


@pytest.mark.parametrize("name", TAKE_IMAGES)
def test_an_alpha_that_hides_nothing_says_nothing(vae, caplog, name):
    act, picture = TAKE_IMAGES[name], torch.rand(1, H, W, 3)
    assert torch.equal(made(act(vae, torch.cat([picture, torch.ones(1, H, W, 1)], -1))), made(act(vae, picture)))
    assert "transparent" not in caplog.text


@pytest.mark.parametrize("name", TAKE_IMAGES)
def test_grey_is_grey_in_all_three_colors(vae, name):
    act, grey = TAKE_IMAGES[name], torch.rand(1, H, W, 1)
    assert torch.equal(made(act(vae, grey)), made(act(vae, grey.expand(-1, -1, -1, 3))))


@pytest.mark.parametrize("name", TAKE_IMAGES)
@pytest.mark.parametrize("channels", [2, 5])
def test_other_channels_are_refused_in_the_same_words(vae, name, channels):
    with pytest.raises(ValueError, match=f"{name.split()[0]} has {channels} channels; a picture has 3"):
        TAKE_IMAGES[name](vae, torch.rand(1, H, W, channels))


@pytest.mark.parametrize("name", TAKE_IMAGES)
def test_the_tooltip_names_the_rule(comfy, name):
    node = {
        "image": "OpenSoraKeyframe", "image_1": "OpenSoraTimeline", "reference_1": "OpenSoraMaskStrategy",
        "pixels": "OpenSoraVAEEncode", "image of Fit": "OpenSoraFitImage",
    }[name]  # fmt: skip
    schema = next(each for each in pack("nodes").NODES if each.__name__ == node).define_schema()
    pictures = [item for item in schema.inputs if item.get_io_type() == "IMAGE"]
    assert pictures and all("ransparent parts become black" in item.tooltip for item in pictures)


# Batches


def left_out(output):
    return [line for line in output.ui["opensora"][0]["lines"] if "left out" in line]


def test_the_second_of_two_pictures_is_named(vae):
    lines = left_out(keyframe(vae, torch.rand(2, H, W, 3)))
    assert len(lines) == 1 and lines[0].startswith(
        "image at frame 0: left out of its 2 images: 2 (the VAE keeps groups"
    )
    assert left_out(timeline(vae, torch.rand(2, H, W, 3)))[0].startswith(
        "image_1 at frame 0: left out of its 2 images: 2 ("
    )


def test_what_lies_behind_the_end_is_named(vae):
    lines = left_out(keyframe(vae, torch.rand(20, H, W, 3)))
    assert len(lines) == 1 and "left out of its 20 images: 18–20 (the clip ends before)" in lines[0]


def test_images_before_the_first_whole_group_are_named(vae):
    assert "left out of its 7 images: 1–3 (" in left_out(keyframe(vae, torch.rand(7, H, W, 3), frame=2))[0]


@pytest.mark.parametrize("images", [1, 5, 17])
def test_images_that_fill_their_groups_are_all_held(vae, images):
    assert not left_out(keyframe(vae, torch.rand(images, H, W, 3)))


# Latents without frames


def take_latents(vae, model, positive):
    """{input: what gives the node a LATENT}, for every node that takes one."""
    nodes, image = {node.__name__[8:]: node for node in pack("nodes").NODES}, torch.rand(1, H, W, 3)
    run_settings = {"seed": 1, "steps": 1, "cfg": 1.0, "sampler_name": "original"}
    long = {
        "model": model,
        "positive": positive,
        "vae": vae,
        "frames": 17,
        "context": 17,
        "segment": 17,
        **run_settings,
    }
    five = {"samples": torch.zeros(1, 4, 5, H // 8, W // 8), "frames": 17, "width": W, "height": H, "fps": 24.0}
    return {
        "latent of Keyframe": lambda it: keyframe(vae, image, it),
        "latent of Timeline": lambda it: nodes["Timeline"].execute(latent=it, vae=vae, timeline="{}"),
        "latent of MaskStrategy": lambda it: nodes["MaskStrategy"].execute(it, vae, image, "0", 5),
        "latent of FrameStrength": lambda it: nodes["FrameStrength"].execute(it, vae, 0, -1, 1.0),
        "latent of MaskRegion": lambda it: nodes["MaskRegion"].execute(it, vae, torch.ones(1, H, W)),
        "latent of Sampler": lambda it: run(
            nodes["Sampler"], model=model, positive=positive, latent=it, denoise=1.0, **run_settings
        ),
        "latent of Extend": lambda it: run(nodes["Extend"], latent=it, direction="forward", **long),
        "latent of Loop": lambda it: run(nodes["Loop"], latent=it, **long),
        "first of Connect": lambda it: run(nodes["Connect"], first=it, second=five, **long),
        "second of Connect": lambda it: run(nodes["Connect"], first=five, second=it, **long),
        "samples of VAEDecode": lambda it: nodes["VAEDecode"].execute(vae, it),
    }


def test_a_latent_without_frames_is_refused_for_them(vae, model, positive):
    """Such as Stable Diffusion 3's of 16 channels: not for its channels, which the artist has not chosen."""
    for name, act in take_latents(vae, model, positive).items():
        with pytest.raises(ValueError, match="that of an image, which has no frames") as error:
            act({"samples": torch.zeros(1, 16, 8, 6)})
        assert str(error.value).startswith(f"{name.split()[0]} has shape (1, 16, 8, 6)"), name
        assert "channels;" not in str(error.value), name
