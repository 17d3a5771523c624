"""LoRA layers: which layers learn, where they begin, and what their files say."""

import copy

import pytest
import torch
from opensora_comfy.training import lora
from opensora_comfy.training.config import TrainConfig
from opensora_comfy.training.setup import make_trainable
from small_runs import COUNTING, network

RANK = 3
VIDEO = [name for name in COUNTING if name != "pixart"]


def inputs(family, frames=None):
    generator = torch.Generator().manual_seed(1)
    channels = 16 if family == "stdit3_v1_3" else 4
    frames = frames or (1 if family == "pixart" else 5)
    x = torch.randn(2, channels, frames, 4, 4, generator=generator)
    caption = torch.randn(2, 7, 32, generator=generator)
    return {"x": x, "timestep": torch.tensor([200.0, 700.0]), "caption": caption, "height": 32, "width": 32, "fps": 24}


def with_changes(family, branches="all", alpha=6.0):
    """A network with LoRA layers that say something."""
    module = network(family)
    lora.inject(module, RANK, alpha, branches)
    generator = torch.Generator().manual_seed(2)
    for layer in lora.layers(module).values():
        layer.up.data = torch.randn(layer.up.shape, generator=generator) * 0.1
    return module


@pytest.mark.parametrize("family", COUNTING)
def test_the_first_forward_is_the_networks(family):
    module = network(family)
    with torch.no_grad():
        before = module(**inputs(family))
        parameters = lora.inject(module, RANK, 6.0)
        # But for the activation, which is no more inside a product that has become two.
        assert torch.allclose(module(**inputs(family)), before, rtol=1e-5, atol=1e-5)
    assert len(parameters) == 2 * len(lora.layers(module)) == len([p for p in module.parameters() if p.requires_grad])


@pytest.mark.parametrize("family", VIDEO)
def test_branches_are_what_they_are_called(family):
    """By what a frame alone gets: without others there is motion in no layer that "look" has, and the other way round."""
    names = {}
    for branches in lora.BRANCHES:
        module = network(family)
        lora.inject(module, RANK, 6.0, branches)
        names[branches] = set(lora.layers(module))
    assert names["look"] | names["motion"] == names["all"] and not names["look"] & names["motion"]
    linear = {name for name, part in network(family).named_modules() if isinstance(part, torch.nn.Linear)}
    assert names["all"] == {name for name in linear if "blocks." in name}
    if family.startswith("stdit3"):
        assert all(name.startswith("temporal_blocks.") for name in names["motion"])
        assert all(name.startswith("spatial_blocks.") for name in names["look"])
        assert len(names["motion"]) == len(names["look"])
    else:
        assert names["motion"] == {f"blocks.{n}.attn_temp.{part}" for n in (0, 1) for part in ("qkv", "proj")}
    assert any(name.endswith("cross_attn.kv_linear") for name in names["look"])


def test_an_image_model_has_no_motion():
    with pytest.raises(ValueError, match="branches is 'motion', but this pixart has none; use all"):
        lora.inject(network("pixart"), RANK, 6.0, "motion")
    assert lora.inject(network("pixart"), RANK, 6.0, "look")


def test_what_is_refused():
    with pytest.raises(
        ValueError, match="branches is 'moton'; it must be one of all, look, motion; the nearest is motion"
    ):
        lora.inject(network(), RANK, 1.0, "moton")
    with pytest.raises(ValueError, match="rank is 0; it must be at least 1"):
        lora.inject(network(), 0, 1.0)
    small, large = network(), network()
    lora.inject(small, 2, 1.0)
    lora.inject(large, 4, 1.0)
    with pytest.raises(
        ValueError,
        match=r"another size: spatial_blocks.0.attn.qkv.lora_A.weight is \(2, 48\), here it must be \(4, 48\); the rank",
    ):
        lora.load_state_dict(large, lora.state_dict(small))
    other = network("stdit2")
    lora.inject(other, 2, 1.0)
    with pytest.raises(
        ValueError, match="for other layers: the (file|model) has diffusion_model.*, the (file|model) has not"
    ):
        lora.load_state_dict(small, lora.state_dict(other))
    before = copy.deepcopy(small.state_dict())
    broken = {**lora.state_dict(small), "diffusion_model.spatial_blocks.1.mlp.fc2.lora_A.weight": torch.ones(3, 3)}
    with pytest.raises(ValueError, match="another size"):
        lora.load_state_dict(small, broken)
    assert all(torch.equal(value, before[key]) for key, value in small.state_dict().items())


@pytest.mark.parametrize("branches", lora.BRANCHES)
def test_a_file_gives_back_what_it_took(branches):
    """Its alpha too: the strength that it was trained at counts, not that of the network that reads it."""
    module = with_changes("stdit3", branches)
    again = network()
    lora.inject(again, RANK, 1.0, branches, seed=9)
    lora.load_state_dict(again, lora.state_dict(module))
    with torch.no_grad():
        assert torch.equal(again(**inputs("stdit3")), module(**inputs("stdit3")))
    kept = lora.state_dict(again)
    assert all(torch.equal(value, kept[key]) for key, value in lora.state_dict(module).items())
    assert all(key.startswith("diffusion_model.") for key in kept)
    assert {float(value) for key, value in kept.items() if key.endswith(".alpha")} == {6.0}


@pytest.mark.parametrize("family", COUNTING)
def test_merged_weights_are_the_forward(family):
    module = with_changes(family)
    with torch.no_grad():
        plain, learnt = network(family)(**inputs(family)), module(**inputs(family))
        lora.merge(module)
        merged = module(**inputs(family))
    assert (learnt - plain).abs().max() > 1e-3
    assert torch.allclose(merged, learnt, rtol=1e-5, atol=1e-5)
    assert not lora.layers(module) and module.state_dict().keys() == network(family).state_dict().keys()


def test_first_values_follow_from_the_seed_alone():
    def first(seed):
        module = network()
        lora.inject(module, RANK, 1.0, seed=seed)
        return torch.cat([layer.down.flatten() for layer in lora.layers(module).values()])

    assert torch.equal(first(1), first(1)) and not torch.equal(first(1), first(2))
    module, before = network(), torch.random.get_rng_state()
    lora.inject(module, RANK, 1.0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_on_half_precision_what_learns_is_exact():
    module = make_trainable(network(), TrainConfig(precision="bf16", rank=RANK))
    learning = {p.dtype for p in module.parameters() if p.requires_grad}
    frozen = {p.dtype for p in module.parameters() if not p.requires_grad}
    assert learning == {torch.float32} and frozen == {torch.bfloat16}
    assert module.rope.freqs.dtype == torch.float32
    with torch.no_grad():
        far = (module(**inputs("stdit3")) - network()(**inputs("stdit3"))).norm() / network()(**inputs("stdit3")).norm()
    assert far < 0.05
