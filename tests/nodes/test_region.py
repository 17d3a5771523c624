"""Regions: a mask over time at latent resolution, and the surroundings of a region on their way through a run."""

import pytest
import torch
from families import EPSILON, VIDEO, clip, ours, stock_advanced
from small import pack, run

FRAMES, HEIGHT, WIDTH = 34, 64, 48


def video(frames=FRAMES, height=HEIGHT, width=WIDTH, channels=4):
    """A random LATENT of the video VAE 1.2."""
    shape = (1, channels, pack("model.frames").CHUNKS.latent_frames(frames), height // 8, width // 8)
    samples = torch.randn(shape, generator=torch.Generator().manual_seed(4))
    return {"samples": samples, "frames": frames, "fps": 24.0, "height": height, "width": width}


def region(vae, latent, mask):
    return run(pack("nodes.region").OpenSoraMaskRegion, latent=latent, vae=vae, mask=mask)[0]


def masked(vae, mask, **sizes):
    """The noise mask that the node makes: [T', h, w]."""
    return region(vae, video(**sizes), mask)["noise_mask"][0, 0]


# The mask


def test_each_latent_has_the_maximum_of_its_frames_and_pixels(vae):
    mask = torch.rand(FRAMES, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1)) ** 40
    found = masked(vae, mask)
    groups = vae.first_stage_model.counting.groups(FRAMES)
    assert found.shape == (len(groups), 8, 6)
    for index, group in enumerate(groups):
        for row in range(8):
            for column in range(6):
                behind = mask[list(group), 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
                assert found[index, row, column] == behind.max()


def test_one_pixel_of_one_frame_opens_one_latent(vae):
    mask = torch.zeros(FRAMES, HEIGHT, WIDTH)
    mask[20, 63, 15] = 1  # frame 20 of 34: the first chunk has 5 latents, then 17, 18–21
    found = masked(vae, mask)
    assert found.sum() == 1 and found[6, 7, 1] == 1


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (1, HEIGHT, WIDTH)])
def test_one_mask_holds_for_the_whole_clip(vae, shape):
    mask = torch.zeros(shape)
    mask[..., :9, :] = 0.25
    found = masked(vae, mask)
    assert (found[:, :2] == 0.25).all() and (found[:, 2:] == 0).all()


def test_another_size_is_stretched_and_loses_nothing(vae):
    thin = torch.zeros(1, 10 * HEIGHT, 10 * WIDTH)
    thin[0, 0, -1] = 1
    found = masked(vae, thin)
    assert (found[:, 0, 5] == 1).all() and found[0].sum() == 1
    small = torch.zeros(1, 4, 3)
    small[0, 1, 2] = 1  # a quarter of the height and a third of the width
    found = masked(vae, small)
    assert (found[:, 2:4, 4:6] == 1).all() and found[0].sum() == 4
    odd = torch.zeros(1, 5, 5)
    odd[0, 2, 2] = 1  # rows 25.6 to 38.4 and columns 19.2 to 28.8 of the clip: latents that it touches are in
    found = masked(vae, odd)[0]
    assert (found[3:5, 2:4] == 1).all() and found.sum() == 4


def test_pixels_that_the_vae_drops_are_in_no_latent(vae):
    mask = torch.zeros(1, 44, 86)
    mask[:, 40:] = 1
    mask[:, :, 80:] = 1
    assert masked(vae, mask, height=44, width=86).sum() == 0
    mask[:, 39, 79] = 1
    assert masked(vae, mask, height=44, width=86)[0].nonzero().tolist() == [[4, 9]]


def test_the_causal_vae_rounds_up_and_shares_frames(vaes):
    """1.3: 426 pixels are 54 latents, and the frame that two chunks share is in a latent of both."""
    network = vaes["vae_v1_3"].first_stage_model
    assert network.counting.latent_side(426) == 54
    latent = {"samples": torch.zeros(1, 16, 10, 5, 54), "frames": 33, "fps": 24.0, "height": 40, "width": 426}
    mask = torch.zeros(33, 40, 426)
    mask[16, 0, 425] = 1
    found = region(vaes["vae_v1_3"], latent, mask)["noise_mask"][0, 0]
    assert found.nonzero().tolist() == [[4, 0, 53], [5, 0, 53]]


def test_the_image_vae_has_a_mask_for_every_frame(vaes):
    latent = {"samples": torch.zeros(2, 4, 5, 8, 6), "frames": 5, "fps": 8.0, "height": 64, "width": 48}
    mask = torch.zeros(5, 64, 48)
    mask[3, :8] = 1
    found = region(vaes["vae_2d"], latent, mask)["noise_mask"]
    assert found.shape == (2, 1, 5, 8, 6) and found[:, :, 3, 0].min() == 1 and found.sum() == 2 * 6


def test_what_was_kept_stays_kept(vae):
    """The smaller of both masks counts, frame strengths and regions of another node included."""
    first = video()
    own = torch.ones(1, 1, 10, 8, 6)
    own[:, :, 0], own[:, :, 4, :, :2] = 0, 0.5
    latent = {**first, "noise_mask": own, "other": 7}
    mask = torch.ones(FRAMES, HEIGHT, WIDTH)
    mask[:, :16] = 0.25
    found = region(vae, latent, mask)
    expected = own.clone()
    expected[:, :, 1:, :2] = 0.25
    assert torch.equal(found["noise_mask"], expected)
    assert found["other"] == 7 and torch.equal(found["samples"], first["samples"])
    assert torch.equal(latent["noise_mask"][0, 0, 0], torch.zeros(8, 6)) and own[0, 0, 1].min() == 1


def test_the_node_shows_what_it_built(vae):
    mask = torch.zeros(FRAMES, HEIGHT, WIDTH)
    mask[17:, :32] = 1
    output = pack("nodes.region").OpenSoraMaskRegion.execute(latent=video(), vae=vae, mask=mask)
    (report,) = output.ui["opensora"]
    assert [group[2] for group in report["groups"]] == [0] * 5 + [0.5] * 5
    assert any("region" in line for line in report["lines"])


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (torch.ones(17, HEIGHT, WIDTH), ["mask holds 17 masks", "34 frames", "one mask", "or 34"]),
        (torch.ones(0, HEIGHT, WIDTH), ["mask holds 0 masks", "34"]),
        (torch.ones(1, 1, HEIGHT, WIDTH), ["mask has shape (1, 1, 64, 48)", "[frames, height, width]"]),
        (torch.full((HEIGHT, WIDTH), 255.0), ["mask has values from 255 to 255", "0 (keep) to 1"]),
        (torch.full((HEIGHT, WIDTH), torch.nan), ["mask has values from nan"]),
    ],
)
def test_bad_masks_are_refused(vae, mask, words):
    with pytest.raises(ValueError) as error:
        masked(vae, mask)
    assert all(word in str(error.value) for word in words), error.value


def test_latents_of_another_vae_are_refused(vae):
    with pytest.raises(ValueError, match="latent has shape.*4 channels"):
        masked(vae, torch.ones(HEIGHT, WIDTH), channels=16)


# The run

COLUMNS = 3  # of 6 latents across, the left ones are generated


def half_generated(name, value=1.0):
    """A random clip of a family: its left half is generated in all frames but the first, which is kept, and the last,
    which is generated."""
    latent = clip(name, [0.0, 1.0, 1.0, 1.0, 1.0])
    latent["noise_mask"][:, :, 1:-1] = 0.0
    latent["noise_mask"][:, :, 1:-1, :, :COLUMNS] = value
    return latent


def seen_by_the_network(model, run_it):
    """[(x, sigma)] of every call of the network in a run; x in the scale of ComfyUI's samplers."""
    seen = []

    def note(apply, given):
        seen.append((given["input"].clone(), given["timestep"].clone()))
        return apply(given["input"], given["timestep"], **given["c"])

    model = model.clone()
    model.set_model_unet_function_wrapper(note)
    run_it(model)
    return seen


@pytest.mark.parametrize("sampler", ["original", "euler", "dpmpp_2m"])
@pytest.mark.parametrize("name", VIDEO)
def test_the_surroundings_of_a_region_come_out_bit_for_bit(comfy, models, positive, name, sampler):
    latent = half_generated(name)
    runs = [ours(models[name], positive, latent, sampler_name=sampler)]
    if sampler != "original":
        runs.append(stock_advanced(comfy, models[name], positive, latent, sampler=sampler))
    kept = (latent["noise_mask"] == 0).expand_as(latent["samples"])
    for samples in runs:
        assert torch.isfinite(samples).all()
        assert torch.equal(samples[kept], latent["samples"][kept])
        assert (samples - latent["samples"])[~kept].abs().mean() > 0.1


@pytest.mark.parametrize("sampler", ["original", "euler"])
@pytest.mark.parametrize("name", VIDEO)
def test_a_region_is_surrounded_by_noise_of_its_own_level(comfy, models, positive, name, sampler):
    """Whole kept frames are handed over clean; what is kept of a generated frame has the noise of the timestep that
    the network is told for it."""
    model, latent = models[name], half_generated(name)
    noise, samples = comfy.sample.prepare_noise(latent["samples"], 5), latent["samples"]
    seen = seen_by_the_network(model, lambda model: ours(model, positive, latent, sampler_name=sampler))
    assert len(seen) >= 6
    for x, sigma in seen:
        sigma = sigma[:1].view(1, 1, 1, 1, 1)
        if name in EPSILON:
            noised, clean = samples + sigma * noise, samples * (sigma**2 + 1).sqrt()
        else:
            noised, clean = (1 - sigma) * samples + sigma * noise, samples
        around = (slice(None), slice(None), slice(1, samples.shape[2] - 1), slice(None), slice(COLUMNS, None))
        scale = noised[around].abs().max()
        assert (x[:1][around] - noised[around]).abs().max() <= 1e-5 * scale
        assert (noised[around] - clean[around]).abs().max() > 1e-3 * scale
        if name != "stdit3_v1_3":  # whose kept frames are a condition beside x
            assert torch.allclose(x[:1, :, 0], clean[:, :, 0], rtol=1e-6, atol=0)
    assert model.model.regions is None  # nothing of a run stays on the model


@pytest.mark.parametrize("name", VIDEO)
def test_a_partly_held_region_sleeps_with_its_frame(models, positive, name):
    """Until the region wakes its whole frame is clean, as a held frame is; then its surroundings get its noise."""
    latent = half_generated(name, value=0.5)
    seen = seen_by_the_network(models[name], lambda model: ours(model, positive, latent, steps=10))
    around = [x[:1, :, 1:-1, :, COLUMNS:] for x, sigma in seen]
    scales = [(sigma[0] ** 2 + 1).sqrt() if name in EPSILON else 1.0 for x, sigma in seen]
    clean = latent["samples"][:, :, 1:-1, :, COLUMNS:]
    asleep = [torch.allclose(x, clean * scale, rtol=1e-6, atol=0) for x, scale in zip(around, scales)]
    assert asleep[0] and not asleep[-1]
    first = asleep.index(False)
    assert not any(asleep[first:]), asleep


def test_a_region_sees_its_surroundings(models, positive):
    """Other kept pixels of the same frame change what is generated beside them."""
    one = half_generated("stdit3")
    other = {**one, "samples": one["samples"].clone()}
    other["samples"][:, :, 1:-1, :, COLUMNS:] *= -1
    first, second = (ours(models["stdit3"], positive, latent)[:, :, 1:-1, :, :COLUMNS] for latent in (one, other))
    assert (first - second).abs().max() > 1e-3
