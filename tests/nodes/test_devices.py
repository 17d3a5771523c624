"""No tensor of a CPU meets one of a GPU: all runs on a GPU that is not there, where such a mix raises.

What it makes has values (fake_gpu.py), and they are those of a run on the CPU.
"""

import pytest
import torch
from fake_gpu import CPU, GPU, FakeGPU, comfyui_on_gpu, on_cpu
from families import SMALL, clip, negative, ours
from golden import difference
from long_clips import COUNTS, call, clip_of, extend, prompt
from small import VAE_CONFIG, pack, run, write
from stock import ksampler, sampler_custom_advanced

MASK = [0.0, 1.0, 0.6, 0.0, 1.0]
LORA = {
    "stdit3": ("spatial_blocks.0.attn.qkv.weight", "temporal_blocks.1.scale_shift_table"),
    "stdit3_v1_3": ("spatial_blocks.0.mlp.fc1.weight", "final_layer.scale_shift_table"),
}


@pytest.fixture
def gpu(comfy, monkeypatch):
    """gpu(…): a FakeGPU that ComfyUI loads onto from now on; arguments as `comfyui_on_gpu`."""
    import comfy.ldm.modules.attention as backends

    monkeypatch.setattr(pack("nodes.comfy.transformer.attention"), "optimized_attention", backends.attention_pytorch)

    def begin(**how):
        comfyui_on_gpu(monkeypatch, **how)
        return FakeGPU()

    return begin


def load(path, dtype="fp32"):
    return pack("nodes.comfy.loading").load_model(path, dtype)


def masked(name, region=False):
    """Two clips with frames that are kept, wake and are generated; with `region` a part of one of these is kept too."""
    latent = clip(name, [1.0] if name == "pixart" else MASK, batch=2)
    if region:
        latent["noise_mask"][:, :, -1, :2] = 0
    return latent


def places(patcher):
    return {parameter.device.type for parameter in patcher.model.parameters()}


# Transformers


@pytest.mark.parametrize("share", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("name", SMALL)
def test_families(models, families, positive, gpu, name, share):
    """All weights on the GPU, half of them, and none."""
    latent = masked(name)
    expected = ours(models[name], positive, latent, steps=2)
    fake, model = gpu(share=share), load(families[name])
    assert model.load_device == GPU
    with fake:
        samples = ours(model, positive, latent, steps=2)
        assert places(model) == {1.0: {"cuda"}, 0.5: {"cpu", "cuda"}, 0.0: {"cpu"}}[share]
    assert samples.device == CPU and difference(on_cpu(samples), expected) <= 1e-5


@pytest.mark.parametrize(("dtype", "share"), [("bf16", 1.0), ("fp8_e4m3fn", 1.0), ("fp8_e4m3fn", 0.0)])
@pytest.mark.parametrize("name", SMALL)
def test_low_precision(families, positive, gpu, name, dtype, share):
    """bf16, and fp8 that is cast when it is used; a region over time, and everything on the GPU between the nodes too."""
    fake, model = gpu(share=share, everywhere=True), load(families[name], dtype)
    assert pack("nodes.comfy.transformer.base_model").compute_dtype(model.model) == torch.bfloat16
    with fake:
        samples = ours(model, positive, masked(name, region=True), steps=2)
    assert samples.device == GPU and on_cpu(samples).isfinite().all()


@pytest.mark.parametrize("name", LORA)
def test_patched_weights_that_are_not_loaded(models, families, positive, gpu, name):
    """A LoRA on a matrix, and on a table that ComfyUI's partial loading passes over."""
    latent = masked(name)

    def patched(model):
        model = model.clone()
        for key in LORA[name]:
            own = model.model.get_parameter(f"diffusion_model.{key}")
            change = 0.1 * torch.randn(own.shape, generator=torch.Generator().manual_seed(3))
            model.add_patches({f"diffusion_model.{key}": (change,)})
        return model

    expected = ours(patched(models[name]), positive, latent, steps=1)
    assert difference(ours(models[name], positive, latent, steps=1), expected) > 0.01
    fake, model = gpu(share=0.0), patched(load(families[name]))
    with fake:
        samples = ours(model, positive, latent, steps=1)
    assert difference(on_cpu(samples), expected) <= 1e-3  # newer versions work LoRAs out in fp16 on a GPU


@pytest.mark.parametrize("kept", [True, False])
def test_guidance_of_v1_3(models, families, positive, gpu, kept):
    """Oscillation, SDEdit and guidance by kept frames; without any, the flaw fix."""
    name = "stdit3_v1_3"
    latent, options = masked(name) if kept else clip(name), pack("model.flow_v1_3").OFFICIAL
    apply = pack("nodes.comfy.sampling.run").with_options
    expected = ours(apply(models[name], options), positive, latent, steps=2)
    fake, model = gpu(), apply(load(families[name]), options)
    with fake:
        samples = ours(model, positive, latent, steps=2)
    assert difference(on_cpu(samples), expected) <= 1e-5


@pytest.mark.parametrize("name", ["stdit2", "stdit3", "stdit3_v1_3"])
def test_pieces_of_a_call(models, families, positive, gpu, name):
    """A transformer that ran out of memory goes on in pieces."""
    latent = masked(name)
    expected = ours(models[name], positive, latent, steps=2)
    fake, model = gpu(), load(families[name])
    model.model.diffusion_model.pieces.size, model.model.diffusion_model.pieces.count = 0, 4
    with fake:
        samples = ours(model, positive, latent, steps=2)
    assert difference(on_cpu(samples), expected) <= 1e-5


# Samplers


@pytest.fixture
def plain_network(monkeypatch):
    """Networks that look at what they are told of time, and do nothing else: what is tested are the samplers."""

    def run(self, x, timestep, caption, caption_mask, frame_mask, clip, **given):
        told = timestep.view(-1, 1, 1, 1, 1) / 1000
        return torch.cat([(x - told).to(x), x.new_zeros(x.shape)], dim=1)[:, : self.out_channels]

    for name in ("stdit2", "stdit3"):
        kind = {"stdit2": "STDiT2", "stdit3": "STDiT3"}[name]
        monkeypatch.setattr(getattr(pack(f"model.transformers.{name}"), kind), "run", run)


@pytest.mark.parametrize("name", ["stdit2", "stdit3"])
def test_every_sampler(comfy, models, families, positive, gpu, plain_network, name):
    """Ours and ComfyUI's, with frames that are kept: the latents are on the GPU, the noise levels too."""
    latent, against = masked(name), negative(models[name], positive)
    # Fake tensors make no tensor of a list of them, as UniPC does, and draw no noise on the GPU.
    left_out = ("uni_pc", "_bh2", "_gpu")
    names = [each for each in comfy.samplers.KSampler.SAMPLERS if not each.endswith(left_out)]
    expected = {each: ksampler(models[name], positive, against, latent, each, steps=2) for each in names}
    fake, model = gpu(), load(families[name])
    for each in names:
        with fake:
            samples = ksampler(model, positive, against, latent, each, steps=2)
        assert difference(on_cpu(samples), expected[each]) <= 1e-4, each
    assert len(names) > 30


@pytest.mark.parametrize("name", SMALL)
def test_stock_graphs(models, families, positive, gpu, name):
    """KSampler and SamplerCustomAdvanced, whose noise levels are made on the CPU."""
    latent, against = masked(name), negative(models[name], positive)
    expected = ksampler(models[name], positive, against, latent, steps=2)
    fake, model = gpu(), load(families[name])
    with fake:
        samples = ksampler(model, positive, against, latent, steps=2)
        custom = sampler_custom_advanced(model, positive, against, latent, steps=2)
    assert difference(on_cpu(samples), expected) <= 1e-5 and difference(on_cpu(custom), expected) <= 1e-5


def test_previews(comfy, tiny, monkeypatch, gpu):
    """Of a run on the GPU, in the colours that the bundled file brings as a network."""
    import latent_preview

    latent_format = tiny.model.get_model_object("latent_format")
    monkeypatch.setattr(latent_preview.args, "preview_method", latent_preview.LatentPreviewMethod.Latent2RGB)
    monkeypatch.setattr(latent_preview, "preview_to_image", lambda picture: picture)
    x0 = torch.randn(1, 4, 5, 8, 8, generator=torch.Generator().manual_seed(1))
    assert latent_format.latent_rgb_network is not None
    expected = latent_preview.get_previewer(CPU, latent_format).decode_latent_to_preview(x0)
    with gpu() as fake:
        shown = latent_preview.get_previewer(GPU, latent_format).decode_latent_to_preview(fake.place(x0))
    assert expected.shape == (8, 8, 3) and difference(on_cpu(shown), expected) <= 1e-5


# VAEs, and what the nodes do with them


@pytest.fixture
def load_vae(vae_weights, tmp_path, monkeypatch):
    """load_vae(family), in fp32, so that there is something to compare with."""
    import comfy.model_management as management

    monkeypatch.setattr(pack("nodes.comfy.vae.preview_colors"), "learn", lambda vae: None)
    monkeypatch.setattr(management.args, "fp32_vae", True)

    def load(family):
        path = write(tmp_path / f"{family}.safetensors", vae_weights[family], config=VAE_CONFIG)
        return pack("nodes.comfy.loading").load_vae(path)

    return load


@pytest.mark.parametrize(("portion", "share"), [(0, 1.0), (0, 0.0), (1, 1.0), (-1, 1.0), (-1, 0.0)])
@pytest.mark.parametrize("family", ["vae_v1_2", "vae_2d", "vae_v1_3"])
def test_vaes(vaes, load_vae, gpu, family, portion, share, monkeypatch):
    """Two chunks there and back, whole and in slices that wait on the GPU and in main memory."""
    frames = {"vae_v1_2": 18, "vae_2d": 5, "vae_v1_3": 33}[family]
    pixels = torch.rand(frames, 24, 16, 3, generator=torch.Generator().manual_seed(2))
    latents = vaes[family].encode(pixels)
    images = vaes[family].decode(latents)
    fake, vae = gpu(share=share), load_vae(family)
    network = vae.first_stage_model
    monkeypatch.setattr(network, "portions", network.portions[portion:][:1])
    for name, value in (("LEAST_SLICE", 2**14), ("SLICE_COPIES", 2**40)):
        monkeypatch.setattr(pack("nodes.comfy.vae.network"), name, value)
    with fake:
        again, back = vae.encode(pixels), vae.decode(latents)
        assert places(vae.patcher) == ({"cuda"} if share else {"cpu"})
    assert difference(on_cpu(again), latents) <= 1e-5 and difference(on_cpu(back), images) <= 1e-5


@pytest.mark.parametrize(("generation", "everywhere"), [("1.2", False), ("1.2", True), ("1.3", True), ("2d", True)])
def test_keyframes_and_long_videos(setups, families, checkpoints, load_vae, gpu, generation, everywhere, monkeypatch):
    """The nodes in a row, where latents and pictures wait in main memory, and where all is on the GPU (--gpu-only)."""
    monkeypatch.setattr(pack("nodes.seams"), "ATTEMPTS", 1)
    frames, longer, context, segment = COUNTS[generation]
    (model, vae), vae_family = setups[generation], {"1.2": "vae_v1_2", "1.3": "vae_v1_3", "2d": "vae_2d"}[generation]
    picture = torch.rand(1, 16, 24, 3, generator=torch.Generator().manual_seed(7))
    shape = torch.zeros(16, 24)
    shape[:9, :10] = 1

    def graph(setup, latent):
        model, vae = setup
        keyframe = {"vae": vae, "image": picture, "frame": 0, "strength": 0.7}
        pinned = run(pack("nodes.keyframe").OpenSoraKeyframe, latent=latent, **keyframe)[0]
        run_of = {"frames": longer - frames, "context": context, "segment": segment}
        begun = extend(setup, {**latent, "samples": pinned["samples"]}, **run_of)
        begun["noise_mask"] = torch.ones(begun["samples"].shape[2:])  # of a stock node, in main memory
        part = run(pack("nodes.region").OpenSoraMaskRegion, latent=begun, vae=vae, mask=shape)[0]
        made = ours(model, prompt(3), part, steps=2)
        if generation != "2d":
            made = call("OpenSoraLoop", setup, latent={**begun, "samples": made}, **run_of)["samples"]
        return vae.decode(made), ours(model, prompt(3), pinned, steps=2)

    expected = graph((model, vae), clip_of(vae, frames))
    fake = gpu(everywhere=everywhere)
    family = type(model.model.diffusion_model).family
    setup = load(checkpoints["transformer"] if generation == "1.2" else families[family]), load_vae(vae_family)
    with fake:
        latent = clip_of(setup[1], frames)
        if everywhere:
            latent["samples"] = latent["samples"].to(GPU)
        found = graph(setup, latent)
    for one, other in zip(found, expected):
        assert one.device == (GPU if everywhere else CPU) and difference(on_cpu(one), other) <= 1e-4


def test_prompts(tiny, gpu):
    """The text encoder on the GPU, the null caption of a MODEL that is not loaded yet, and one that is."""
    conditioning, loading, files = (
        pack(f"nodes.comfy.{name}") for name in ("sampling.conditioning", "loading", "files")
    )
    expected = conditioning.encode_prompt(tiny.clip, "a red circle", model=tiny.model)
    fake = gpu(everywhere=True)
    encoder = loading.load_text_encoder(files.path_of(files.BUNDLED, "text_encoders", "text_encoder"))
    model = load(files.path_of(files.BUNDLED, "diffusion_models", "transformer"))
    with fake:
        found = conditioning.encode_prompt(encoder, "a red circle", model=model)
        null = conditioning.null_conditioning(model, found)
        latent = {"samples": torch.zeros(1, 4, 5, 4, 4), "frames": 17, "fps": 24.0, "height": 32, "width": 32}
        samples = ours(model, found, latent, steps=1, negative=null)
    assert difference(on_cpu(found[0][0]), expected[0][0]) <= 1e-5
    assert null[0][0].device == found[0][0].device and on_cpu(samples).isfinite().all()


@pytest.mark.parametrize("name", SMALL)
def test_steps_wait_for_little(families, positive, gpu, name):
    """What a further step copies or asks for, outside the network: prompts and draws go to the GPU, as ComfyUI has it.

    For each a GPU finishes all that is queued. That frames are kept costs nothing more.
    """
    waits = []
    for steps in (2, 3):
        fake, model, inside = gpu(), load(families[name]), []
        network = model.model.diffusion_model
        network.register_forward_pre_hook(lambda *call, inside=inside, fake=fake: inside.append(-len(fake.waits)))
        network.register_forward_hook(lambda *call, inside=inside, fake=fake: inside.append(len(fake.waits)))
        with fake:
            ours(model, positive, masked(name), steps=steps)
        waits.append(len(fake.waits) - sum(inside))
    assert waits[1] - waits[0] <= 6
