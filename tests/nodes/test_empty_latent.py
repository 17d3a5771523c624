"""Empty latents: sizes by resolution and aspect ratio, frame counts, what auto means."""

import pytest
import torch
from small import pack, run


def make(vae, **changes):
    settings = {
        "resolution": "auto",
        "aspect_ratio": "auto",
        "frames": 17,
        "fps": 24.0,
        "width": 424,
        "height": 240,
        "batch_size": 1,
    }
    return run(pack("nodes.empty_latent").OpenSoraEmptyLatent, vae=vae, **{**settings, **changes})


def size(vae, **changes):
    """(width, height) that the node puts out."""
    return make(vae, **changes)[1:3]


@pytest.mark.parametrize(
    ("resolution", "aspect_ratio", "expected"),
    [
        ("144p", "16:9", (256, 144)),
        ("240p", "16:9", (426, 240)),
        ("240p", "9:16", (240, 426)),
        ("240p", "1:1", (320, 320)),
        ("360p", "4:3", (554, 416)),
        ("480p", "16:9", (854, 480)),
        ("480p", "3:4", (555, 740)),
        ("720p", "16:9", (1280, 720)),
        ("720p", "21:9", (1466, 628)),
        ("720p", "9:21", (628, 1466)),
        ("1080p", "9:16", (1080, 1920)),
    ],
)
def test_sizes_of_the_original(vae, resolution, aspect_ratio, expected):
    assert size(vae, resolution=resolution, aspect_ratio=aspect_ratio) == expected


def test_every_size_has_its_shape_and_area():
    sizes = pack("model.sizes")
    pixels = {"144p": 36864, "240p": 102240, "360p": 230400, "480p": 409920, "720p": 921600, "1080p": 2073600}
    assert set(sizes.RESOLUTIONS) == set(pixels)
    for resolution in sizes.RESOLUTIONS:
        for name in sizes.ASPECT_RATIOS:
            height, width = sizes.frame_size(resolution, name)
            across, down = map(int, name.split(":"))
            assert abs(height * width / pixels[resolution] - 1) < 0.02
            assert abs(width / height / (across / down) - 1) < 0.02, (resolution, name)


def test_auto_is_what_the_file_was_made_for(vae):
    assert size(vae) == (64, 64)
    assert size(vae, aspect_ratio="16:9") == (80, 48)
    assert size(vae, aspect_ratio="9:16") == (48, 80)
    assert size(vae, resolution="240p") == (320, 320)


def test_the_shape_of_the_file_is_its_own_size(vae, monkeypatch):
    """Named or not: Open-Sora Fit Image names it for an image of that shape."""
    monkeypatch.setattr(vae.first_stage_model, "opensora", {"made_for": {"height": 240, "width": 426}})
    assert size(vae) == size(vae, aspect_ratio="16:9") == (426, 240)
    image = torch.zeros(1, 720, 1280, 3)
    fitted = run(
        pack("nodes.fit_image").OpenSoraFitImage,
        image=image, resolution="auto", aspect_ratio="auto", width=64, height=64, vae=vae,
    )  # fmt: skip
    assert tuple(fitted[1:]) == size(vae)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fps": 0.0}, "fps is 0; it must be at least 1"),
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"batch_size": -1}, "batch_size is -1; it must be at least 1"),
        ({"resolution": "custom", "width": 7}, "width is 7; it must be at least 16"),
        ({"resolution": "custom", "height": 0}, "height is 0; it must be at least 16"),
    ],
)
def test_what_a_wire_brings_is_checked(vae, changes, words):
    with pytest.raises(ValueError, match=words):
        make(vae, **changes)


def test_auto_without_metadata_is_240p(vae, monkeypatch):
    monkeypatch.setattr(vae.first_stage_model, "opensora", {})
    assert size(vae) == (426, 240)
    assert size(vae, aspect_ratio="1:1") == (320, 320)
    assert size(vae, resolution="720p") == (1280, 720)


def test_latent_keys_and_outputs(vae):
    latent, width, height, frames, fps = make(
        vae, resolution="custom", width=426, height=240, frames=34, fps=12.5, batch_size=3
    )
    assert latent["samples"].shape == (3, 4, 10, 30, 53) and latent["samples"].abs().max() == 0
    assert (width, height, frames, fps) == (426, 240, 34, 12.5)
    assert (latent["width"], latent["height"], latent["frames"], latent["fps"]) == (426, 240, 34, 12.5)
    assert latent["samples"].dtype == torch.float32


@pytest.mark.parametrize("frames", [1, 17, 21, 25, 29, 33, 34, 38, 51, 102, 408])
def test_valid_counts(vae, frames):
    latent = make(vae, frames=frames)[0]
    assert latent["samples"].shape[2] == vae.first_stage_model.latent_frames(frames)


@pytest.mark.parametrize(
    ("frames", "below", "above"), [(2, 1, 17), (16, 1, 17), (18, 17, 21), (48, 46, 50), (52, 51, 55)]
)
def test_other_counts_name_their_neighbours(vae, frames, below, above):
    with pytest.raises(ValueError, match=f"frames is {frames}.*{below} and {above} "):
        make(vae, frames=frames)


def test_other_vaes_are_refused(comfy):
    with pytest.raises(ValueError, match="not an Open-Sora video VAE"):
        make(comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)}))


# Durations

DURATIONS = {"2s": 51, "4s": 102, "8s": 204, "16s": 408, "32s": 816}


@pytest.mark.parametrize("duration", DURATIONS)
@pytest.mark.parametrize("family", ["vae_v1_2", "vae_2d"])
def test_durations_of_the_original(vaes, family, duration):
    """In place of `frames`, which may say what it likes then."""
    network = vaes[family].first_stage_model
    latent, *_, frames, _ = make(vaes[family], resolution="144p", frames=2, duration=duration)
    assert frames == latent["frames"] == DURATIONS[duration]
    assert (
        latent["samples"].shape[2] == network.latent_frames(frames)
        and network.counting.video_frames(latent["samples"].shape[2]) == frames
    )


def test_1_3_takes_the_nearest_count_that_it_can_represent(vaes):
    found = {duration: make(vaes["vae_v1_3"], duration=duration)[3] for duration in DURATIONS}
    assert found == {"2s": 49, "4s": 97, "8s": 209, "16s": 401, "32s": 817}
    schema = pack("nodes.empty_latent").OpenSoraEmptyLatent.define_schema()
    words = next(item.tooltip for item in schema.inputs if item.id == "duration")
    assert all(f"{count}" in words for count in [*DURATIONS.values(), *found.values()])


def test_without_a_duration_frames_count(vae):
    """As in workflows that were saved before there was one."""
    assert make(vae, frames=34)[3] == make(vae, frames=34, duration="by frames")[3] == 34
    with pytest.raises(ValueError, match="frames is 18"):
        make(vae, frames=18, duration="by frames")


@pytest.mark.parametrize("frames", [0, -3])
def test_no_frames_are_refused(vaes, frames):
    for family, nearest in (("vae_v1_2", 1), ("vae_2d", 1), ("vae_v1_3", 1)):
        with pytest.raises(ValueError, match=f"frames is {frames}, .*nearest valid count is {nearest} "):
            make(vaes[family], frames=frames)


def test_the_node_shows_the_size(vae):
    node = pack("nodes.empty_latent").OpenSoraEmptyLatent
    settings = {"resolution": "240p", "aspect_ratio": "16:9", "width": 64, "height": 64, "batch_size": 1}
    output = node.execute(vae=vae, frames=17, fps=12.0, duration="2s", **settings)
    assert output.ui == {
        "opensora_size": [
            {
                "width": 426,
                "height": 240,
                "frames": 51,
                "fps": 12.0,
                "seconds": 51 / 12,
                "latents": 15,
                "duration": "2s",
                "vae": "vae_v1_2",
            }
        ]
    }
