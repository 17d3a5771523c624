"""The video VAE behind comfy.sd.VAE: our nodes, stock encode, decode and tiling."""

import pytest
import torch
from small import pack, run


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


def run_out_of_memory_once(comfy, network, monkeypatch):
    """Let the network's next decode fail as on a full GPU; returns the list that notes what it was asked for."""
    refused = []

    def once(latents, num_frames=None):
        if not refused:
            refused.append(num_frames)
            raise comfy.model_management.OOM_EXCEPTION("no memory left")
        return type(network).decode(network, latents, num_frames)

    monkeypatch.setattr(network, "decode", once)
    return refused


@pytest.mark.parametrize("frames", [1, 3, 17, 20, 34, 39])
def test_out_of_memory_tiles_give_the_same_frames(comfy, vae, monkeypatch, frames):
    """Core then decodes in tiles without saying how many frames are wanted; here a single tile."""
    latent, network = encode(vae, video(frames)), vae.first_stage_model
    expected = decode(vae, latent)
    refused = run_out_of_memory_once(comfy, network, monkeypatch)
    images = decode(vae, latent)
    assert refused == [frames]
    assert images.shape == expected.shape and torch.allclose(images, expected, atol=1e-5)
    # Nothing of that run stays behind: tiled decoding by itself gives the valid count.
    assert vae.decode_tiled_3d(latent["samples"]).shape[2] == network.video_frames(latent["samples"].shape[2])


def test_an_image_latent_without_time_survives_out_of_memory(comfy, vae, monkeypatch):
    samples = encode(vae, video(1))["samples"][:, :, 0]
    expected = decode(vae, {"samples": samples})
    refused = run_out_of_memory_once(comfy, vae.first_stage_model, monkeypatch)
    images = decode(vae, {"samples": samples})
    assert refused == [1]
    assert images.shape == expected.shape == (1, 64, 48, 3) and torch.allclose(images, expected, atol=1e-5)


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
    """As stock VAE Decode (Tiled): chunks are whole whatever temporal size it asks for, so one tile is exact."""
    samples = encode(vae, video(frames))["samples"]
    whole = vae.decode(samples)
    tiled = vae.decode_tiled(samples, tile_x=64, tile_y=64, overlap=8, tile_t=2, overlap_t=1)
    assert tiled.shape == whole.shape and torch.allclose(tiled, whole, atol=1e-5)
    small = vae.decode_tiled(samples, tile_x=4, tile_y=4, overlap=2, tile_t=2, overlap_t=1)
    assert small.shape == whole.shape and (small - whole).abs().mean() < (whole - whole.mean()).abs().mean()


@pytest.mark.parametrize("frames", [1, 17, 34, 20])
def test_stock_tiled_encode(vae, frames):
    pixels = video(frames, 64, 51)
    whole = vae.encode(pixels)
    tiled = vae.encode_tiled(pixels, tile_x=512, tile_y=512, overlap=64, tile_t=8, overlap_t=4)
    assert tiled.shape == whole.shape
    cropped = vae.encode(pixels[:, :, :48])
    assert torch.allclose(tiled, cropped, atol=1e-5)
    assert vae.encode_tiled(pixels, tile_x=32, tile_y=32, overlap=8).shape == whole.shape


def test_other_vaes_are_refused(comfy):
    stock = comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)})
    with pytest.raises(ValueError, match="vae is PixelspaceConversionVAE.*Load Open-Sora VAE"):
        encode(stock, video(1))


def test_wrong_channels_are_refused(vae):
    with pytest.raises(ValueError, match="samples has 16 channels.*4"):
        decode(vae, {"samples": torch.zeros(1, 16, 5, 8, 8)})


def test_saved_weights_load_again(vae, checkpoints):
    """Stock VAE Save writes get_sd(): the original's key names."""
    state_dict, _ = pack("model.loading").read_file(checkpoints["vae"])
    saved = vae.get_sd()
    assert saved.keys() == state_dict.keys() and all(torch.equal(saved[key], state_dict[key]) for key in saved)


def test_memory_estimates_grow_with_the_frame(vae):
    small, large = (
        vae.memory_used_decode((1, 4, 5, 8, 8), torch.float32),
        vae.memory_used_decode((1, 4, 5, 16, 16), torch.float32),
    )
    assert 3.9 < large / small < 4.1
    assert vae.memory_used_encode((1, 3, 17, 64, 64), torch.float32) > 0
