"""The bundled tiny model, through the nodes at default settings: it does what held-out captions say."""

import json

import pytest
import torch
from opensora_comfy.model import load_vae
from opensora_comfy.model.files import read_file
from opensora_comfy.training.tiny.evaluate import held_out_trials, in_between_scores, score
from opensora_comfy.training.tiny.painting import psnr
from opensora_comfy.training.tiny.recipe import BUNDLED
from opensora_comfy.training.tiny.shapes import render
from opensora_comfy.training.tiny.vae import held_out_psnr


@pytest.fixture(scope="module")
def generate(tiny):
    """A function (trial, pin_ends=False, **sampler) -> video [T, H, W, 3]: the graph of the templates at default values."""

    def generate(trial, pin_ends=False, **settings):
        latent = tiny.empty()
        if pin_ends:
            truth = render(trial.scene)
            for frame in (0, -1):
                latent = tiny.pin(latent, truth[frame][None], frame)
        return tiny.decode(tiny.sample(trial.text, latent, seed=trial.seed, **settings))

    return generate


def assert_scores(found, least):
    print(json.dumps(found))
    missed = {name: (found[name], least[name]) for name in least if found[name] < least[name]}
    assert not missed, f"(found, asked for): {missed}"


def test_follows_held_out_captions(generate):
    """A quick look at the first 20, with room for their small number; the long test holds the goals."""
    trials = held_out_trials(20)
    videos = [generate(trial) for trial in trials]
    assert all(video.shape == (17, 64, 64, 3) for video in videos)
    assert_scores(score(videos, trials), {"color": 0.9, "background": 0.9, "motion": 0.85, "shape": 0.7, "all": 0.65})


def test_fills_in_between_two_pinned_frames(generate):
    pairs, kept = [], []
    for trial in [t for t in held_out_trials(24, seed=77) if t.scene.motion != "still"][:8]:
        video, truth = generate(trial, pin_ends=True), render(trial.scene)
        pairs.append(in_between_scores(video, truth))
        kept += [psnr(video[frame][None], truth[frame][None], 1) for frame in (0, -1)]
    ours, fades = torch.tensor(pairs).mean(0).tolist()
    found = {"in_between": ours, "over_cross_fade": ours - fades, "kept": sum(kept) / len(kept), "least": min(kept)}
    # Pinned latents are exact; decoded, the last of a chunk also shows a little of its generated neighbours.
    assert_scores(found, {"in_between": 26, "over_cross_fade": 3, "kept": 30, "least": 26})


def test_the_vae_reproduces_held_out_clips():
    state_dict, metadata = read_file(BUNDLED / "vae.safetensors")
    vae = load_vae({key: value.float() for key, value in state_dict.items()}, metadata["opensora"]["config"])
    assert held_out_psnr(vae, count=12) >= 32


def test_the_files_are_small_and_say_what_they_are():
    files = sorted(BUNDLED.glob("*.safetensors"))
    assert [file.stem for file in files] == ["text_encoder", "transformer", "vae"]
    assert sum(file.stat().st_size for file in files) <= 20_000_000
    for file in files:
        about = read_file(file)[1]["opensora"]
        assert about["kind"] == file.stem
        assert about["made_for"] == {"height": 64, "width": 64, "num_frames": 17, "fps": 24}


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_scores_on_128_held_out_captions(generate):
    trials = held_out_trials(128)
    found = score([generate(trial) for trial in trials], trials)
    assert_scores(found, {"color": 0.98, "background": 0.98, "motion": 0.95, "shape": 0.90, "all": 0.85})


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_scores_on_48_in_betweens(generate):
    trials = [t for t in held_out_trials(96, seed=77) if t.scene.motion != "still"][:48]
    pairs = torch.tensor([in_between_scores(generate(trial, pin_ends=True), render(trial.scene)) for trial in trials])
    ours, fades = pairs.mean(0).tolist()
    found = {
        "in_between": ours,
        "over_cross_fade": ours - fades,
        "gains": (pairs[:, 0] - pairs[:, 1] >= 3).float().mean(),
    }
    assert_scores({name: float(value) for name, value in found.items()}, {"in_between": 26, "over_cross_fade": 3})
