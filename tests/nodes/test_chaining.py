"""Our nodes in chains with ComfyUI's own: pictures, masks, batches, latents on disk, several models and samplers at once."""

from pathlib import Path

import pytest
import torch
from families import clip as family_clip
from families import ours
from small import pack
from stock import stock
from tiny import run, track

PROMPT = "a green square moves down on a pink background"
IMAGES, MASKS, EXTRA_LATENTS = "nodes", "comfy_extras.nodes_mask", "comfy_extras.nodes_latent"


@pytest.fixture(scope="module")
def clip(tiny):
    """(LATENT, its frames) of a generated clip."""
    latent = tiny.sample(PROMPT, tiny.empty(), seed=3, steps=8)
    return latent, tiny.decode(latent)


def test_frames_go_through_image_nodes_and_back(tiny, clip):
    frames = clip[1]
    scaled = stock(IMAGES, "ImageScale", image=frames, upscale_method="lanczos", width=100, height=75, crop="disabled")[
        0
    ]
    inverted = stock(IMAGES, "ImageInvert", image=scaled)[0]
    latent = tiny.encode(stock(IMAGES, "ImageInvert", image=inverted)[0])
    assert (latent["width"], latent["height"], latent["frames"]) == (100, 75, 17)
    assert latent["samples"].shape == (1, 4, 5, 9, 12)  # what is left over of 8 pixels goes
    again = tiny.decode(latent)
    assert again.shape == (17, 72, 96, 3)
    # What was on pink is on pink, and moves as it moved.
    assert (again[:, :4, :4] - frames[:, :4, :4]).abs().mean() < 0.05
    rows, rows_before = track(again)[1], track(frames)[1]
    assert (rows / 72 - rows_before / 64).abs().max() < 0.1
    assert tiny.encode(frames[16:])["frames"] == 1


def test_masks_of_mask_nodes_say_where_to_paint(tiny, clip):
    latent, _ = clip
    mask = stock(MASKS, "SolidMask", value=0.0, width=64, height=64)[0]
    patch = stock(MASKS, "SolidMask", value=1.0, width=24, height=24)[0]
    mask = stock(MASKS, "MaskComposite", destination=mask, source=patch, x=0, y=0, operation="add")[0]
    mask = stock(MASKS, "GrowMask", mask=mask, expand=8, tapered_corners=True)[0]
    masked = run("OpenSoraMaskRegion", latent=latent, vae=tiny.vae, mask=mask)[0]
    made = tiny.sample(PROMPT, masked, seed=5, steps=6)["samples"]
    assert torch.equal(made[..., 5:, :], latent["samples"][..., 5:, :])
    assert not torch.allclose(made[..., :2, :2], latent["samples"][..., :2, :2], atol=1e-2)


def test_a_clip_of_a_batch_is_the_clip_alone(tiny):
    batch = stock(IMAGES, "RepeatLatentBatch", samples=tiny.empty(), amount=3)[0]
    together = tiny.sample(PROMPT, batch, seed=7, steps=4)
    assert together["samples"].shape[0] == 3
    assert (together["samples"][0] - together["samples"][1]).abs().mean() > 0.05
    second = stock(IMAGES, "LatentFromBatch", samples=batch, batch_index=1, length=1)[0]
    alone = tiny.sample(PROMPT, second, seed=7, steps=4)
    assert torch.allclose(alone["samples"][0], together["samples"][1], atol=1e-4)
    frames = tiny.decode(together)
    assert frames.shape == (51, 64, 64, 3)
    assert torch.allclose(frames[17:34], tiny.decode(alone), atol=1e-3)


def test_latent_batch_puts_clips_side_by_side(tiny, clip):
    latent, frames = clip
    other = tiny.sample(PROMPT, tiny.empty(), seed=4, steps=4)
    both = stock(EXTRA_LATENTS, "LatentBatch", samples1=latent, samples2=other)[0]
    assert both["samples"].shape == (2, *latent["samples"].shape[1:])
    assert torch.allclose(tiny.decode(both)[:17], frames, atol=1e-5)


def test_save_and_load_latent_keep_the_tensor_and_the_rest_falls_back(comfy, tiny, tmp_path, monkeypatch):
    import folder_paths

    for side in ("output", "input"):
        monkeypatch.setattr(folder_paths, f"{side}_directory", str(tmp_path))
    latent = tiny.encode(torch.rand(34, 64, 80, 3)) | {"fps": 12.0}
    stock(IMAGES, "SaveLatent", samples=latent, filename_prefix="clip")
    (saved,) = Path(tmp_path).glob("*.latent")
    loaded = stock(IMAGES, "LoadLatent", latent=saved.name)[0]
    assert torch.equal(loaded["samples"], latent["samples"])
    sizes = pack("nodes.comfy.latent").sizes_of(loaded)
    assert (sizes.fps, sizes.frames, sizes.width, sizes.height) == (24.0, 34, 80, 64)
    assert torch.equal(tiny.decode(loaded), tiny.decode(latent))


def test_latent_composite_does_not_crash(tiny, clip):
    """It is ComfyUI's and for latents without time: it lays frames over frames."""
    made = stock(IMAGES, "LatentComposite", samples_to=clip[0], samples_from=clip[0], x=0, y=0, feather=0)[0]
    assert made["samples"].shape == clip[0]["samples"].shape


def test_stock_vae_nodes(tiny, clip):
    latent, frames = clip
    assert torch.equal(stock(IMAGES, "VAEDecode", vae=tiny.vae, samples=latent)[0], frames)
    network = tiny.vae.first_stage_model
    for size, sliced in ((512, False), (32, True)):  # the second is smaller than the clip
        tiled = stock(IMAGES, "VAEDecodeTiled", vae=tiny.vae, samples=latent, tile_size=size, overlap=0)[0]
        assert torch.allclose(tiled, frames, atol=1e-4)
        most = network.decode_values(latent["samples"].shape[2], network.portion) * frames.shape[1] * frames.shape[2]
        assert (network.slice_values < most) is sliced
    assert torch.equal(
        stock(IMAGES, "VAEEncode", vae=tiny.vae, pixels=frames)[0]["samples"], tiny.encode(frames)["samples"]
    )


def test_samplers_of_one_graph_share_a_model(tiny):
    """Each sees its own clip's shift, sizes and mask, whatever ran before it."""
    wide = tiny.empty(resolution="custom", width=80, height=48, frames=34)
    pinned = tiny.pin(tiny.empty(), torch.rand(1, 64, 64, 3), frame=-1)
    jobs = [
        (tiny.empty(), {"seed": 1}),
        (wide, {"seed": 2, "cfg": 3.0}),
        (pinned, {"seed": 3}),
        (wide, {"seed": 2, "sampler_name": "heun"}),
    ]
    first = [tiny.sample(PROMPT, latent, steps=3, **values)["samples"] for latent, values in jobs]
    again = [tiny.sample(PROMPT, latent, steps=3, **values)["samples"] for latent, values in reversed(jobs)]
    assert all(torch.equal(a, b) for a, b in zip(first, reversed(again)))
    assert not torch.equal(first[1], first[3])


def test_two_generations_in_one_graph(tiny, models, positive):
    """1.2 and 1.1 by turns: neither changes what the other gives."""
    jobs = [
        lambda: tiny.sample(PROMPT, tiny.empty(), seed=1, steps=3)["samples"],
        lambda: ours(models["stdit2"], positive, family_clip("stdit2")),
    ]
    turns = [job() for job in (*jobs, *jobs)]
    assert torch.equal(turns[0], turns[2]) and torch.equal(turns[1], turns[3])
