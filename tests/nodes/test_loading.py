"""Loading: native objects, dtypes, memory, and files that are not what the node wants."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small import FLOW, MADE_FOR, VAE_CONFIG, pack, random_weights, small_transformer, small_vae, write

ROOT = Path(__file__).resolve().parents[2]


def load_model(path, dtype="auto"):
    return pack("nodes.comfy.loading").load_model(str(path), dtype)


def load_vae(path):
    return pack("nodes.comfy.loading").load_vae(str(path))


def test_model_is_native(comfy, model):
    import comfy.model_base
    import comfy.model_patcher

    assert isinstance(model, comfy.model_patcher.ModelPatcher)
    assert isinstance(model.model, comfy.model_base.BaseModel)
    assert model.model.model_type == comfy.model_base.ModelType.FLOW
    latent_format = model.get_model_object("latent_format")
    assert (latent_format.latent_channels, latent_format.latent_dimensions) == (4, 3)
    assert len(latent_format.latent_rgb_factors) == 4


def test_every_weight_is_the_files(model, checkpoints):
    state_dict, _ = pack("model.files").read_file(checkpoints["transformer"])
    own = model.model.diffusion_model.state_dict()
    assert own.keys() == state_dict.keys()
    assert all(torch.equal(own[key], state_dict[key]) for key in own)
    assert not any(parameter.requires_grad for parameter in model.model.diffusion_model.parameters())


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16", "fp8_e4m3fn"])
def test_weight_dtypes(comfy, checkpoints, positive, name):
    dtype = pack("nodes.comfy.loading").WEIGHT_DTYPES[name]
    loaded, exact = load_model(checkpoints["transformer"], name), load_model(checkpoints["transformer"], "fp32")
    network = loaded.model.diffusion_model
    assert network.spatial_blocks[0].attn.qkv.weight.dtype == dtype and network.rope.freqs.dtype == torch.float32
    x = torch.randn(1, 4, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    results = []
    for patcher in (loaded, exact):
        comfy.model_management.load_models_gpu([patcher])
        caption, extra = positive[0]
        results.append(
            patcher.model.apply_model(
                x, torch.tensor([0.7]), c_crossattn=caption, attention_mask=extra["attention_mask"], fps=24.0,
                height=32.0, width=32.0,
            )
        )  # fmt: skip
    error = (results[0] - results[1]).abs().max() / results[1].abs().max()
    assert error <= {"fp32": 0, "bf16": 0.05, "fp16": 0.01, "fp8_e4m3fn": 0.5}[name]


def test_missing_rope_frequencies_are_computed(comfy, tmp_path):
    weights = random_weights(small_transformer(), 1)
    expected = weights.pop("rope.freqs")
    loaded = load_model(write(tmp_path / "t.safetensors", weights))
    assert torch.equal(loaded.model.diffusion_model.rope.freqs, expected)


def test_missing_shift_and_scale_are_the_official_ones(comfy, tmp_path):
    weights = random_weights(small_vae(), 1)
    expected = weights.pop("shift"), weights.pop("scale")
    network = load_vae(write(tmp_path / "v.safetensors", weights, config=VAE_CONFIG)).first_stage_model
    assert torch.equal(network.shift, expected[0]) and torch.equal(network.scale, expected[1])


def test_comfyui_can_load_a_vae_again_for_another_device(comfy, vae, checkpoints):
    factory, arguments = vae.patcher.cached_patcher_init
    again = factory(*arguments, disable_dynamic=True)
    assert type(again) is comfy.model_patcher.ModelPatcher and again.model is not vae.first_stage_model
    own, fresh = vae.first_stage_model.state_dict(), again.model.state_dict()
    assert own.keys() == fresh.keys() and all(torch.equal(own[key], fresh[key]) for key in own)


def test_under_dynamic_vram_a_vaes_dtypes_are_noted_before_the_files_tensors_come(
    dynamic, comfy, checkpoints, monkeypatch
):
    """Newer ComfyUIs assign a file's own tensors and cast them when they are used."""
    noted = {}

    def note(network):
        noted.update((key, (value.dtype, value.device.type)) for key, value in network.state_dict().items())

    monkeypatch.setattr(comfy.model_management, "archive_model_dtypes", note, raising=False)
    network = load_vae(checkpoints["vae"]).first_stage_model
    key = "temporal_vae.encoder.conv_in.conv.weight"
    assert noted[key] == (torch.float32, "meta") and noted["shift"] == (torch.float32, "meta")
    state_dict, _ = pack("model.files").read_file(checkpoints["vae"])
    assert torch.equal(network.state_dict()[key], state_dict[key])


@pytest.fixture
def dynamic(comfy, monkeypatch):
    """Dynamic VRAM of newer ComfyUIs, played on any version: models keep the file's own tensors."""

    class Dynamic(comfy.model_patcher.ModelPatcher):
        def is_dynamic(self):
            return True

    def load(model, weights, prefix="", assign=False):
        model.diffusion_model.load_state_dict(weights, strict=False, assign=assign)

    monkeypatch.setattr(comfy.model_patcher, "CoreModelPatcher", Dynamic, raising=False)
    monkeypatch.setattr(comfy.model_base.BaseModel, "load_model_weights", load)


@pytest.mark.parametrize("name", ["fp8_e4m3fn", "bf16"])
def test_under_dynamic_vram_fp8_is_for_matrices_too(dynamic, checkpoints, name):
    """What every tensor is cast to when it is used is what it is kept in without dynamic VRAM."""
    late = load_model(checkpoints["transformer"], name).model.diffusion_model
    now = pack("nodes.comfy.loading").load_model(checkpoints["transformer"], name, disable_dynamic=True)
    now = now.model.diffusion_model
    for (prefix, part), (_, other) in zip(late.named_modules(), now.named_modules()):
        for key in (*part._parameters, *part._buffers):
            value = getattr(other, key)
            if value is not None:
                assert getattr(part, f"{key}_comfy_model_dtype") == value.dtype, (prefix, key)
    assert late.spatial_blocks[0].scale_shift_table.dtype == torch.float32  # the file's own
    assert {each.dtype for each in now.parameters()} >= {pack("nodes.comfy.loading").WEIGHT_DTYPES[name]}


def test_under_dynamic_vram_a_vae_computes_in_its_dtype(dynamic, comfy, checkpoints, monkeypatch):
    """And not in the file's, which is fp32 here."""
    monkeypatch.setattr(comfy.model_management, "vae_dtype", lambda *_, **__: torch.bfloat16)
    vae, seen = load_vae(checkpoints["vae"]), set()
    network = vae.first_stage_model
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}
    for part in network.modules():
        if hasattr(part, "comfy_cast_weights"):
            part.comfy_cast_weights = True  # as dynamic loading does
        if isinstance(part, (torch.nn.Conv2d, torch.nn.Conv3d)):
            part.register_forward_pre_hook(lambda part, inputs: seen.add(inputs[0].dtype))
    with torch.inference_mode():
        network.start(network.portions[0], torch.device("cpu"), vae.vae_dtype)
        latents = network.encode(torch.rand(1, 3, 17, 32, 32))
        assert seen == {torch.bfloat16}
        seen.clear()
        assert torch.isfinite(network.decode(latents)).all() and seen == {torch.bfloat16}


def test_layers_that_get_their_weights_late(comfy, checkpoints, monkeypatch):
    """Newer ComfyUIs build Linear layers without weights where VRAM is dynamic, and put them there as they load."""

    def build(self, in_features, out_features, bias=True, device=None, dtype=None):
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features, self.weight, self.bias = in_features, out_features, None, None

    def load(self, state_dict, prefix, *_):
        for name in ("weight", "bias"):
            if f"{prefix}{name}" in state_dict:
                setattr(self, name, torch.nn.Parameter(state_dict[f"{prefix}{name}"], requires_grad=False))

    layer = comfy.ops.disable_weight_init.Linear
    expected = [load_model(checkpoints["transformer"], "fp32").model.diffusion_model, load_vae(checkpoints["vae"])]
    expected[1] = expected[1].first_stage_model
    monkeypatch.setattr(layer, "__init__", build)
    monkeypatch.setattr(layer, "_load_from_state_dict", load)
    model = pack("nodes.comfy.loading").load_model(checkpoints["transformer"], "fp32", disable_dynamic=True)
    vae = pack("nodes.comfy.loading").load_vae(checkpoints["vae"], disable_dynamic=True)
    for network, whole in zip((model.model.diffusion_model, vae.first_stage_model), expected):
        own, state_dict = network.state_dict(), whole.state_dict()
        assert own.keys() == state_dict.keys() and all(torch.equal(own[key], state_dict[key]) for key in own)


def test_what_a_newer_file_says_about_its_flow_is_left_alone(comfy, tmp_path):
    flow = {**FLOW, "of_a_later_version": 3}
    path = write(
        tmp_path / "t.safetensors", random_weights(small_transformer(), 1), config={}, made_for=MADE_FOR, flow=flow
    )
    assert load_model(path).model.flow == FLOW


@pytest.mark.parametrize(("load", "name"), [(load_model, "model_name"), (load_vae, "vae_name")])
def test_damaged_files(comfy, checkpoints, tmp_path, load, name):
    whole = Path(checkpoints["transformer" if load is load_model else "vae"]).read_bytes()
    for label, content in {"cut": whole[: len(whole) // 2], "text": b"hello" * 100, "empty": b""}.items():
        path = tmp_path / f"{label}.safetensors"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}.*{label}.safetensors.*not a readable safetensors file"):
            load(path)


def test_another_familys_files(comfy, checkpoints, tmp_path):
    sd15 = write(tmp_path / "sd15.safetensors", {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(4, 4)})
    for load, wanted in ((load_model, "transformer"), (load_vae, "VAE")):
        with pytest.raises(ValueError, match=f"_name.*Stable Diffusion checkpoint.*an Open-Sora.*{wanted} goes here"):
            load(sd15)
    with pytest.raises(ValueError, match="model_name.*Open-Sora VAE 1.2.*Load Open-Sora VAE"):
        load_model(checkpoints["vae"])
    with pytest.raises(ValueError, match="vae_name.*transformer.*Load Open-Sora Model"):
        load_vae(checkpoints["transformer"])


def test_keys_that_do_not_fit_are_listed(comfy, tmp_path):
    weights = random_weights(small_transformer(), 1)
    del weights["spatial_blocks.1.mlp.fc2.bias"]
    weights["extra.key"] = torch.zeros(3)
    weights["t_block.1.bias"] = torch.zeros(5)
    with pytest.raises(ValueError, match="(?s)fc2.bias.*extra.key.*t_block.1.bias"):
        load_model(write(tmp_path / "t.safetensors", weights))


def test_combos_list_the_bundled_file_first(comfy, tmp_path, monkeypatch):
    import folder_paths

    files = pack("nodes.comfy.files")
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "vae", ([str(tmp_path)], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    (tmp_path / "mine.safetensors").touch()
    assert files.choices("vae") == ["tiny (bundled)", "mine.safetensors"]
    assert files.path_of("mine.safetensors", "vae", "vae") == str(tmp_path / "mine.safetensors")
    assert Path(files.path_of("tiny (bundled)", "vae", "vae")).parts[-3:] == ("model", "bundled", "vae.safetensors")
    with pytest.raises(ValueError, match="'other' is not in models/vae.*mine.safetensors"):
        files.path_of("other", "vae", "vae")


def test_previews_show_every_frame(comfy, model):
    from latent_preview import Latent2RGBPreviewer

    latent_format = model.get_model_object("latent_format")
    previewer = Latent2RGBPreviewer(
        latent_format.latent_rgb_factors,
        latent_format.latent_rgb_factors_bias,
        latent_format.latent_rgb_factors_reshape,
    )
    x0 = torch.zeros(1, 4, 5, 8, 8)
    x0[:, :, 3] = 3
    first, *others = (previewer.decode_latent_to_preview(x0).tobytes() for _ in range(5))
    assert [picture != first for picture in others] == [False, False, True, False]
    assert previewer.decode_latent_to_preview(x0[:, :, :1]).size == (8, 8)


PROBE = """
import sys, threading, time
sys.path[:0] = [{comfyui!r}, {tests!r}, {tests!r} + "/helpers"]
import comfy.cli_args
comfy.cli_args.args.cpu = True
import conftest
from small import pack
load = getattr(pack({module!r}), {function!r})

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))

before = peak = anonymous()
done = False

def watch():
    global peak
    while not done:
        peak = max(peak, anonymous())
        time.sleep(0.002)

watcher = threading.Thread(target=watch)
watcher.start()
loaded = load(*{arguments!r})
done = True
watcher.join()
network = loaded.first_stage_model if hasattr(loaded, "first_stage_model") else loaded.model.diffusion_model
size = sum(value.numel() * value.element_size() for value in network.state_dict().values())
print("RATIO", (peak - before) / size, size)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="RssAnon is a Linux figure")
@pytest.mark.parametrize(
    ("stored", "dtype"), [(torch.float32, "bf16"), (torch.float32, "fp32"), (torch.bfloat16, "fp32")]
)
def test_loading_never_holds_a_second_copy(comfy, tmp_path, stored, dtype):
    """Anonymous memory grows by at most 1.1 x the model, here a 270 million parameter one with XL/2's proportions."""
    stdit3 = pack("model.transformers.stdit3")
    with torch.device("meta"):
        shapes = stdit3.STDiT3(stdit3.STDiT3Config(depth=6)).state_dict()
    block = torch.randn(1 << 16) * 0.02
    weights = {
        key: block.repeat(-(-value.numel() // block.numel()))[: value.numel()].view(value.shape).to(stored)
        for key, value in shapes.items()
    }
    path = write(tmp_path / "large.safetensors", weights)
    del weights
    probe = PROBE.format(
        comfyui=os.environ["COMFYUI_PATH"],
        tests=str(ROOT / "tests"),
        module="nodes.comfy.loading",
        function="load_model",
        arguments=(path, dtype),
    )
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=280)
    ratio, size = (float(word) for word in result.stdout.split("RATIO")[1].split())
    assert size > 4e8
    assert ratio <= 1.1, f"RssAnon grew by {ratio:.2f} x the model's {size / 2**20:.0f} MiB"
