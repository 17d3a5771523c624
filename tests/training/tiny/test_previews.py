"""The colours of previews are learned from what a pipeline samples, and written beside tensors that stay as they are."""

from types import SimpleNamespace

import numpy
import pytest
import torch
from opensora_comfy.model.colors import ColorNetwork, colors_behind, fit_colors
from opensora_comfy.model.files import read_file
from opensora_comfy.model.frames import CHUNKS
from opensora_comfy.training.export import export, tell_more
from opensora_comfy.training.tiny.previews import fit_network, sampled

SCENE = SimpleNamespace(num_frames=17, height=64, width=64)


class Pipeline:
    """Samples noise; its VAE's colours are those of a latent against the clip's mean, as behind a group norm."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)
        self.vae = SimpleNamespace(decode=self.decode, counting=CHUNKS)

    def sample(self, trials):
        scene = trials[0].scene
        shape = (len(trials), 4, CHUNKS.latent_frames(scene.num_frames), scene.height // 8, scene.width // 8)
        offsets = torch.randn(*shape[:2], 1, 1, 1, generator=self.generator)
        return offsets + torch.randn(shape, generator=self.generator)

    def decode(self, latents, frames):
        mean = latents.mean(dim=(2, 3, 4), keepdim=True)
        colors = torch.tanh(latents[:, :3] * mean[:, 1:])
        counts = torch.tensor([len(group) for group in CHUNKS.groups(frames)])
        return colors.repeat_interleave(counts, dim=2).repeat_interleave(8, dim=3).repeat_interleave(8, dim=4)


def error(latents, colors, factors, bias):
    shown = latents.movedim(1, -1) @ torch.tensor(factors) + torch.tensor(bias)
    return float((shown - colors.movedim(1, -1)).square().mean().sqrt())


def test_the_network_learns_what_factors_cannot(tmp_path):
    pipeline, clips = Pipeline(), Pipeline().sample([SimpleNamespace(scene=SCENE)] * 24)
    video = pipeline.decode(clips, 17)
    factors, bias, _ = fit_colors(clips, video, CHUNKS.groups(17))
    network = fit_network(tmp_path, pipeline, factors, bias, clips=176, steps=400)
    colors = colors_behind(clips, video, CHUNKS.groups(17))
    again = ColorNetwork.from_text(network.to_text(), 4)
    assert error(again(clips), colors, factors, bias) < 0.5 * error(clips, colors, factors, bias)


def test_what_is_sampled_has_every_size():
    shapes = [tuple(latents.shape[1:]) for latents, _ in sampled(Pipeline(), 176, numpy.random.default_rng(0))]
    assert {(4, 5, 8, 8), (4, 5, 6, 10), (4, 5, 10, 6), (4, 10, 8, 8), (4, 1, 8, 8)} == set(shapes)


def test_telling_more_leaves_the_tensors(tmp_path):
    module = torch.nn.Linear(5, 3)
    first = export(module.state_dict(), tmp_path / "first.safetensors", kind="transformer", family="stdit3")
    second = tell_more(first, tmp_path / "second.safetensors", latent_rgb_network="text")
    (before, said), (after, says) = read_file(first), read_file(second)
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert all(before[key].dtype == after[key].dtype for key in before)
    assert says["opensora"] == said["opensora"] | {"latent_rgb_network": "text"}


@pytest.mark.parametrize("text", ["", "%", ColorNetwork(3, 8).to_text()], ids=["empty", "no base64", "other channels"])
def test_a_text_that_is_no_network_is_refused(text):
    with pytest.raises(ValueError, match="latent_rgb_network is no network of preview colours"):
        ColorNetwork.from_text(text, 4)
