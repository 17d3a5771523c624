"""Editing with the bundled tiny model: a held-out clip recoloured whole, in a region that moves, and in its second half."""

import pytest
import torch
from opensora_comfy.training.tiny.evaluate import psnr
from opensora_comfy.training.tiny.judge import judge
from opensora_comfy.training.tiny.shapes import Scene, coverage, is_held_out, render
from tiny import run, track

SIZE, RADIUS, TRAVEL = 64, 13.0, 22.0
SCENE = Scene("circle", "red", "white", "left", RADIUS, (43.0, 25.0), TRAVEL / 16, SIZE, SIZE, 17)
PROMPT = "a green circle moves left on a white background"


@pytest.fixture(scope="module")
def clip(tiny):
    """(true frames, their LATENT, the VAE's own picture of them)."""
    assert is_held_out(SCENE.color, SCENE.shape, SCENE.motion)
    truth = render(SCENE)
    latent = tiny.encode(truth)
    return truth, latent, tiny.decode(latent)


def astray(video, truth):
    """How far the shape is from where it was, in pixels, mean over the frames."""
    return float((torch.stack(track(video)[:2]) - torch.stack(track(truth)[:2])).norm(dim=0).mean())


def share_of_green(video, truth):
    """How far the colour inside the shape has gone from red (0) to green (1), for each frame: [T]."""
    inside = (coverage(SCENE.shape, *SCENE.path(), SIZE, SIZE) > 0.99)[: len(truth)]
    colors = torch.stack([frame[where].mean(0) for frame, where in zip(video, torch.from_numpy(inside))])
    return (colors[:, 1] - colors[:, 0] + 0.7) / 1.2  # from (220, 40, 40) to (40, 170, 60)


def test_less_denoise_keeps_more_of_a_clip(tiny, clip):
    """At 0.5 the prompt decides the colour and the clip place, size and motion; at 0.9 the place is lost."""
    truth, latent, _ = clip
    half, most = (tiny.decode(tiny.sample(PROMPT, latent, denoise=denoise)) for denoise in (0.5, 0.9))
    found = {"0.5": astray(half, truth), "0.9": astray(most, truth)}
    print(found, judge(half), judge(most))
    verdict = judge(half)
    assert (verdict.color, verdict.background, verdict.motion) == ("green", "white", "left")
    assert found["0.5"] < 4 and found["0.5"] < found["0.9"] - 1


def test_a_region_over_time_changes_alone(tiny, clip):
    """Outside, latents are the same; a decoder sees the region's neighbours too, by less than shows."""
    truth, latent, _ = clip
    x, y, radius = SCENE.path()
    mask = torch.from_numpy(coverage(SCENE.shape, x, y, radius + 3, SIZE, SIZE)).ceil()
    region = run("OpenSoraMaskRegion", latent=latent, vae=tiny.vae, mask=mask)[0]
    held = (region["noise_mask"] == 0).expand_as(latent["samples"])
    assert 0.2 < held.float().mean() < 0.9
    groups = tiny.vae.first_stage_model.counting.groups(len(truth))
    latents = [next(index for index, group in enumerate(groups) if frame in group) for frame in range(len(truth))]
    outside = region["noise_mask"][0, 0, latents].repeat_interleave(8, 1).repeat_interleave(8, 2) == 0
    for seed in range(3):
        edited = tiny.sample(PROMPT, region, denoise=0.6, seed=seed)
        assert torch.equal(edited["samples"][held], latent["samples"][held])
        video = tiny.decode(edited)
        found, green = psnr(video[outside], truth[outside]), share_of_green(video, truth)
        print({"seed": seed, "outside": found, "green": green.mean().item(), "astray": astray(video, truth)})
        assert found >= 42
        assert green.min() > 0.6 and judge(video).motion == "left" and astray(video, truth) < 4


def test_strength_by_range_holds_one_half_and_changes_the_other(tiny, clip):
    truth, latent, rebuilt = clip
    ranges = {(0, 8): 1.0, (9, -1): 0.3}
    for (first, last), strength in ranges.items():
        given = {"first_frame": first, "last_frame": last, "strength": strength}
        latent = run("OpenSoraFrameStrength", latent=latent, vae=tiny.vae, **given)[0]
    edited = tiny.sample(PROMPT, latent)
    assert torch.equal(edited["samples"][:, :, :3], latent["samples"][:, :, :3])
    video = tiny.decode(edited)
    held, own = psnr(video[:9], truth[:9]), psnr(rebuilt[:9], truth[:9])
    green = share_of_green(video, truth)
    print({"held": held, "the VAE's own": own, "green": green.tolist(), "astray": astray(video, truth)})
    assert held >= own - 1 and green[:9].max() < 0.2
    # Beside frames that are kept red the model turns the colour over rather than at once.
    assert green[-4:].mean() > 0.4 and astray(video, truth) < 3
