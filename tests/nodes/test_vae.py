"""The video VAE behind comfy.sd.VAE: our nodes, stock encode, decode and tiling."""

import json

import pytest
import torch
from small import MADE_FOR, pack, run


def video(frames, height=64, width=48):
    return torch.rand(frames, height, width, 3, generator=torch.Generator().manual_seed(frames))


def by_hand(vae, pixels):
    return vae.first_stage_model.encode((pixels * 2 - 1).permute(3, 0, 1, 2)[None])


def encode(vae, pixels, fps=24.0):
    return run(pack("nodes.codec").OpenSoraVAEEncode, vae=vae, pixels=pixels, fps=fps)[0]


def decode(vae, latent):
    return run(pack("nodes.codec").OpenSoraVAEDecode, vae=vae, samples=latent)[0]


@pytest.mark.parametrize("frames", [1, 5, 17, 20, 34])
def test_encode_and_decode_any_count(vae, frames):
    pixels = video(frames)
    latent = encode(vae, pixels, fps=12.0)
    assert {key: latent[key] for key in ("fps", "frames", "width", "height")} == {
        "fps": 12.0,
        "frames": frames,
        "width": 48,
        "height": 64,
    }
    assert torch.allclose(latent["samples"], by_hand(vae, pixels), atol=1e-5)
    images = decode(vae, latent)
    assert images.shape == (frames, 64, 48, 3) and 0 <= images.min() and images.max() <= 1 and images.std() > 0.01


def test_decode_is_the_networks(vae):
    latent = encode(vae, video(20))
    expected = vae.first_stage_model.decode(latent["samples"], 20)[0].permute(1, 2, 3, 0)
    assert torch.allclose(decode(vae, latent), ((expected + 1) / 2).clamp(0, 1), atol=1e-5)


def test_decode_falls_back_to_the_valid_count(vae):
    samples = encode(vae, video(20))["samples"]
    assert len(decode(vae, {"samples": samples})) == 21
    assert len(decode(vae, {"samples": samples, "frames": 17})) == 21  # does not fit 6 latents


def test_latents_of_another_rank_are_refused(vae):
    with pytest.raises(ValueError, match=r"samples has shape \(4, 8, 8\); a video latent is"):
        decode(vae, {"samples": torch.zeros(4, 8, 8)})


def test_a_batch_decodes_one_after_the_other(vae):
    one, two = encode(vae, video(17))["samples"], encode(vae, video(17).flip(0))["samples"]
    images = decode(vae, {"samples": torch.cat([one, two])})
    assert images.shape[0] == 34
    assert torch.allclose(images[:17], decode(vae, {"samples": one}), atol=1e-5)
    assert torch.allclose(images[17:], decode(vae, {"samples": two}), atol=1e-5)


def test_what_is_left_over_of_8_pixels_goes(vae):
    latent = encode(vae, video(1, 44, 53))
    assert latent["samples"].shape == (1, 4, 1, 5, 6) and (latent["height"], latent["width"]) == (44, 53)
    assert decode(vae, latent).shape == (1, 40, 48, 3)


def test_stock_nodes(vae):
    """Stock VAE Encode and VAE Decode call exactly these."""
    pixels = video(17)
    samples = vae.encode(pixels)
    assert torch.equal(samples, encode(vae, pixels)["samples"])
    images = vae.decode(samples)
    assert images.shape == (1, 17, 64, 48, 3)
    assert torch.equal(images[0], decode(vae, {"samples": samples}))


@pytest.mark.parametrize("frames", [1, 17, 34, 38, 21])
def test_stock_tiled_decode(vae, frames):
    """As stock VAE Decode (Tiled): layers work by slices as large as a tile, so nothing of it shows."""
    samples = encode(vae, video(frames))["samples"]
    whole = vae.decode(samples)
    tiled = vae.decode_tiled(samples, tile_x=64, tile_y=64, overlap=8, tile_t=2, overlap_t=1)
    assert tiled.shape == whole.shape and torch.allclose(tiled, whole, atol=1e-5)
    small = vae.decode_tiled(samples, tile_x=4, tile_y=4, overlap=2, tile_t=2, overlap_t=1)
    assert small.shape == whole.shape and torch.allclose(small, whole, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 17, 34, 20])
def test_stock_tiled_encode(vae, frames):
    pixels = video(frames, 64, 51)
    whole = vae.encode(pixels)
    tiled = vae.encode_tiled(pixels, tile_x=512, tile_y=512, overlap=64, tile_t=8, overlap_t=4)
    assert tiled.shape == whole.shape and torch.allclose(tiled, whole, atol=1e-5)
    small = vae.encode_tiled(pixels, tile_x=32, tile_y=32, overlap=8)
    assert small.shape == whole.shape and torch.allclose(small, whole, atol=1e-5)


def test_other_vaes_are_refused(comfy):
    stock = comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)})
    with pytest.raises(ValueError, match="vae is PixelspaceConversionVAE.*Load Open-Sora VAE"):
        encode(stock, video(1))


def test_wrong_channels_are_refused(vae):
    with pytest.raises(ValueError, match="samples has 16 channels.*4"):
        decode(vae, {"samples": torch.zeros(1, 16, 5, 8, 8)})


def test_saved_weights_load_again(vae, checkpoints):
    """Stock VAE Save writes get_sd(): the original's key names, and the file's metadata as one more."""
    state_dict, _ = pack("model.files").read_file(checkpoints["vae"])
    saved = vae.get_sd()
    said = json.loads(bytes(saved.pop("opensora_metadata").tolist()))
    assert (said["version"], said["made_for"]) == ("1.2", MADE_FOR)
    assert saved.keys() == state_dict.keys() and all(torch.equal(saved[key], state_dict[key]) for key in saved)
