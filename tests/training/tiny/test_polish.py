"""Polishing the tiny VAE: clips sampled again stay themselves where frames are kept, and only the decoders learn."""

from dataclasses import replace
from functools import partial

import numpy
import torch
from opensora_comfy.model.transformers.stdit3 import STDiT3
from opensora_comfy.model.vaes.v1_2 import VideoVAE
from opensora_comfy.training.tiny import latents, polish
from opensora_comfy.training.tiny.hardest import Hardest
from opensora_comfy.training.tiny.recipe import TRANSFORMER, VAE
from opensora_comfy.training.tiny.transformer import begin


class Captions:
    """Stands where the text encoder does: the same features for every caption."""

    def captions(self, texts):
        return torch.ones(len(texts), 4, TRANSFORMER.caption_channels), torch.ones(len(texts), 4)


def setup():
    torch.manual_seed(0)
    vae, transformer = VideoVAE(VAE), begin(STDiT3(TRANSFORMER)).eval()
    return vae, transformer, latents.encode_bucket(vae, numpy.random.default_rng(0), 4, 48, 80, 17)


def test_clips_are_noised_half_way_and_kept_where_they_are_pinned(monkeypatch):
    _, transformer, bucket = setup()
    rows, rng = numpy.arange(4), numpy.random.default_rng(0)
    monkeypatch.setattr(polish, "BOTH_ENDS", 1.0)
    again = polish.sample_again(transformer, Captions(), bucket, rows, 400.0, rng)
    pinned = torch.where(bucket.has_still[:, None, :, None, None], bucket.stills, bucket.latents)
    for frame in (0, 4):
        either = [
            torch.equal(again[row, :, frame], clip[row, :, frame]) for row in rows for clip in (bucket.latents, pinned)
        ]
        assert sum(either) >= len(rows)
    # The untrained network's velocity is 0, so the noise of the start is still in the frames between.
    assert (again[:, :, 1:4] - bucket.latents[:, :, 1:4]).std() > 0.1


def test_only_the_decoders_learn(monkeypatch, tmp_path):
    vae, transformer, bucket = setup()
    pairs = [(bucket, numpy.arange(4), bucket.latents + 0.1)]
    monkeypatch.setattr(polish, "make_pairs", lambda *arguments: pairs)
    monkeypatch.setattr(polish, "look_around", partial(polish.look_around, count=8))
    before = {key: value.clone() for key, value in vae.state_dict().items()}
    polish.polish(tmp_path, vae, transformer, [bucket], None, steps=2, batch=2)
    changed = {key for key, value in vae.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    parts = ("temporal_vae.decoder.", "temporal_vae.post_quant_conv.", "spatial_vae.module.decoder.")
    assert all(key.startswith(parts) for key in changed)
    assert {part for part in parts if any(key.startswith(part) for key in changed)} == set(parts)


def test_what_is_painted_worst_is_sampled_most(monkeypatch):
    """A kind with nine times the error of the others is one of four here, and is drawn far more often."""
    vae, _, bucket = setup()
    scenes = [replace(bucket.scenes[0], color=color) for color in ("purple", "red", "blue", "green")]
    bucket.scenes[:] = scenes
    monkeypatch.setattr(polish, "sample_again", lambda *arguments: None)
    hardest = Hardest()
    hardest.saw(scenes, torch.tensor([0.9, 0.1, 0.1, 0.1]))
    pairs = polish.make_pairs(None, None, [bucket], 240, hardest, numpy.random.default_rng(0))
    purple = sum(int((rows == 0).sum()) for _, rows, _ in pairs)
    assert len(pairs) == 10 and purple >= 1.7 * 240 / 4
    seen = polish.look_around(vae, [bucket], numpy.random.default_rng(0), count=8).errors
    assert len(seen) >= 3 and min(seen.values()) > 0


def test_encodings_of_painted_clips_are_to_show_their_clips(monkeypatch, tmp_path):
    vae, transformer, bucket = setup()
    blank = torch.zeros(2, 3, 17, 48, 80)
    for name, value in {"SAMPLED": 0, "PAINTED": 1, "NOISE": 0, "paint": lambda *arguments: blank}.items():
        monkeypatch.setattr(polish, name, value)
    monkeypatch.setattr(polish, "make_pairs", lambda *arguments: [(bucket, numpy.arange(4), bucket.latents)])
    monkeypatch.setattr(polish, "look_around", lambda *arguments: Hardest())
    seen, loss = [], polish.painting_loss
    monkeypatch.setattr(polish, "painting_loss", lambda vae, z, x: (seen.append((z, x)), loss(vae, z, x))[1])
    expected = vae.encode(blank).detach()
    polish.polish(tmp_path, vae, transformer, [bucket], None, steps=1, batch=2)
    latents, frames = seen[0]
    assert torch.allclose(latents, expected, atol=1e-6) and (frames - blank).abs().mean() > 0.1
