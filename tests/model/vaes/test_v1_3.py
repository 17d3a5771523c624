"""The causal VAE of 1.3 against a recorded run of the original, and its counting of frames."""

import pytest
import torch
from golden import Case, difference, manifest, weights
from opensora_comfy.model import load_vae
from opensora_comfy.model.vaes.v1_3 import CausalVAE, CausalVAEConfig

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def vae():
    return load_vae(weights("vae13"))


@pytest.fixture(scope="module")
def clip():
    """The recorded clip and on: 35 frames that differ."""
    video = Case("vae13_T17").inputs["x"]
    return torch.cat([video, video.flip(2), video.flip(3)], dim=2)[:, :, :35]


def test_matches_the_original(vae):
    case = Case("vae13_T17")
    with torch.no_grad():
        moments = vae.encoder(case.inputs["x"])
    assert difference(moments, case.mid["moments"]) <= TOLERANCE
    assert difference(vae.encode(case.inputs["x"]), case.outputs["z"]) <= TOLERANCE
    assert difference(vae.decode(case.outputs["z"], 17), case.outputs["recon"]) <= TOLERANCE


@pytest.mark.parametrize("name", ["opensora_vae_v1_3", "opensora_vae_v1_3_tiled"])
def test_full_size_has_exactly_the_originals_keys(name):
    shapes = manifest(name)
    config = CausalVAEConfig.from_weights(shapes)
    assert config == CausalVAEConfig()
    with torch.device("meta"):
        own = CausalVAE(config).state_dict()
    assert {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in shapes.items()}


def test_describes_itself(vae):
    assert (vae.family, vae.latent_channels) == ("vae_v1_3", 16)


def test_counts_as_the_original():
    vae = CausalVAE(CausalVAEConfig(stem=32, widths=(32,) * 4, num_res_blocks=1))
    for frames, latents, decoded in [
        (1, 1, 1), (2, 1, 1), (5, 2, 5), (16, 4, 13), (17, 5, 17), (18, 6, 17), (33, 10, 33), (35, 11, 33), (37, 12, 37),
        (97, 30, 97), (113, 35, 113),
    ]:  # fmt: skip
        assert (vae.latent_frames(frames), vae.counting.video_frames(latents)) == (latents, decoded)


def test_valid_frame_counts(vae):
    valid = [1, 17, 33, 49]
    for frames in range(1, 50):
        nearest = vae.nearest_frames(frames)
        if frames in valid:
            assert nearest == (frames,)
            assert vae.counting.video_frames(vae.latent_frames(frames)) == frames
        else:
            assert nearest == (max(n for n in valid if n < frames), min(n for n in valid if n > frames))


def test_groups_are_the_frames_behind_each_latent(vae):
    first = [range(1), range(1, 5), range(5, 9), range(9, 13), range(13, 17)]
    second = [range(16, 17), range(17, 21), range(21, 25), range(25, 29), range(29, 33)]
    assert vae.counting.groups(1) == first[:1]
    assert vae.counting.groups(17) == first
    assert vae.counting.groups(33) == first + second
    assert vae.counting.groups(35) == [*first, *second, range(32, 33)]


def test_a_latent_sees_its_own_frames_and_none_that_follow(clip):
    """With the norms off, which look at a whole chunk, a frame moves the latent of its group and the next ones."""
    vae = load_vae(weights("vae13"))
    for module in vae.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.forward = torch.clone
    before, groups = vae.encode(clip), vae.counting.groups(35)
    for frame in (0, 4, 5, 16, 32, 33, 34):
        changed = clip.clone()
        changed[:, :, frame] += 1.0
        moved = (vae.encode(changed) - before).abs().amax(dim=(0, 1, 3, 4))
        for index, group in enumerate(groups):
            if frame in group:
                assert moved[index] > 0
            elif frame < group[0] and index < 10 and group[0] // 16 == frame // 16:
                continue  # a later latent of the same chunk may see it
            else:
                assert moved[index] == 0, f"frame {frame} moves latent {index}"


@pytest.mark.parametrize(
    ("frames", "chunks"),
    [
        (1, [(0, 1)]), (2, [(0, 2)]), (17, [(0, 17)]), (18, [(0, 17), (16, 18)]), (33, [(0, 17), (16, 33)]),
        (35, [(0, 17), (16, 33), (32, 35)]),
    ],
)  # fmt: skip
def test_chunks_are_encoded_on_their_own(vae, clip, frames, chunks):
    latents = vae.encode(clip[:, :, :frames])
    assert latents.shape == (1, 16, vae.latent_frames(frames), 2, 3)
    parts = [vae.encode(clip[:, :, start:stop]) for start, stop in chunks]
    assert torch.allclose(latents, torch.cat(parts, dim=2), atol=1e-5)


def test_the_shared_frame_is_the_mean_of_both_chunks(vae, clip):
    latents = vae.encode(clip[:, :, :33])
    video = vae.decode(latents, 33)
    first, second = vae.decode(latents[:, :, :5], 17), vae.decode(latents[:, :, 5:], 17)
    assert video.shape == (1, 3, 33, 16, 24)
    assert torch.allclose(video[:, :, :16], first[:, :, :16], atol=1e-5)
    assert torch.allclose(video[:, :, 16], (first[:, :, 16] + second[:, :, 0]) / 2, atol=1e-5)
    assert torch.allclose(video[:, :, 17:], second[:, :, 1:], atol=1e-5)


def test_frames_that_no_latent_holds_are_lost(vae, clip):
    """35 frames make 11 latents, as 33 frames and the first of another chunk would; the original gives 33 back."""
    latents = vae.encode(clip)
    assert vae.decode(latents, 35).shape[2] == vae.counting.video_frames(11) == 33


def test_decoding_goes_chunk_by_chunk(vae, clip):
    latents = vae.encode(clip[:, :, :33])
    pieces = list(vae.decode_chunks(latents))
    assert [piece.shape[2] for piece in pieces] == [16, 17]
    assert torch.equal(torch.cat(pieces, dim=2), vae.decode(latents, 33))


def test_hosts_can_follow_the_chunks(clip):
    seen = []

    class Host(CausalVAE):
        def each_chunk(self, pieces):
            for index, piece in enumerate(pieces):
                seen.append((index, len(pieces)))
                yield piece

    state_dict = weights("vae13")
    with torch.device("meta"):
        vae = Host(CausalVAEConfig.from_weights(state_dict))
    vae.load_state_dict(state_dict, assign=True)
    with torch.no_grad():
        vae.decode(vae.encode(clip[:, :, :33]), 33)
    assert seen == [(0, 2), (1, 2)] * 2


def test_samples_one_draw_for_all_chunks(vae, clip):
    asked = []

    def replay(kind, index, shape):
        asked.append((kind, index, tuple(shape)))
        return torch.ones(shape)

    video = clip[:, :, :33]
    z = vae.encode(video, noise=replay)
    assert asked == [("temporal", 0, (1, 16, 10, 2, 3))]
    with torch.no_grad():
        moments = torch.cat([vae.encoder(video[:, :, :17]), vae.encoder(video[:, :, 16:])], dim=2)
    std = torch.exp(0.5 * moments[:, 16:]) / torch.tensor(vae.config.scale).view(1, -1, 1, 1, 1)
    assert torch.allclose(z - vae.encode(video), std, atol=1e-4, rtol=1e-4)
    sampled = vae.encode(video, noise=torch.Generator().manual_seed(1))
    assert torch.equal(sampled, vae.encode(video, noise=torch.Generator().manual_seed(1)))
    assert not torch.equal(sampled, vae.encode(video))


def test_batches_are_clips_of_their_own(vae, clip):
    pair = torch.cat([clip, clip.flip(4)])[:, :, :18]
    latents = vae.encode(pair)
    assert torch.allclose(latents[1:], vae.encode(pair[1:]), atol=1e-5)
    assert torch.allclose(vae.decode(latents, 18)[1:], vae.decode(latents[1:], 18), atol=1e-5)


def test_statistics_can_follow_the_place_in_a_chunk(vae, clip):
    """The original's other normalisation: five values a channel, the first of them for an image."""
    placed = load_vae(weights("vae13"), {"normalization": "video_5frames"})
    plain = load_vae(weights("vae13"), {"normalization": None})
    for frames in (1, 33):
        raw = plain.encode(clip[:, :, :frames])
        mean, std = (torch.tensor(values) for values in (placed.config.shift, placed.config.scale))
        places = [index % 5 for index in range(raw.shape[2])]
        expected = (raw - mean[:, places, None, None]) / std[:, places, None, None]
        z = placed.encode(clip[:, :, :frames])
        assert torch.allclose(z, expected, atol=1e-5)
        assert torch.allclose(placed.decode(z, frames), plain.decode(raw, frames), atol=1e-5)


def test_config_says_what_weights_cannot(clip):
    with pytest.raises(ValueError, match='normalization = "image".*"video", "video_5frames" and None'):
        load_vae(weights("vae13"), {"normalization": "image"})
    with pytest.raises(ValueError, match="shift has 3 values, but the latents have 16 channels"):
        load_vae(weights("vae13"), {"shift": [0, 0, 0]})
    apart = load_vae(weights("vae13"), {"temporal_overlap": False})
    assert apart.nearest_frames(20) == (17, 34)
    assert apart.decode(apart.encode(clip[:, :, :34]), 34).shape[2] == 34


def test_a_missing_key_that_tells_sizes_is_listed_like_any_other():
    for key in ("encoder.conv_in.conv.weight", "decoder.conv_in.conv.weight", "encoder.down.0.block.0.conv1.conv.bias"):
        state_dict = weights("vae13")
        del state_dict[key]
        with pytest.raises(ValueError, match=f"missing keys: {key}"):
            load_vae(state_dict)


def test_a_wrong_frame_count_is_named(vae):
    with pytest.raises(ValueError, match="num_frames is 33.*10 latents.*there are 5; they decode to 17 frames"):
        vae.decode(torch.zeros(1, 16, 5, 2, 3), 33)


def test_it_can_be_trained():
    vae = load_vae(weights("vae13")).requires_grad_(True)
    video = Case("vae13_T17").inputs["x"][:, :, :5]
    vae.decode(vae.encode(video, noise=torch.Generator().manual_seed(0)), 5).square().mean().backward()
    assert all(weight.grad is not None for weight in vae.parameters())
