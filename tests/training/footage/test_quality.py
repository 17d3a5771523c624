"""Sharpness, exposure and colour: what is spoilt is below what it was made of."""

import numpy
import pytest
import torch
from moved import frame_of, frames_of, looked_at, scored
from opensora_comfy.training.data import h264, media
from opensora_comfy.training.data.footage.measures.quality import (
    Quality,
    brought_down,
    colorfulness,
    exposure,
    sharpness,
)
from PIL import Image, ImageFilter

CLIPS = ("bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4", "b.mp4", "world.mp4")


def scored_file(path):
    quality = Quality()
    return scored(quality, frames_of(path, quality.frames(media.probe(path).frames, 25)))


def blurred(frames, radius):
    return [numpy.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(radius))) for frame in frames]


def test_a_distorted_clip_is_below_its_original(footage):
    pristine, distorted = (
        scored_file(footage / f"carphone_{name}.mp4")["sharpness"] for name in ("pristine", "distorted")
    )
    assert distorted < pristine - 0.05


@pytest.mark.parametrize("name", CLIPS)
def test_blurred_copies_are_below_their_original(footage, name):
    frames = frames_of(footage / name, [0, 20, 40])
    scores = [looked_at(Quality(), blurred(frames, radius))["sharpness"] for radius in (0, 0.8, 1.5, 3)]
    assert scores == sorted(scores, reverse=True) and scores[0] > scores[1] + 0.02


def test_compression_takes_sharpness(footage, tmp_path, monkeypatch):
    frames = numpy.stack(frames_of(footage / "bikes.mp4", range(12)))
    scores = []
    for crf in ("14", "35", "48"):
        monkeypatch.setitem(h264.QUALITY, "crf", crf)
        scores.append(scored_file(h264.write(tmp_path / f"{crf}.mp4", frames, 25))["sharpness"])
    assert scores[0] > scores[1] + 0.05 > scores[2] + 0.05


def test_size_matters_little(footage):
    frame = frame_of(footage / "bigbuckbunny.mp4")
    large = numpy.asarray(Image.fromarray(frame).resize((2560, 1440), Image.Resampling.BICUBIC))
    for one, other in zip(scored(Quality(), [frame]).values(), scored(Quality(), [large]).values()):
        assert other == pytest.approx(one, rel=0.03)
    assert brought_down(large).shape == (360, 640, 3) and brought_down(frame[:200]).shape == (200, 1280, 3)


def test_contrast_and_margins_matter_little(footage):
    luma = brought_down(frame_of(footage / "bikes.mp4")).mean(-1)
    wide = torch.zeros(luma.shape[0] + 100, luma.shape[1])
    wide[50:-50] = luma
    assert sharpness(luma / 4) == pytest.approx(sharpness(luma), rel=1e-3)
    assert sharpness(wide) == pytest.approx(sharpness(luma), rel=0.15)


def test_by_hand():
    assert sharpness(torch.full((20, 20), 7.0)) == 0 and sharpness(torch.zeros(1, 30)) == 0
    noise = 255 * torch.rand(100, 100, generator=torch.Generator().manual_seed(0))
    assert sharpness(noise) > 0.85 > 0.2 > sharpness(torch.arange(100.0).expand(100, 100))
    assert exposure(torch.full((4, 4), 127.5)) == pytest.approx(1)
    assert exposure(torch.full((4, 4), 255.0)) == pytest.approx(numpy.exp(-0.25 / 0.08))
    grey = torch.full((4, 4, 3), 90.0)
    assert colorfulness(grey) == 0
    halves = torch.zeros(4, 4, 3)
    halves[:2, :, 0], halves[2:, :, 2] = 255, 255  # red over blue: rg 255 and 0, yb 127.5 and -255
    spread, mean = numpy.hypot(127.5, 191.25), numpy.hypot(127.5, -63.75)
    assert colorfulness(halves) == pytest.approx(spread + 0.3 * mean)


def test_frames_are_three_of_a_shot_and_one_of_a_picture():
    assert Quality().frames(250, 25) == [25, 125, 225] and Quality().frames(2, 25) == [0, 1]
    assert Quality().frames(1, 120) == [0]
    frames = [numpy.full((8, 8, 3), level, numpy.uint8) for level in (0, 127)]
    alone = [scored(Quality(), [frame])["exposure"] for frame in frames]
    assert scored(Quality(), frames)["exposure"] == pytest.approx(sum(alone) / 2)
    assert Quality().score([], 25) == {"sharpness": None, "exposure": None, "colorfulness": None}
    assert Quality.name not in ("aes", "aesthetic") and Quality.columns == ("sharpness", "exposure", "colorfulness")


@pytest.mark.parametrize("shape", [(4, 640, 3), (640, 4, 3), (1, 1, 3), (2, 2, 3)])
def test_odd_frames_are_answered_for(shape):
    frame = numpy.random.default_rng(0).integers(0, 255, shape, dtype=numpy.uint8)
    assert all(numpy.isfinite(value) for value in scored(Quality(), [frame]).values())
