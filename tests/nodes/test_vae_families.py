"""The VAEs of every generation inside ComfyUI: one loader, one set of nodes, and stock encode, decode and tiling."""

import json
import logging

import pytest
import torch
from safetensors.torch import save_file
from small import NORM_GROUPS, VAE_CONFIG, pack, run, write

CHANNELS = {"vae_v1_2": 4, "vae_2d": 4, "vae_v1_3": 16}
# Frames and the latents they make, full chunks and others.
LATENTS = {
    "vae_v1_2": {1: 1, 17: 5, 20: 6, 34: 10},
    "vae_2d": {1: 1, 2: 2, 9: 9, 17: 17},
    "vae_v1_3": {1: 1, 17: 5, 33: 10, 49: 15},
}


@pytest.fixture(params=CHANNELS)
def family(request):
    return request.param


@pytest.fixture
def vae(vaes, family):
    return vaes[family]


def video(frames, height=32, width=48):
    return torch.rand(frames, height, width, 3, generator=torch.Generator().manual_seed(frames))


def encode(vae, pixels):
    return run(pack("nodes.codec").OpenSoraVAEEncode, vae=vae, pixels=pixels, fps=12.0)[0]


def decode(vae, latent):
    return run(pack("nodes.codec").OpenSoraVAEDecode, vae=vae, samples=latent)[0]


def alone(vae_weights, family):
    """The network without ComfyUI."""
    return pack("model.checkpoints.loading").load_vae(vae_weights[family], VAE_CONFIG)


def as_network(pixels):
    return (pixels * 2 - 1).permute(3, 0, 1, 2)[None]


def as_images(frames):
    return ((frames[0].permute(1, 2, 3, 0) + 1) / 2).clamp(0, 1)


# --- encode and decode


def test_numbers_are_the_networks(vae, vae_weights, family):
    network = alone(vae_weights, family)
    assert vae.first_stage_model.family == network.family == family
    for frames, latents in LATENTS[family].items():
        pixels = video(frames)
        latent = encode(vae, pixels)
        expected = network.encode(as_network(pixels))
        assert latent["samples"].shape == (1, CHANNELS[family], latents, 4, 6)
        assert (latent["frames"], latent["width"], latent["height"], latent["fps"]) == (frames, 48, 32, 12.0)
        assert torch.allclose(latent["samples"], expected, atol=1e-5)
        images = decode(vae, latent)
        assert images.shape == (frames, 32, 48, 3) and images.std() > 0.005
        assert torch.allclose(images, as_images(network.decode(expected, frames)), atol=1e-5)


def test_stock_encode_and_decode(vae, family):
    for frames in LATENTS[family]:
        pixels = video(frames)
        samples = vae.encode(pixels)
        assert torch.equal(samples, encode(vae, pixels)["samples"])
        if vae.first_stage_model.nearest_frames(frames) == (frames,):
            assert torch.equal(vae.decode(samples)[0], decode(vae, {"samples": samples}))


def test_stock_tiling(vae, family):
    """Layers work by slices as large as a tile: the result is the whole's."""
    for frames in LATENTS[family]:
        pixels = video(frames)
        samples = vae.encode(pixels)
        assert torch.allclose(vae.encode_tiled(pixels, tile_x=512, tile_y=512, overlap=64), samples, atol=1e-5)
        assert torch.allclose(vae.encode_tiled(pixels, tile_x=32, tile_y=32, overlap=8), samples, atol=1e-5)
        whole = vae.decode(samples)
        assert torch.allclose(vae.decode_tiled(samples, tile_x=64, tile_y=64, overlap=8), whole, atol=1e-5)
        small = vae.decode_tiled(samples, tile_x=4, tile_y=4, overlap=2, tile_t=2, overlap_t=1)
        assert small.shape == whole.shape and torch.allclose(small, whole, atol=1e-5)


def test_a_batch_and_an_image_without_time(vae):
    samples = encode(vae, video(17))["samples"]
    images = decode(vae, {"samples": torch.cat([samples, samples.flip(2)])})
    assert torch.allclose(images[: len(images) // 2], decode(vae, {"samples": samples}), atol=1e-5)
    image = encode(vae, video(1))["samples"]
    assert torch.equal(decode(vae, {"samples": image[:, :, 0]}), decode(vae, {"samples": image}))


@pytest.mark.parametrize("size", [(32, 48), (37, 43), (34, 50), (31, 55), (33, 41)])
def test_what_is_left_over_of_8_pixels(vae, family, size):
    """1.0 to 1.2 drop it; 1.3 makes a latent of it. What the nodes expect is what the network does."""
    network = vae.first_stage_model
    latent = encode(vae, video(1, *size))
    assert latent["samples"].shape[-2:] == tuple(map(network.counting.latent_side, size))
    assert pack("nodes.comfy.latent").sizes_of(latent, counting=network.counting).width == size[1]
    if family != "vae_v1_3":
        assert latent["samples"].shape[-2:] == (size[0] // 8, size[1] // 8)
    assert vae.encode_tiled(video(1, *size), tile_x=512, tile_y=512, overlap=64).shape == latent["samples"].shape


def test_frames_that_1_3_loses_are_told(vaes, caplog):
    with caplog.at_level(logging.WARNING):
        latent = encode(vaes["vae_v1_3"], video(20))
    assert "keeps 17 of the 20 frames; it represents 17 and 33 exactly" in caplog.text
    assert latent["frames"] == 17 == len(decode(vaes["vae_v1_3"], latent))
    assert latent["samples"].shape[2] == 5


@pytest.mark.parametrize(("latents", "frames"), [(3, 9), (6, 17), (7, 21), (11, 33)])
def test_1_3_decodes_latents_that_fill_no_chunk(vaes, latents, frames):
    samples = torch.randn(1, 16, latents, 4, 6, generator=torch.Generator().manual_seed(0))
    vae = vaes["vae_v1_3"]
    for keys in ({}, {"frames": 16 * (latents // 5) + 4 * (latents % 5)}, {"frames": 3}):
        images = decode(vae, {"samples": samples, **keys})
        assert len(images) == frames and torch.equal(vae.decode(samples)[0], images)
    tiled = vae.decode_tiled(samples, tile_x=64, tile_y=64, overlap=8)
    assert torch.allclose(tiled[0], images, atol=1e-5)


def test_other_channels_are_refused(vae, family):
    other = 20 - CHANNELS[family]
    with pytest.raises(ValueError, match=f"samples has {other} channels; this VAE decodes latents with {20 - other}"):
        decode(vae, {"samples": torch.zeros(1, other, 5, 4, 4)})


# --- progress, interrupt


@pytest.mark.parametrize(("family", "frames", "pieces"), [("vae_v1_2", 40, 3), ("vae_2d", 9, 3), ("vae_v1_3", 49, 3)])
def test_progress_and_interrupt(comfy, vaes, family, frames, pieces, monkeypatch):
    totals, ticks = [], []

    class Bar:
        def __init__(self, total):
            totals.append(total)

        def update(self, value):
            ticks.append(value)

    monkeypatch.setattr(comfy.utils, "ProgressBar", Bar)
    latent = encode(vaes[family], video(frames))
    assert totals == [pieces] and ticks == [1] * pieces
    decode(vaes[family], latent)
    assert totals == [pieces] * 2 and ticks == [1] * 2 * pieces
    monkeypatch.setattr(Bar, "update", lambda self, value: comfy.model_management.interrupt_current_processing())
    ticks.clear()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        decode(vaes[family], latent)
    comfy.model_management.interrupt_current_processing(False)


# --- the timeline


def empty(vae, **changes):
    settings = dict(resolution="custom", aspect_ratio="auto", frames=17, fps=24.0, width=48, height=32, batch_size=1)
    return run(pack("nodes.empty_latent").OpenSoraEmptyLatent, vae=vae, **{**settings, **changes})


def test_empty_latents_follow_the_vae(vae, family):
    for frames in (frames for frames in LATENTS[family] if frames != 20):
        latent, width, height, count, _ = empty(vae, frames=frames, width=426, height=240, batch_size=2)
        side = 54 if family == "vae_v1_3" else 53
        assert latent["samples"].shape == (2, CHANNELS[family], LATENTS[family][frames], 30, side)
        assert (
            (width, height, count) == (426, 240, frames) == tuple(latent[key] for key in ("width", "height", "frames"))
        )


@pytest.mark.parametrize(
    ("family", "frames", "below", "above"),
    [("vae_v1_2", 16, 1, 17), ("vae_v1_2", 35, 34, 38), ("vae_v1_3", 16, 1, 17), ("vae_v1_3", 34, 33, 49)],
)
def test_counts_that_do_not_fit_name_their_neighbours(vaes, family, frames, below, above):
    with pytest.raises(ValueError, match=f"frames is {frames}.*{below} and {above} \\(valid are 1"):
        empty(vaes[family], frames=frames)


@pytest.mark.parametrize(
    ("resolution", "aspect_ratio", "size"),
    [
        ("256", "auto", (256, 256)),
        ("512", "auto", (512, 512)),
        ("512", "16:9", (688, 384)),
        ("256", "9:16", (192, 336)),
        ("1024", "1:1", (1024, 1024)),
        ("auto", "auto", (426, 240)),
        ("480p", "9:16", (480, 854)),
    ],
)
def test_sizes_of_the_older_generations(vaes, resolution, aspect_ratio, size):
    latent, *found = empty(vaes["vae_2d"], resolution=resolution, aspect_ratio=aspect_ratio, frames=16)
    assert tuple(found[:2]) == size
    assert latent["samples"].shape == (1, 4, 16, size[1] // 8, size[0] // 8)


def test_groups_are_what_the_vae_encodes(vae, monkeypatch):
    """The latents that `groups` files a frame under see it, and none before them does."""
    # Normalisation mixes all frames of a chunk; without it the networks are strictly causal.
    monkeypatch.setattr(torch.nn.functional, "group_norm", lambda x, *_: x)
    network, pixels = vae.first_stage_model, video(33)
    groups = network.counting.groups(33)
    assert len(groups) == network.latent_frames(33) and {f for group in groups for f in group} == set(range(33))
    before = network.encode(as_network(pixels))
    for frame in (0, 1, 4, 5, 15, 16, 17, 20, 21, 32):
        changed = pixels.clone()
        changed[frame] = 1 - changed[frame]
        moved = (network.encode(as_network(changed)) - before).abs().amax(dim=(0, 1, 3, 4)) > 1e-6
        filed = [index for index, group in enumerate(groups) if frame in group]
        assert moved[filed].all() and not moved[: filed[0]].any(), (frame, moved)


def keyframe(vae, latent, image, frame):
    node = pack("nodes.keyframe").OpenSoraKeyframe
    return run(node, latent=latent, vae=vae, image=image, frame=frame, strength=1.0)[0]


def pinned(latent):
    return [i for i in range(latent["samples"].shape[2]) if latent["noise_mask"][:, :, i].max() == 0]


@pytest.mark.parametrize(
    ("family", "frame", "expected"),
    [
        ("vae_v1_2", 16, [4]), ("vae_v1_2", 17, [5]),
        ("vae_2d", 0, [0]), ("vae_2d", 16, [16]), ("vae_2d", -1, [32]),
        ("vae_v1_3", 0, [0]), ("vae_v1_3", 3, [1]), ("vae_v1_3", 16, [4, 5]), ("vae_v1_3", 17, [6]),
        ("vae_v1_3", -1, [9]),
    ],
)  # fmt: skip
def test_a_lone_image_is_pinned_where_it_lives(vaes, family, frame, expected):
    vae, image = vaes[family], video(1)
    frames = 34 if family == "vae_v1_2" else 33
    latent = keyframe(vae, empty(vae, frames=frames)[0], image, frame)
    assert pinned(latent) == expected
    network = vae.first_stage_model
    groups = network.counting.groups(frames)
    single, still = network.encode(as_network(image)), network.encode(as_network(image.repeat(17, 1, 1, 1)))
    for index in expected:
        wanted = single[:, :, 0] if len(groups[index]) == 1 else still[:, :, index % network.counting.chunk_latents]
        assert torch.allclose(latent["samples"][:, :, index], wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "count", "frame", "expected"),
    [
        ("vae_2d", 6, 3, [3, 4, 5, 6, 7, 8]),
        ("vae_2d", 4, 31, [31, 32]),
        ("vae_v1_3", 17, 0, [0, 1, 2, 3, 4, 5]),
        ("vae_v1_3", 7, 0, [0, 1]),
        ("vae_v1_3", 10, 12, [4, 5, 6]),
    ],
)
def test_a_clip_pins_what_it_covers(vaes, family, count, frame, expected):
    vae, clip = vaes[family], video(count)
    latent = keyframe(vae, empty(vae, frames=33)[0], clip, frame)
    assert pinned(latent) == expected
    if family == "vae_2d":
        whole = vae.first_stage_model.encode(as_network(clip))
        assert torch.allclose(latent["samples"][:, :, expected], whole[:, :, : len(expected)], atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "keys", "counting", "frames"),
    [
        (4, {"frames": 17}, None, 17),  # 1.2: chunks
        (4, {"frames": 5}, None, 5),  # 1.0, 1.1: every frame
        (4, {}, None, 17),
        (4, {}, "1.1", 5),
        (4, {"frames": 17}, "1.0", 5),
        (4, {"frames": 5}, "1.2", 17),
        (16, {}, None, 17),
        (16, {"frames": 5}, None, 17),
        (4, {}, "1.3", 17),
        (4, {"frames": float("nan")}, None, 17),
        (4, {"frames": 0}, None, 17),
    ],
)
def test_frames_of_a_latent(comfy, channels, keys, counting, frames):
    """Its own `frames` where that fits, else what the generation makes of 5 latents."""
    latent = {"samples": torch.zeros(1, channels, 5, 4, 6), **keys}
    assert pack("nodes.comfy.latent").sizes_of(latent, counting=counting).frames == frames


# --- loading


def test_layouts_of_the_2d_vae(vae_weights, vaes, tmp_path):
    """Open-Sora's own keys, diffusers' new and old ones, as safetensors, .pth and a Hugging Face folder."""
    bare = {key.removeprefix("module."): value.clone() for key, value in vae_weights["vae_2d"].items()}
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = dict(bare)
    for new, former in names.items():
        old = {key.replace(f".{new}.", f".{former}."): value for key, value in old.items()}
    folder = tmp_path / "sd-vae-ft-ema"
    folder.mkdir()
    save_file(old, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps({"norm_num_groups": NORM_GROUPS, "latent_channels": 4}))
    torch.save({"state_dict": bare}, folder / "other.pth")
    pixels = video(3)
    expected = encode(vaes["vae_2d"], pixels)["samples"]
    path = write(tmp_path / "bare.safetensors", bare, config=VAE_CONFIG)
    for source in (path, str(folder)):
        found = encode(pack("nodes.comfy.loading").load_vae(source), pixels)["samples"]
        assert torch.equal(found, expected), source


def test_pytorch_files_load(vaes, vae_weights, tmp_path, family, monkeypatch):
    path = tmp_path / "model.bin"
    torch.save({"ema": {f"module.{key}": value for key, value in vae_weights[family].items()}}, path)
    config = dict(VAE_CONFIG)
    (tmp_path / "config.json").write_text(json.dumps(config))
    vae = pack("nodes.comfy.loading").load_vae(str(tmp_path))
    pixels = video(1)
    assert torch.equal(encode(vae, pixels)["samples"], encode(vaes[family], pixels)["samples"])


def test_saved_weights_load_again(vae, vae_weights, family):
    """Stock VAE Save writes get_sd(): the original's key names, and the file's metadata as one more."""
    saved = vae.get_sd()
    assert saved.pop("opensora_metadata").dtype == torch.uint8
    assert saved.keys() == vae_weights[family].keys()
    assert all(torch.equal(saved[key], vae_weights[family][key]) for key in saved)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (
            ["encoder.block.0.layer.0.SelfAttention.q.weight"],
            "this is a T5 text encoder; use Load Open-Sora Text Encoder",
        ),
        (["spatial_blocks.0.x", "temporal_blocks.0.x"], "an Open-Sora 1.2 transformer .*; use Load Open-Sora Model"),
        (["decoder.up.0.block.0.norm1.weight"], "a Stable Diffusion VAE in the ldm layout.*sd-vae-ft-ema"),
        (["some.weight"], "its keys \\(some.weight"),
    ],
)
def test_other_files_are_refused(comfy, tmp_path, keys, words):
    path = write(tmp_path / "other.safetensors", {key: torch.zeros(1) for key in keys})
    with pytest.raises(ValueError, match=f"vae_name: .*{words}"):
        pack("nodes.comfy.loading").load_vae(path)


def test_a_damaged_vae_is_refused(comfy, vae_weights, tmp_path, family):
    lacking = dict(vae_weights[family])
    key = next(key for key in lacking if key.endswith("conv_out.bias"))
    del lacking[key]
    path = write(tmp_path / "lacking.safetensors", lacking, config=VAE_CONFIG)
    with pytest.raises(ValueError, match=f"vae_name: .*1 missing keys: {key}"):
        pack("nodes.comfy.loading").load_vae(path)


def test_comfyui_can_rebuild_the_patcher(vae):
    factory, arguments = vae.patcher.cached_patcher_init
    rebuilt = factory(*arguments, disable_dynamic=True)
    assert rebuilt is not vae.patcher and rebuilt.model.family == vae.first_stage_model.family
