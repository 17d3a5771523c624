"""Memory of the VAEs: chunks that come and go, estimates against measurements, and going on when it runs out."""

import pytest
import torch
from memory import memory_limit
from opensora_comfy.training.live_bytes import LiveBytes
from small import NORM_GROUPS, pack, run, small_causal_vae, small_image_vae, small_vae

SMALL = {"vae_v1_2": small_vae, "vae_2d": small_image_vae, "vae_v1_3": small_causal_vae}
FRAMES = {"vae_v1_2": 20, "vae_2d": 9, "vae_v1_3": 33}  # two chunks or more
HEIGHT, WIDTH = 48, 32


@pytest.fixture(params=SMALL)
def family(request):
    return request.param


@pytest.fixture
def any_vae(vaes, family):
    return vaes[family]


def video(frames, height=HEIGHT, width=WIDTH):
    return torch.rand(frames, height, width, 3, generator=torch.Generator().manual_seed(frames))


def decode(vae, samples, frames):
    return run(pack("nodes.codec").OpenSoraVAEDecode, vae=vae, samples={"samples": samples, "frames": frames})[0]


@pytest.fixture
def limit(comfy, vaes):
    """limit(n): from now on a layer that is given a map of pictures with more than n values runs out of memory.

    The result is a list that notes how many. The temporal VAE of 1.2, whose maps are small, is left out.
    """
    pictured = {
        id(module)
        for vae in vaes.values()
        for name, module in vae.first_stage_model.named_modules()
        if not name.startswith("temporal_vae") and not list(module.children())
    }

    def size(module, inputs):
        given = [value.numel() for value in inputs if isinstance(value, torch.Tensor)]
        return max(given, default=0) if id(module) in pictured else 0

    with memory_limit(size) as at_most:
        yield at_most


@pytest.fixture
def small_slices(monkeypatch):
    """Slices may become as small as a test's pictures need."""
    monkeypatch.setattr(pack("nodes.comfy.vae.network"), "LEAST_SLICE", 256)


# --- chunk by chunk


def test_memory_does_not_grow_with_length(any_vae, family):
    """Beyond what goes in and comes out."""
    any_vae.encode(video(1))  # the first time, it also learns the colours of previews
    peaks = {"encode": [], "decode": []}
    for chunks in (1, 3, 6):
        frames = 16 * chunks + 1 if family == "vae_v1_3" else chunks * any_vae.first_stage_model.at_once.chunk_frames
        pixels = video(frames, 32, 48)
        with LiveBytes() as encoding:
            samples = any_vae.encode(pixels)
        with LiveBytes() as decoding:
            images = any_vae.decode(samples)
        assert encoding.now == samples.nbytes and decoding.now == images.nbytes
        # The result of a single chunk is not there yet while it is worked on.
        peaks["encode"].append(encoding.peak - (samples.nbytes if chunks > 1 else 0))
        peaks["decode"].append(decoding.peak - (images.nbytes if chunks > 1 else 0))
    # What 1.3 keeps of a chunk for the next shows where widths are this small.
    for one, several, many in peaks.values():
        assert many == several <= 1.1 * one, peaks


def test_a_clip_is_one_block_of_memory(any_vae):
    """Nodes that look at frames, or at the clips of a batch as one, copy nothing."""
    samples = any_vae.encode(video(17))
    images = any_vae.decode(torch.cat([samples, samples]))
    assert images.is_contiguous() and images.shape[0] == 2 and torch.equal(images[0], images[1])


# --- estimates


@pytest.mark.parametrize("name", ["small", "official"])
def test_estimates_are_what_is_measured(comfy, vaes, family, name, monkeypatch):
    """0.9 to 1.5 times the bytes of all tensors that are alive at once; official sizes on pictures that cost nothing."""
    peak_bytes = pack("runner.memory_table").peak_bytes
    module = pack("nodes.comfy.vae.video_vae")
    vae = object.__new__(module.OpenSoraVAE)
    build = SMALL[family] if name == "small" else type(SMALL[family]())
    hosted = pack("nodes.comfy.vae.network").HOSTED[family](build().config)
    vae.first_stage_model, vae.device, vae.output_device = hosted, "cuda", "cpu"
    channels, height, width = hosted.latent_channels, 96, 128
    for frames in (1, 17) if name == "small" else (17,):
        latents = hosted.latent_frames(frames)

        def encoding(network, frames=frames):
            x = torch.empty(1, 3, frames, height, width, dtype=torch.bfloat16)
            return lambda: network.encode(x)

        def decoding(network, latents=latents, frames=frames):
            z = torch.empty(1, channels, latents, height // 8, width // 8, dtype=torch.bfloat16)
            return lambda: network.decode(z, frames)

        measured = (
            peak_bytes(build, encoding) + 2 * 3 * frames * height * width
        )  # the frames came to the device as well
        encoded = vae._encode_bytes((1, 3, frames, height, width), torch.bfloat16) / measured
        decoded = vae._decode_bytes((1, channels, latents, height // 8, width // 8), torch.bfloat16) / peak_bytes(
            build, decoding
        )
        assert 0.9 <= encoded <= 1.5 and 0.9 <= decoded <= 1.5, (frames, encoded, decoded)


def test_estimates_know_the_frame_and_not_the_length(any_vae, family):
    channels = any_vae.latent_channels

    def decoding(latents, side):
        return any_vae.memory_used_decode((1, channels, latents, side, side), torch.bfloat16)

    def encoding(frames, side):
        return any_vae.memory_used_encode((1, 3, frames, side, side), torch.bfloat16)

    assert decoding(10, 16) == pytest.approx(4 * decoding(10, 8), rel=1e-4) and encoding(33, 64) == pytest.approx(
        4 * encoding(33, 32), rel=1e-4
    )
    assert encoding(34, 64) == encoding(340, 64)
    # On this machine the result stays on the device that works, so the whole video counts, in fp32.
    network = any_vae.first_stage_model
    more = network.counting.video_frames(50) - network.counting.video_frames(10)
    assert decoding(50, 8) - decoding(10, 8) == 12 * 64 * 64 * more
    assert any_vae.memory_used_decode((1, channels, 8, 8), torch.bfloat16) == decoding(1, 8)  # an image without time


# --- running out


def test_decoding_goes_on_when_memory_runs_out(any_vae, family, limit, small_slices, caplog):
    """Fewer images at once first, then slices; the same frames come out, and the next run starts afresh."""
    network, frames = any_vae.first_stage_model, FRAMES[family]
    samples = any_vae.encode(video(frames))
    expected = decode(any_vae, samples, frames)
    widest = 8 * HEIGHT * WIDTH * (20 if family == "vae_v1_3" else 1)  # a picture, or a chunk, of the widest map
    for most in (widest, widest // 4):
        caplog.clear()
        refused = limit(most)
        images = decode(any_vae, samples, frames)
        assert refused and images.shape == expected.shape and torch.allclose(images, expected, atol=1e-5)
        assert "goes on with less at once" in caplog.text
        assert (network.portion.maps is None) == (most == widest and family != "vae_v1_3")


def test_encoding_goes_on_when_memory_runs_out(any_vae, family, limit, small_slices):
    pixels = video(FRAMES[family])
    expected = any_vae.encode(pixels)
    refused = limit(8 * HEIGHT * WIDTH * (20 if family == "vae_v1_3" else 1) // 4)
    latents = any_vae.encode(pixels)
    assert refused and any_vae.first_stage_model.portion.maps is not None
    assert latents.shape == expected.shape and torch.allclose(latents, expected, atol=1e-5)


@pytest.mark.parametrize("frames", [3, 20])
def test_any_length_survives(vaes, limit, small_slices, frames):
    """The fall-back knows how many frames were asked for."""
    vae = vaes["vae_v1_2"]
    samples = vae.encode(video(frames))
    expected = decode(vae, samples, frames)
    assert len(expected) == frames
    refused = limit(8 * HEIGHT * WIDTH // 2)
    assert torch.allclose(decode(vae, samples, frames), expected, atol=1e-5) and refused


def test_an_image_latent_without_time_survives(vaes, limit, small_slices):
    vae = vaes["vae_v1_2"]
    samples = vae.encode(video(1))[:, :, 0]
    expected = decode(vae, samples, 1)
    refused = limit(8 * HEIGHT * WIDTH // 2)
    images = decode(vae, samples, 1)
    assert (
        refused
        and images.shape == expected.shape == (1, HEIGHT, WIDTH, 3)
        and torch.allclose(images, expected, atol=1e-5)
    )


def test_what_can_not_fit_fails(comfy, any_vae, family, limit):
    """Without end it is not tried; and errors of other kinds are not taken for a lack of memory."""
    samples = any_vae.encode(video(1))
    limit(0)
    with pytest.raises(comfy.model_management.OOM_EXCEPTION):
        any_vae.decode(samples)


def test_other_errors_are_no_lack_of_memory(any_vae, monkeypatch):
    samples, tries = any_vae.encode(video(1)), []

    def broken(*_, **__):
        tries.append(1)
        raise RuntimeError("something else")

    monkeypatch.setattr(torch.nn.functional, "silu", broken)
    with pytest.raises(RuntimeError, match="something else"):
        any_vae.decode(samples)
    assert len(tries) == 1


def test_the_plan_follows_free_memory(comfy, any_vae, family, monkeypatch):
    """Drivers that swap instead of failing are never asked for more than there is."""
    network, frames = any_vae.first_stage_model, FRAMES[family]
    samples = any_vae.encode(video(frames))
    expected = any_vae.decode(samples)
    for plan in network.portions:
        free = any_vae._decode_bytes(samples.shape, any_vae.vae_dtype, plan) + 1
        monkeypatch.setattr(pack("nodes.comfy.versions"), "free_memory", lambda *_, free=free: free)
        assert torch.allclose(any_vae.decode(samples), expected, atol=1e-5) and network.portion == plan


# --- slices


def test_slices_leave_no_seam(vaes, tiny):
    """On a textured clip: slices of a few rows give the picture that the whole network gives."""
    ys, xs = torch.meshgrid(torch.arange(64.0), torch.arange(80.0), indexing="ij")
    texture = 0.5 + 0.25 * torch.sin(xs / 3)[..., None] * torch.tensor([1.0, 0.5, -1.0])
    texture = texture + 0.25 * torch.cos(ys / 5 + xs / 11)[..., None] * torch.tensor([-0.5, 1.0, 0.7])
    clip = texture.clamp(0, 1)[None]
    for vae in (tiny.vae, *vaes.values()):
        samples = vae.encode(clip)
        whole = vae.decode(samples)
        sliced = vae.decode_tiled(samples, tile_x=4, tile_y=4, overlap=0)
        assert (sliced - whole).abs().max() < 1e-4


def test_a_slice_is_as_small_as_it_says(vaes):
    """The largest tensor on the device shrinks with the slice."""
    slicing, network = pack("model.vaes.slicing"), vaes["vae_2d"].first_stage_model
    cpu, sizes = torch.device("cpu"), []
    convolve = torch.nn.functional.conv2d

    def noting(x, *arguments, **named):
        sizes.append(x.numel())
        return convolve(x, *arguments, **named)

    latents = vaes["vae_2d"].encode(video(1, 128, 128))
    torch.nn.functional.conv2d = noting
    try:
        network.decode(latents, 1)
        whole = max(sizes)
        sizes.clear()
        with slicing.in_slices(slicing.Slices(8 * 128 * 8, cpu, cpu)):
            type(network).__mro__[2].decode(network, latents, 1)
    finally:
        torch.nn.functional.conv2d = convolve
    # Eight rows, and a row of neighbours above and below, which doubling doubles.
    assert whole == 8 * 128 * 128 and max(sizes) <= 8 * 128 * 14


def test_group_norms_of_slices_are_those_of_the_whole(comfy):
    slicing = pack("model.vaes.slicing")
    norm = torch.nn.GroupNorm(NORM_GROUPS, 8)
    torch.nn.init.normal_(norm.weight), torch.nn.init.normal_(norm.bias)
    x = 3 + 2 * torch.randn(2, 8, 5, 20, 6)
    cpu = torch.device("cpu")
    with torch.no_grad(), slicing.in_slices(slicing.Slices(1000, cpu, cpu)):
        sliced = slicing.row_wise(slicing.known(norm, x), x)
    assert torch.allclose(sliced, norm(x), atol=1e-5)
    assert not torch.allclose(torch.cat([norm(part) for part in x.split(5, 3)], 3), norm(x), atol=1e-2)


def test_weights_may_stay_in_main_memory(comfy, any_vae):
    """As under --lowvram: layers fetch their weights when they are used, in slices too."""
    factory, arguments = any_vae.patcher.cached_patcher_init
    patcher = factory(*arguments, disable_dynamic=True)
    network, cpu = patcher.model, torch.device("cpu")
    samples = any_vae.encode(video(1))
    with torch.inference_mode():
        expected = network.decode(samples)
        patcher.patch_model(cpu, lowvram_model_memory=patcher.model_size() // 3)
        assert any(getattr(part, "comfy_cast_weights", False) for part in network.modules())
        assert torch.allclose(network.decode(samples), expected, atol=1e-5)
        network.start(network.portions[-1], cpu, torch.float32, values=1000)
        assert torch.allclose(network.decode(samples), expected, atol=1e-5)
        assert patcher.partially_unload(cpu, patcher.model_size()) > 0
        assert torch.allclose(network.decode(samples), expected, atol=1e-5)
    patcher.detach()
