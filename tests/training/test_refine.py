"""Refining the tiny VAE: the worst kinds are drawn most, the whole network learns, its normalisation stays."""

from dataclasses import replace

import numpy
import torch
from opensora_comfy.model.vae import VideoVAE
from opensora_comfy.training import refine, train_vae
from opensora_comfy.training.hardest import Hardest
from opensora_comfy.training.shapes import sample_scene


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
    start = VideoVAE(train_vae.TINY)
    moved = {}
    for anchor in (0.0, 1000.0):
        monkeypatch.setattr(refine, "ANCHOR", anchor)
        vae = VideoVAE(train_vae.TINY)
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
