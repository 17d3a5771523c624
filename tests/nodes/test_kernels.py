"""comfy-kitchen's fused operations, run by its backend in PyTorch, against the plain ones: alone and in every family."""

import copy
from types import SimpleNamespace

import pytest
import torch
from families import EPSILON, SMALL, clip, small_family
from golden import difference
from small import CAPTION_CHANNELS, CAPTION_LENGTH, pack

FP32, BF16 = 2e-6, 2e-2  # the second: within what rounding to bf16 does to a network's output


@pytest.fixture
def kernels(comfy, monkeypatch):
    """Those of the host; on a ComfyUI without comfy-kitchen with a stand-in of the same operations, by its rules."""
    module = pack("nodes.comfy.transformer.kernels")
    if pack("nodes.comfy.versions").kitchen() is None:
        monkeypatch.setattr(module, "kitchen", Kitchen)
    return module.HostKernels(everywhere=True)


class Kitchen:
    """What a comfy-kitchen does, written down again from its documentation."""

    @staticmethod
    def adaln(x, scale, shift, eps):
        return torch.nn.functional.layer_norm(x, x.shape[-1:], eps=eps) * (1 + scale) + shift

    @staticmethod
    def rms_rope_(q, k, freqs_cis, q_scale, k_scale, epsilon):
        assert not any(each.requires_grad for each in (q, k, q_scale, k_scale))
        for x, scale in ((q, q_scale), (k, k_scale)):
            x.copy_(torch.nn.functional.rms_norm(x, x.shape[-1:], scale, epsilon))
        Kitchen.apply_rope_(q, k, freqs_cis)

    @staticmethod
    def apply_rope_(xq, xk, freqs_cis):
        assert not any(each.requires_grad for each in (xq, xk))
        for x in (xq, xk):
            x.copy_((freqs_cis @ x.float().unflatten(-1, (-1, 2, 1))).flatten(-3))


def plain():
    return pack("model.transformers.kernels").Kernels()


def random(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, FP32), (torch.bfloat16, BF16)])
@pytest.mark.parametrize("frames", [1, 5])
def test_norm_and_modulation(kernels, dtype, tolerance, frames):
    x, shift, scale = (random(2, *rest, 48, dtype=dtype) for rest in ((5, 7), (frames,), (frames,)))
    with torch.no_grad():
        assert kernels.has("adaln", x=x)
        found, wanted = (each.modulated_norm(x, shift, scale) for each in (kernels, plain()))
    assert found.dtype == dtype and difference(found, wanted) <= tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, FP32), (torch.bfloat16, BF16)])
@pytest.mark.parametrize("rope_first", [False, True])
@pytest.mark.parametrize("together", [True, False], ids=["norm and rotation", "rotation"])
def test_queries_and_keys(kernels, monkeypatch, dtype, tolerance, rope_first, together):
    """They are views of one product, and both clips of a batch are turned; some backends have the rotation alone."""
    asked = only(kernels, monkeypatch, "rms_rope_" if together else "apply_rope_")
    layers, turns = pack("model.transformers.layers"), pack("model.transformers.kernels").turns
    norms = [layers.RMSNorm(24).to(dtype) for _ in range(2)]
    for number, norm in enumerate(norms):
        norm.weight.data += 0.1 * random(24, dtype=dtype) + number
    rotation = turns(torch.arange(5), layers.rope_frequencies(24))[:, None, None]
    results = []
    for each in (kernels, plain()):
        q, k, _ = random(2, 5, 7, 3, 2, 24, dtype=dtype).unbind(3)
        with torch.no_grad():
            results.append(each.heads(q, k, *norms, rotation, rope_first))
    for found, wanted in zip(*results):
        assert found.dtype == dtype and difference(found, wanted) <= tolerance
    assert asked == ([] if together and rope_first else [True])


def only(kernels, monkeypatch, name):
    """Let them have but one of the rotations; returns a list that grows when it is found."""
    asked, has = [], kernels.has

    def has_one(operation, **given):
        found = (operation == name or "rope" not in operation) and has(operation, **given)
        if found and operation == name:
            asked.append(found)
        return found

    monkeypatch.setattr(kernels, "has", has_one)
    return asked


def test_gradients_go_the_plain_way(kernels):
    x = random(1, 2, 3, 48).requires_grad_()
    shift, scale = random(1, 1, 48), random(1, 1, 48)
    kernels.modulated_norm(x, shift, scale).sum().backward()
    assert x.grad is not None and not kernels.has("adaln", x=x)
    with torch.no_grad():
        assert kernels.has("adaln", x=x)


def call(network, name, dtype):
    latent = clip(name)["samples"]
    x = random(2, *latent.shape[1:])
    mask = None if name == "pixart" else torch.arange(x.shape[2])[None].expand(2, -1) != 0
    caption = random(2, CAPTION_LENGTH, CAPTION_CHANNELS)
    step = 999.0 if name in EPSILON else 1000.0
    with torch.no_grad():
        return network(
            x.to(dtype), torch.tensor([0.3, 0.9]) * step, caption.to(dtype), None, mask, 24.0, 40.0, 48.0, 17.0
        )


@pytest.mark.parametrize("rotation", ["rms_rope_", "apply_rope_"])
@pytest.mark.parametrize("name", SMALL)
def test_every_family(kernels, monkeypatch, name, rotation):
    """fp32 to rounding; in bf16 both ways are as far from fp32."""
    only(kernels, monkeypatch, rotation)
    network, weights = small_family(name)
    network.load_state_dict(weights)
    exact = call(network, name, torch.float32)
    fused = copy.deepcopy(network)
    pack("model.transformers.kernels").use(fused, kernels)
    assert difference(call(fused, name, torch.float32), exact) <= FP32
    errors = [difference(call(each.bfloat16(), name, torch.bfloat16), exact) for each in (fused, network)]
    assert errors[0] <= 1.25 * errors[1] <= BF16 * 2, errors


def test_a_hosted_network_takes_them_on_a_gpu_only(comfy, models):
    network = models["stdit3"].model.diffusion_model
    found = {type(module.kernels).__name__ for module in network.modules() if hasattr(module, "kernels")}
    assert found == {"HostKernels"}
    with torch.no_grad():
        assert not network.spatial_blocks[0].kernels.has("adaln", x=torch.zeros(1))


@pytest.mark.parametrize("which", ["q_norm", "qkv", "fc1"])
def test_who_watches_a_layer_sees_all_of_it(kernels, which):
    """Norms of queries and keys are called, and what a hook was given is not written into later."""
    network, weights = small_family("stdit3")
    network.load_state_dict(weights)
    pack("model.transformers.kernels").use(network, kernels)
    block = network.temporal_blocks[0]
    layer = block.mlp.fc1 if which == "fc1" else getattr(block.attn, which)
    kept = []
    layer.register_forward_hook(lambda module, given, out: kept.append((out, out.clone())))
    call(network, "stdit3", torch.float32)
    assert kept and all(torch.equal(out, then) for out, then in kept)


def test_under_autocast_products_are_in_16_bits(kernels):
    linear, x = torch.nn.Linear(8, 16), torch.randn(1, 2, 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert plain().linear_gelu(linear, x).dtype == torch.bfloat16


def test_networks_can_be_copied(kernels):
    network, _ = small_family("stdit3")
    pack("model.transformers.kernels").use(network, kernels)
    assert copy.deepcopy(network).spatial_blocks[0].kernels is kernels


@pytest.mark.parametrize(("largest", "asked"), [(2**31, 1), (100, 0)])
def test_what_kernels_cannot_count_to_goes_the_plain_way(kernels, monkeypatch, largest, asked):
    calls = []
    monkeypatch.setattr(pack("nodes.comfy.transformer.kernels"), "LARGEST", largest)
    kernels.kitchen = SimpleNamespace(rms_rope_=lambda *given, **scales: calls.append(given))
    layers, turns = pack("model.transformers.layers"), pack("model.transformers.kernels").turns
    norms = [layers.RMSNorm(24) for _ in range(2)]
    q, k, _ = random(1, 5, 7, 3, 2, 24).unbind(3)
    with torch.no_grad():
        kernels.heads(q, k, *norms, turns(torch.arange(5), layers.rope_frequencies(24))[:, None, None], False)
    assert len(calls) == asked


@pytest.mark.parametrize("change", ["patch", "cast", "dtype", None])
def test_the_activation_joins_a_product_only_where_nothing_sits_on_it(comfy, change):
    """LoRAs on weights that come and go, casts, watchers: they want the layer's own call."""
    import comfy.ops

    linear = comfy.ops.disable_weight_init.Linear(8, 16)
    x = torch.zeros(2, 8)
    if change == "patch":
        linear.weight_function = [lambda weight: weight]
    elif change == "cast":
        linear.comfy_cast_weights = True
    elif change == "dtype":
        linear.half()
    only = pack("nodes.comfy.versions").only_its_weights
    assert only(linear, x) is (change is None)
    assert not only(comfy.ops.manual_cast.Linear(8, 16), x) and not only(torch.nn.Linear(8, 16), x)
