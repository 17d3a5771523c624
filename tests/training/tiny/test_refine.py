"""Refining the tiny VAE: the worst kinds are drawn most, the whole network learns, its normalisation stays."""

from dataclasses import replace

import numpy
import torch
from opensora_comfy.model.vaes.v1_2 import VideoVAE
from opensora_comfy.training.tiny import painting, refine
from opensora_comfy.training.tiny.hardest import Hardest
from opensora_comfy.training.tiny.recipe import VAE
from opensora_comfy.training.tiny.shapes import sample_scene


def test_what_is_painted_worst_is_drawn_most():
    good = sample_scene(numpy.random.default_rng(0))
    bad = replace(good, color="purple" if good.color != "purple" else "red")
    hardest, rng = Hardest(), numpy.random.default_rng(0)
    hardest.saw([good, bad], torch.tensor([0.1, 0.9]))
    drawn = [hardest.choose([good, bad], 1, rng).item() for _ in range(1000)]
    assert 860 < sum(drawn) < 940
    hardest.saw([bad] * 100, torch.full((100,), 0.1))
    drawn = [hardest.choose([good, bad], 1, rng).item() for _ in range(1000)]
    assert 440 < sum(drawn) < 560


def test_the_whole_network_learns_and_its_latents_stay_near(tmp_path, monkeypatch):
    torch.manual_seed(0)
    start = VideoVAE(VAE)
    moved = {}
    for anchor in (0.0, 1000.0):
        monkeypatch.setattr(refine, "ANCHOR", anchor)
        vae = VideoVAE(VAE)
        vae.load_state_dict(start.state_dict())
        vae = refine.refine(tmp_path / str(anchor), vae, steps=3)
        changed = {
            key.split(".")[0:3][-1]
            for key, value in vae.state_dict().items()
            if not torch.equal(value, start.state_dict()[key])
        }
        assert {"encoder", "decoder"} <= changed
        assert torch.equal(vae.shift, start.shift) and torch.equal(vae.scale, start.scale)
        frames = torch.rand(1, 3, 17, 48, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
        with torch.no_grad():
            moved[anchor] = (vae.encode(frames) - start.encode(frames)).square().mean()
    assert moved[1000.0] < 0.9 * moved[0.0]


def test_contours_between_equally_bright_colours_weigh_as_much():
    """Purple on gray is as bright as its ground: only single channels show the outline."""
    purple, gray = (torch.tensor(colour).view(1, 3, 1, 1) / 127.5 - 1 for colour in ((150, 50, 190), (128, 128, 128)))
    frames = torch.cat([purple.expand(1, 3, 8, 8), gray.expand(1, 3, 8, 8)], 3)
    weights = painting.edge_weights(frames)[0, 0, 4]
    assert weights[8] > 2.5 and weights[0] == weights[15] == 1


def test_painted_clips_are_to_show_the_clips_that_they_were_painted_from(tmp_path, monkeypatch):
    for name, share in {"IMAGES": 0, "STILLS": 0, "PAINTED": 1}.items():
        monkeypatch.setattr(refine, name, share)
    encoded, targets, rendered = [], [], []
    encode, loss, render = VideoVAE.encode, refine.painting_loss, refine.render_all
    monkeypatch.setattr(VideoVAE, "encode", lambda vae, frames: (encoded.append(frames), encode(vae, frames))[1])
    monkeypatch.setattr(refine, "painting_loss", lambda vae, z, x: (targets.append(x), loss(vae, z, x))[1])
    monkeypatch.setattr(refine, "render_all", lambda scenes: (rendered.append(render(scenes)), rendered[-1])[1])
    torch.manual_seed(0)
    refine.refine(tmp_path, VideoVAE(VAE), steps=1)
    held, shown = encoded
    assert torch.equal(held, rendered[0]) and torch.equal(targets[0], rendered[0])
    assert shown.shape == held.shape and (shown - held).abs().mean() > 0.1 and shown.abs().max() <= 1


def test_a_still_is_one_frame_of_its_clip(tmp_path, monkeypatch):
    for name, share in {"IMAGES": 0, "STILLS": 1, "PAINTED": 0}.items():
        monkeypatch.setattr(refine, name, share)
    encoded, encode = [], VideoVAE.encode
    monkeypatch.setattr(VideoVAE, "encode", lambda vae, frames: (encoded.append(frames), encode(vae, frames))[1])
    torch.manual_seed(0)
    refine.refine(tmp_path, VideoVAE(VAE), steps=1)
    assert all(torch.equal(frames, frames[:, :, :1].expand_as(frames)) for frames in encoded)
