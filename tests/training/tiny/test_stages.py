"""The tiny model's batches, latents, calibration and files."""

import random
from dataclasses import replace

import numpy
import pytest
import torch
from opensora_comfy.model import load_vae
from opensora_comfy.model.files import read_file
from opensora_comfy.model.vaes.v1_2 import VideoVAE
from opensora_comfy.training import masks
from opensora_comfy.training.export import export
from opensora_comfy.training.tiny import latents
from opensora_comfy.training.tiny.examples import Rendered, TinyObjective
from opensora_comfy.training.tiny.recipe import EXACT, GUIDANCE, TEACHER_GUIDANCE, VAE
from opensora_comfy.training.tiny.shapes import render
from opensora_comfy.training.tiny.transformer import calibration_loss


@pytest.mark.parametrize(("share", "expected"), [(TEACHER_GUIDANCE / GUIDANCE, 0.0), (1.0, 25.0)])
def test_calibration_wants_the_teachers_result_at_the_default_guidance(share, expected):
    """With captions of ones the teacher's branches are 1 apart; the student's `share` of that."""

    def network(scale):
        def velocity(x, t, caption, frame_mask, **conditions):
            return x + scale * caption.mean((1, 2)).view(-1, 1, 1, 1, 1)

        return velocity

    clean, noise = torch.randn(2, 4, 3, 4, 4), torch.randn(2, 4, 3, 4, 4)
    mask = torch.tensor([[True, False, True], [True, True, True]])
    null, caption, t = torch.zeros(6, 8), torch.ones(2, 4, 8), torch.tensor([500.0, 900.0])
    loss = calibration_loss(network(share), network(1.0), null, clean, noise, t, mask, caption=caption)
    assert loss.tolist() == pytest.approx([expected] * 2, abs=1e-4)


def test_latents_round_trip_through_the_set(tmp_path):
    torch.manual_seed(0)
    vae = VideoVAE(VAE).eval().requires_grad_(False)
    bucket = latents.encode_bucket(vae, numpy.random.default_rng(0), 3, 64, 64, 34)
    assert bucket.latents.shape == (3, 4, 10, 8, 8)
    assert bucket.has_still[:, 0].all()
    assert bucket.has_still[:, -1].all()
    scene = bucket.scenes[0]
    video = render(scene).permute(3, 0, 1, 2)[None] * 2 - 1
    assert torch.allclose(vae.encode(video)[0], bucket.latents[0], atol=1e-3)
    assert torch.allclose(vae.encode(video[:, :, :1])[0, :, 0], bucket.stills[0, :, 0], atol=1e-3)
    last = video[:, :, -1:].repeat(1, 1, 17, 1, 1)
    assert torch.allclose(vae.encode(last)[0, :, 4], bucket.stills[0, :, 9], atol=1e-3)


def test_long_clips_have_ratios_of_their_own():
    def share(frames):
        drawn = masks.draw(TinyObjective().ratios_of(frames), frames, 1000, version=None, rng=random.Random(0))
        return (~drawn[:, :5]).all(1).float().mean()

    assert share(10) > 0.2
    assert share(5) == 0


def test_purple_on_gray_is_drawn_more_often():
    """By the transformer's trainers: four times as often as any other clip of its bucket."""
    bucket = latents.encode_bucket(VideoVAE(VAE), numpy.random.default_rng(0), 4, 48, 80, 17)
    grounds = (("purple", "gray"), ("purple", "white"), ("red", "gray"), ("blue", "pink"))
    bucket.scenes[:] = [replace(bucket.scenes[0], color=color, background=ground) for color, ground in grounds]
    (shares,) = Rendered([bucket], None).row_shares
    assert numpy.allclose(shares, numpy.array([4, 1, 1, 1]) / 7)


def test_exported_files_load(tmp_path):
    vae = VideoVAE(VAE)
    config = {"spatial_norm_groups": 8, "temporal_norm_groups": 8}
    path = export(vae.state_dict(), tmp_path / "vae.safetensors", EXACT, kind="vae", family="vae_v1_2", config=config)
    state_dict, metadata = read_file(path)
    again = load_vae({key: value.float() for key, value in state_dict.items()}, metadata["opensora"]["config"])
    video = torch.rand(1, 3, 17, 16, 16) * 2 - 1
    assert torch.allclose(again.encode(video), vae.eval().encode(video), atol=0.02)
