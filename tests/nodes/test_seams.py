"""The end of a bridge, encoded until it comes out as the frame that it leads to."""

from types import SimpleNamespace

import pytest
import torch
from small import pack

LAST = 4  # frames of the second latent; the first one holds the frame before


@pytest.fixture
def seams(monkeypatch):
    """nodes/seams with a VAE whose latents are pictures; `seams.paints` says what becomes of them when decoded."""
    module = pack("nodes.seams")
    monkeypatch.setattr(module, "paints", lambda picture: picture, raising=False)

    def decode(vae, latents, frames):
        pictures = module.paints(latents[0].permute(1, 2, 3, 0))
        return torch.cat([pictures[:1], pictures[1:].expand(frames - 1, -1, -1, -1)])

    def encode(vae, pixels):
        return pixels[[0, -1]].permute(3, 0, 1, 2)[None]

    monkeypatch.setattr(module, "video_vae", SimpleNamespace(decode=decode, encode=encode))
    return module


def led(seams, goal):
    """What the led latent is painted as, and the goal as a picture."""
    goal = torch.full((8, 6, 3), goal)
    latent = seams.led_to(goal, None, torch.full((1, 3, 2, 8, 6), 0.2), 1 + LAST, LAST)
    assert latent.shape == (3, 8, 6)
    return seams.paints(latent.permute(1, 2, 0)[None])[0], goal


def test_what_is_painted_as_it_is_meets_the_goal_at_once(seams):
    painted, goal = led(seams, 0.7)
    assert torch.equal(painted, goal)


@pytest.mark.parametrize("loss", [0.8, 0.9, 1.1])
def test_what_a_vae_loses_is_made_up_for(seams, loss):
    seams.paints = lambda picture: loss * picture
    painted, goal = led(seams, 0.7)
    once = (loss * goal - goal).abs().mean()
    assert (painted - goal).abs().mean() < 0.3 * once


def test_an_attempt_that_comes_less_close_is_not_kept(seams):
    """This VAE answers a correction with its opposite: only the first attempt is any good."""
    seams.paints = lambda picture: 0.6 - 3 * (picture - 0.7)
    painted, goal = led(seams, 0.7)
    assert torch.allclose(painted, torch.full_like(goal, 0.6))


def test_the_latents_that_come_in_stay_as_they_are(seams):
    latents = torch.full((1, 3, 2, 8, 6), 0.2)
    seams.led_to(torch.full((8, 6, 3), 0.7), None, latents, 1 + LAST, LAST)
    assert (latents == 0.2).all()
