"""The judge of clips and the contact sheet."""

import numpy
import pytest
import torch
from opensora_comfy.training.contact_sheet import contact_sheet, pictures, save_small
from opensora_comfy.training.tiny.captions import caption
from opensora_comfy.training.tiny.judge import ATTRIBUTES, judge
from opensora_comfy.training.tiny.shapes import RESOLUTIONS, Scene, render, sample_scene
from PIL import Image


def blurred(video, rng, sigma=0.7, noise=0.02):
    """The clip as a small VAE might give it back."""
    kernel = torch.exp(-(torch.arange(-3.0, 4) ** 2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).repeat(3, 1, 1)
    planes = torch.nn.functional.pad(video.permute(0, 3, 1, 2), (3, 3, 3, 3), mode="replicate")
    planes = torch.nn.functional.conv2d(planes, kernel[:, :, None], groups=3)
    planes = torch.nn.functional.conv2d(planes, kernel[..., None], groups=3)
    grain = torch.from_numpy(rng.normal(0, noise, planes.shape).astype(numpy.float32))
    return (planes + grain).clamp(0, 1).permute(0, 2, 3, 1)


def accuracy(change, per_kind):
    rng = numpy.random.default_rng(5)
    right = []
    for split in ("train", "held_out"):
        for height, width in RESOLUTIONS:
            for frames in (17, 34):
                for _ in range(per_kind):
                    scene = sample_scene(rng, height, width, frames, split)
                    right.append(list(judge(change(render(scene), rng)).agrees(scene).values()))
    return numpy.array(right)


def test_right_on_ground_truth():
    right = accuracy(lambda video, rng: video, 45)
    assert len(right) >= 500 and right.all(1).mean() >= 0.99, dict(zip(ATTRIBUTES, right.mean(0), strict=True))


def test_right_on_blurred_and_noisy_clips():
    right = accuracy(blurred, 15)
    assert right.all(1).mean() >= 0.98, dict(zip(ATTRIBUTES, right.mean(0), strict=True))


def test_images_have_no_motion():
    rng = numpy.random.default_rng(6)
    for _ in range(30):
        scene = sample_scene(rng, 64, 64, 1)
        assert all(judge(render(scene)).agrees(scene).values())


@pytest.mark.parametrize("value, background", [(0.05, "black"), (0.95, "white"), (0.5, "gray")])
def test_a_blank_clip_shows_nothing(value, background):
    verdict = judge(numpy.full((17, 64, 64, 3), value))
    assert (verdict.color, verdict.background, verdict.shape, verdict.motion) == ("none", background, "none", "none")


def test_noise_shows_nothing():
    verdict = judge(numpy.random.default_rng(0).random((17, 64, 64, 3)))
    assert (verdict.color, verdict.shape, verdict.motion) == ("none", "none", "none")


def clip(*scenes):
    return torch.cat([render(scene) for scene in scenes])


def still(shape="square", x=32.0, y=32.0, size=12.0, frames=1):
    return Scene(shape, "red", "white", "still", size, (x, y), 0.0, 64, 64, frames)


def test_a_wrong_outline_is_no_shape():
    bar = render(still(frames=17)).clone()
    bar[:, 26:] = bar[0, 0, 0]  # only the upper part of the square is left: a bar
    assert judge(bar).shape == "none" and judge(render(still(frames=17))).shape == "square"


def test_a_second_shape_is_no_shape():
    both = clip(*[still(x=16, size=9)] * 17).minimum(clip(*[still(x=48, size=9)] * 17))
    assert judge(both).shape == "none"


def test_a_colour_off_the_palette_is_none():
    video = render(still(frames=17)).clone()
    video[(video[..., 1] < 0.5)] = torch.tensor([0.0, 0.8, 0.8])
    assert judge(video).color == "none"


def test_an_unsteady_track_is_no_motion():
    track = [20, 44] * 8 + [20]
    assert judge(clip(*[still(x=float(x)) for x in track])).motion == "none"


def test_a_diagonal_is_no_motion():
    assert judge(clip(*[still(x=20.0 + step, y=20.0 + step) for step in range(17)])).motion == "none"
    assert judge(clip(*[still(x=20.0 + step) for step in range(17)])).motion == "right"


def test_a_slight_drift_is_neither_still_nor_motion():
    assert judge(clip(*[still(x=30 + 0.4 * step) for step in range(17)])).motion == "none"


def test_a_shape_that_vanishes_is_none():
    video = render(still(frames=17)).clone()
    video[12:] = video[0, 0, 0]
    verdict = judge(video)
    assert (verdict.shape, verdict.motion) == ("none", "none")


def test_a_wrong_array_is_refused():
    with pytest.raises(ValueError, match=r"\(3, 17, 64, 64\)"):
        judge(numpy.zeros((3, 17, 64, 64)))


def test_contact_sheet(tmp_path):
    rng = numpy.random.default_rng(7)
    videos, texts = [], []
    for index in range(12):
        scene = sample_scene(rng, *RESOLUTIONS[index % 3 if index > 8 else 0], 17)
        videos.append(blurred(render(scene), rng, noise=0.01))
        texts.append(caption(scene, rng))
    path = tmp_path / "sheet.png"
    save_small(contact_sheet(list(map(pictures, videos)), texts), path)
    assert path.stat().st_size < 450_000
    with Image.open(path) as sheet:
        assert sheet.format == "PNG" and sheet.width > 3 * 4 * 128 and sheet.height > 4 * 128
        first = numpy.asarray(sheet.convert("RGB").crop((0, 0, sheet.width // 3, sheet.height // 4)), numpy.float32)
    ground = numpy.asarray(videos[0][0, 0, 0]) * 255
    assert (abs(first - ground).max(-1) < 12).mean() > 0.1  # the clip's background fills part of its cell
    with pytest.raises(ValueError, match="12 clips and 1 captions"):
        contact_sheet(list(map(pictures, videos)), texts[:1])
