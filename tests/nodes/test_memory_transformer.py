"""Memory of the transformers: estimates against measurements, going on when it runs out, weights that come and go."""

import pytest
import torch
from families import SMALL, VERSIONS, clip, ours
from golden import difference
from memory import memory_limit
from opensora_comfy.training.live_bytes import LiveBytes
from small import CAPTION_CHANNELS, CAPTION_LENGTH, pack, run


@pytest.fixture(params=SMALL)
def name(request):
    return request.param


def latent_shape(name, batch=1, side=16):
    channels, *_ = clip(name)["samples"].shape[1:]
    return (batch, channels, 1 if name == "pixart" else 5, side, side)


def call(model, name, batch=1, length=CAPTION_LENGTH, side=16):
    """One call of the transformer as ComfyUI's samplers make it."""
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(latent_shape(name, batch, side), generator=generator)
    caption = torch.randn(batch, length, CAPTION_CHANNELS, generator=generator)
    numbers = dict(fps=24.0, height=8.0 * side, width=8.0 * side, num_frames=float(x.shape[2]))
    with torch.inference_mode():
        return model.model.apply_model(x, torch.full((batch,), 0.7), c_crossattn=caption, **numbers)


# --- estimates


@pytest.fixture
def fused(monkeypatch):
    """Attention by PyTorch's fused kernels, as on a GPU."""
    import comfy.ldm.modules.attention

    monkeypatch.setattr(
        pack("nodes.comfy.transformer.attention"), "optimized_attention", comfy.ldm.modules.attention.attention_pytorch
    )


@pytest.mark.parametrize(("batch", "length", "side"), [(1, CAPTION_LENGTH, 16), (2, CAPTION_LENGTH, 16), (2, 400, 20)])
def test_estimates_are_what_is_measured(models, name, fused, batch, length, side):
    """0.9 to 1.5 times the bytes of all tensors that are alive at once, with a sampler's own left out."""
    model, shape = models[name].model, latent_shape(name, batch, side)
    call(models[name], name)  # tables that are made once
    with LiveBytes() as measured:
        call(models[name], name, batch, length, side)
    given = {"c_crossattn": [torch.Size((1, length, CAPTION_CHANNELS))]}
    latents = pack("nodes.comfy.transformer.activations").LATENT_BYTES * torch.Size(shape).numel()
    estimate = model.memory_required(shape, cond_shapes=given) - latents
    assert 0.9 <= estimate / measured.peak <= 1.5, estimate / measured.peak


def test_comfyui_asks_in_two_forms(comfy, models, name, positive):
    """Before loading with a list and what the prompts say of themselves, before a call with the shapes of the conds."""
    import comfy.sampler_helpers

    model, shape = models[name], latent_shape(name)
    long = [[positive[0][0].repeat(1, 20, 1), {}]]
    conds = {key: comfy.sampler_helpers.convert_cond(value) for key, value in (("positive", positive), ("long", long))}
    most, least = comfy.sampler_helpers.estimate_memory(model, shape, conds)
    double = torch.Size((2, *shape[1:]))
    for asked, rows in ((most, double), (least, shape)):
        lengths = [torch.Size((1, 20 * CAPTION_LENGTH, CAPTION_CHANNELS))]
        assert asked == model.model.memory_required(rows, cond_shapes={"c_crossattn": lengths})
    # A caption is an attention's keys and values, not a token of the clip: long ones count, but little.
    alone = model.model.memory_required(double)
    assert alone == model.model.memory_required(double, cond_shapes={"fps": [()]}) and alone < most
    assert model.memory_required(shape) == model.model.memory_required(shape)  # as ModelPatcher asks


def test_estimates_grow_with_the_clip(models, name):
    required = models[name].model.memory_required
    one = required(latent_shape(name))
    assert 1.9 < required(latent_shape(name, batch=2)) / one <= 2.0
    assert 3 < required(latent_shape(name, side=32)) / one < 4.1


# --- running out


@pytest.fixture
def limit(comfy, models):
    """limit(n): from now on a block's Linear that would make more than n values runs out of memory; a list notes them."""
    watched = {
        id(module)
        for model in models.values()
        for place, module in model.model.diffusion_model.named_modules()
        if "blocks." in place and isinstance(module, torch.nn.Linear)
    }

    def size(module, inputs):
        return inputs[0].numel() // inputs[0].shape[-1] * module.out_features if id(module) in watched else 0

    with memory_limit(size) as at_most:
        yield at_most


@pytest.fixture
def fresh(models, name, monkeypatch):
    """A MODEL that has never run out of memory, and forgets that it did."""
    pieces = pack("nodes.comfy.transformer.low_memory").Pieces()
    monkeypatch.setattr(models[name].model.diffusion_model, "pieces", pieces)
    return models[name]


@pytest.mark.parametrize("batch", [1, 2])
def test_a_call_goes_on_when_memory_runs_out(fresh, name, limit, batch, caplog):
    """In pieces, with the same result; calls of that size know it from then on, smaller ones stay whole."""
    hidden = fresh.model.diffusion_model.config.hidden_size
    tokens = batch * latent_shape(name)[2] * 8 * 8
    expected, small = call(fresh, name, batch), call(fresh, name, side=4)
    # Below what q, k and v take together; a single picture is one row of attention, so there the MLP counts.
    refused = limit(3 * hidden * tokens // (1 if name == "pixart" and batch == 1 else 2))
    assert torch.allclose(call(fresh, name, batch), expected, atol=1e-5)
    assert len(refused) == 1 and "goes on in 4 pieces" in caplog.text
    assert torch.allclose(call(fresh, name, batch), expected, atol=1e-5) and len(refused) == 1
    assert difference(call(fresh, name, side=4), small) <= 1e-6  # but for an activation that is no more in its product


def test_ever_more_pieces_and_no_end_without_hope(comfy, fresh, name, limit):
    hidden = fresh.model.diffusion_model.config.hidden_size
    expected = call(fresh, name)
    refused = limit(250 * hidden)  # a quarter of the MLP's tokens is too much, a frame's q, k and v are not
    if name != "pixart":  # a picture's attention is one row
        assert torch.allclose(call(fresh, name), expected, atol=1e-5) and fresh.model.diffusion_model.pieces.count == 16
    limit(0)
    with pytest.raises(comfy.model_management.OOM_EXCEPTION):
        call(fresh, name)
    assert len(refused) < 10
    assert not any("forward" in vars(module) for module in fresh.model.diffusion_model.modules())


def test_pieces_take_less_memory(fresh, name, fused):
    """Than the whole; how much less, docs/memory.md says."""
    pieces, network = pack("nodes.comfy.transformer.low_memory"), fresh.model.diffusion_model
    call(fresh, name)
    peaks = []
    for count in (1, 16):
        with pieces.in_pieces(network, count), LiveBytes() as measured:
            call(fresh, name)
        peaks.append(measured.peak)
    assert peaks[1] < (1 if name == "pixart" else 0.75) * peaks[0], peaks


def test_a_sampling_run_survives(fresh, name, limit, positive):
    """From the first step to the last, with guidance and the node's own sampler."""
    latent = clip(name)
    expected = ours(fresh, positive, latent, steps=3)
    hidden = fresh.model.diffusion_model.config.hidden_size
    shape = latent["samples"].shape
    tokens = 2 * shape[2] * -(-shape[3] // 2) * -(-shape[4] // 2)
    refused = limit(max(4 * hidden * tokens * 3 // 4, 2 * 2 * hidden * CAPTION_LENGTH))
    found = ours(fresh, positive, latent, steps=3)
    assert difference(found, expected) <= 1e-5
    assert refused or name == "pixart"


def test_patches_of_attention_see_all_of_it(fresh, name):
    """NAG and others tell the prompts of a batch apart by its rows; with them only the MLPs go in pieces."""
    model, rows = fresh.clone(), []

    def watch(out, extra):
        rows.append(out.shape[0])
        return out

    model.set_model_patch(watch, "attn1_output_patch")
    options = model.model_options["transformer_options"]
    network, shape = model.model.diffusion_model, latent_shape(name)
    x, caption = torch.randn(shape), torch.randn(1, CAPTION_LENGTH, CAPTION_CHANNELS)
    seen = []
    for count in (1, 16):
        rows.clear()
        with torch.inference_mode(), pack("nodes.comfy.transformer.low_memory").in_pieces(network, count):
            out = network(x, torch.tensor([500.0]), caption, transformer_options=dict(options))
        seen.append((list(rows), out))
    assert seen[0][0] == seen[1][0] and torch.allclose(seen[0][1], seen[1][1], atol=1e-5)


# --- weights that come and go


def test_weights_may_stay_in_main_memory(comfy, models, name, positive):
    """As under --lowvram: most weights are fetched when they are used; and they come back."""
    model, latent = models[name].clone(), clip(name)
    expected = ours(model, positive, latent, steps=2)
    comfy.model_management.unload_all_models()
    device = torch.device("cpu")
    model.model.model_lowvram = False
    model.patch_model(device, lowvram_model_memory=model.model_size() // 3)
    lazy = [part for part in model.model.diffusion_model.modules() if getattr(part, "comfy_cast_weights", False)]
    assert lazy and 0 < model.loaded_size() < model.model_size() and model.model.model_lowvram
    numbers = dict(fps=24.0, height=40.0, width=48.0, num_frames=17.0)
    x, caption = latent["samples"] + 1, positive[0][0]
    found = model.model.apply_model(x, torch.tensor([0.7]), c_crossattn=caption, **numbers)
    model.partially_load(device, model.model_size())
    whole = model.model.apply_model(x, torch.tensor([0.7]), c_crossattn=caption, **numbers)
    assert torch.allclose(found, whole, atol=1e-6)
    freed = model.partially_unload(device, model.model_size() // 2)
    assert freed > 0
    assert torch.allclose(
        model.model.apply_model(x, torch.tensor([0.7]), c_crossattn=caption, **numbers), whole, atol=1e-6
    )
    model.detach()
    assert torch.equal(ours(model, positive, latent, steps=2), expected)


class Quantised(torch.Tensor):
    """int8 values with a scale, as file formats of other packs bring them."""

    @classmethod
    def of(cls, weight):
        scale = weight.abs().amax().float() / 127
        found = (weight.float() / scale).round().to(torch.int8).as_subclass(cls)
        found.scale = scale
        return found


def int8_operations(comfy):
    """Layers whose Linear takes Quantised weights and brings them back when it is used."""

    class Operations(comfy.ops.manual_cast):
        class Linear(comfy.ops.manual_cast.Linear):
            scale = None

            def _load_from_state_dict(self, state_dict, prefix, *arguments):
                weight = state_dict.get(f"{prefix}weight")
                if not isinstance(weight, Quantised):
                    super()._load_from_state_dict(state_dict, prefix, *arguments)
                    return
                self.scale = weight.scale
                self.weight = torch.nn.Parameter(weight.as_subclass(torch.Tensor), requires_grad=False)
                self.bias = torch.nn.Parameter(state_dict[f"{prefix}bias"], requires_grad=False)

            def forward(self, x):
                if self.scale is None:
                    return super().forward(x)
                weight = self.weight.to(device=x.device, dtype=x.dtype) * self.scale.to(x)
                return torch.nn.functional.linear(x, weight, self.bias.to(x))

    return Operations


def test_layers_of_other_packs(comfy, families, models, name, positive):
    """Quantised matrices stay so in memory; the rest is the file's, and the model samples as ever."""
    loading = pack("nodes.comfy.loading")
    state_dict, _ = pack("model.files").read_file(families[name])
    metadata = {"config": SMALL[name][3]}
    quantised = {
        key: Quantised.of(value) if value.ndim == 2 and key.endswith(("qkv.weight", "fc1.weight")) else value
        for key, value in state_dict.items()
    }
    model = loading.model_of(quantised, metadata, "fp32", custom_operations=int8_operations(comfy))
    network = model.model.diffusion_model
    small = [part for part in network.modules() if getattr(part, "scale", None) is not None]
    assert small and all(part.weight.dtype == torch.int8 for part in small)
    assert not any(weight.is_meta for weight in (*network.parameters(), *network.buffers()))
    expected = ours(models[name], positive, clip(name), steps=2)
    found = ours(model, positive, clip(name), steps=2)
    assert 0 < (found - expected).abs().max() < 0.2 * expected.std()
    # The same layers on plain weights change nothing.
    plain = loading.load_model(families[name], "fp32", int8_operations(comfy))
    assert difference(ours(plain, positive, clip(name), steps=2), expected) <= 1e-5
    factory, arguments = plain.cached_patcher_init
    assert factory(*arguments, disable_dynamic=True).model.version == VERSIONS[name]


def test_the_loader_node_stays_as_it_was(comfy, families):
    node = pack("nodes.loaders").OpenSoraLoadModel
    assert [each.id for each in node.define_schema().inputs] == ["model_name", "weight_dtype"]
    assert run(node, model_name=pack("nodes.comfy.files").BUNDLED, weight_dtype="auto")[0].model.version == "1.2"
