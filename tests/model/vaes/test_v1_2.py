"""The video VAE of 1.2 against recorded runs of the original."""

import pytest
import torch
from golden import Case, difference, table, weights
from opensora_comfy.model import load_vae

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def vae():
    meta = Case("vae12_T1").meta
    config = {
        "spatial_norm_groups": meta["cfg2d"]["norm_num_groups"],
        "temporal_norm_groups": meta["cfg_temporal"]["num_groups"],
        "chunk_frames": meta["micro_frame_size"],
    }
    return load_vae(weights("vae12"), config)


@pytest.mark.parametrize("frames", [1, 17, 20, 34])
def test_matches_the_original(vae, frames):
    case = Case(f"vae12_T{frames}")
    assert difference(vae.encode_frames(case.inputs["x"]), case.mid["spatial_latent"]) <= TOLERANCE
    assert difference(vae.encode(case.inputs["x"]), case.outputs["z"]) <= TOLERANCE
    assert difference(vae.decode(case.inputs["z_rand"], frames), case.outputs["decoded_rand"]) <= TOLERANCE
    assert difference(vae.decode(case.outputs["z"], frames), case.outputs["recon"]) <= TOLERANCE


def test_samples_as_the_original_with_its_draws(vae):
    case = Case("vae12_T20_sampled")
    names = {"spatial": "noise2d", "temporal": "noise_t"}
    asked = []

    def replay(kind, index, shape):
        asked.append(kind)
        draw = case.inputs[f"{names[kind]}_{index}"]
        assert draw.shape == shape
        return draw

    z = vae.encode(case.inputs["x"], noise=replay)
    assert difference(z, case.outputs["z"]) <= TOLERANCE
    assert asked == ["spatial"] * 5 + ["temporal"] * 2


def test_a_generator_samples_repeatably(vae):
    video = Case("vae12_T20_sampled").inputs["x"]
    first = vae.encode(video, noise=torch.Generator().manual_seed(1))
    assert torch.equal(first, vae.encode(video, noise=torch.Generator().manual_seed(1)))
    assert not torch.equal(first, vae.encode(video))


def test_latent_sizes_match_the_original(vae):
    sizes = table("vae12_latent_sizes")
    for frames, (latents, _, _) in sizes["latent_size (num_frames,240,426)"].items():
        assert vae.latent_frames(int(frames)) == latents


def test_valid_frame_counts():
    vae = load_vae(weights("vae12"), {"spatial_norm_groups": 4, "temporal_norm_groups": 2})
    valid = [1] + [17 * k + 4 * j for k in (1, 2, 3) for j in range(5)]
    for frames in range(1, 67):
        if frames in valid:
            assert vae.nearest_frames(frames) == (frames,)
            assert vae.counting.video_frames(vae.latent_frames(frames)) == frames
        else:
            low = max(count for count in valid if count < frames)
            high = min([count for count in valid if count > frames] + [68])
            assert vae.nearest_frames(frames) == (low, high)


def test_any_count_round_trips_in_shape(vae):
    for frames in (2, 5, 18, 33):
        latents = vae.encode(torch.zeros(1, 3, frames, 16, 24))
        assert latents.shape == (1, 4, vae.latent_frames(frames), 2, 3)
        assert vae.decode(latents, frames).shape == (1, 3, frames, 16, 24)


def test_a_wrong_frame_count_is_named(vae):
    with pytest.raises(ValueError, match="num_frames is 34.*decode to 17 frames"):
        vae.decode(torch.zeros(1, 4, 5, 2, 3), 34)


def test_odd_pixels_are_dropped(vae):
    assert vae.encode(torch.zeros(1, 3, 1, 20, 26)).shape[3:] == (2, 3)
