"""Loading: full-size key tables, weights used in place, keys and configurations that do not fit."""

import pytest
import torch
from golden import manifest, weights
from opensora_comfy.model import load_transformer, load_vae
from opensora_comfy.model.checkpoints.identify import TRANSFORMERS
from opensora_comfy.model.checkpoints.loading import CLASSES, plan_transformer, plan_vae
from opensora_comfy.model.transformers.pixart import PixArt, PixArtConfig
from opensora_comfy.model.vaes.spatial import OLD_NAMES, modern_keys
from small import random_weights


def pixart():
    config = PixArtConfig(depth=2, hidden_size=72, num_heads=1, caption_channels=32, size_embedders=True)
    return random_weights(PixArt(config), 1)


# Family: small weights of it, and the configuration they need.
SMALL = {
    "stdit": (lambda: weights("stdit"), {}),
    "stdit2": (lambda: weights("stdit2"), {}),
    "stdit3": (lambda: weights("stdit3"), {}),
    "stdit3_v1_3": (lambda: weights("stdit3v13"), {}),
    "pixart": (pixart, {}),
    "vae_v1_2": (lambda: weights("vae12"), {"spatial_norm_groups": 4, "temporal_norm_groups": 2}),
    "vae_2d": (lambda: weights("vae2d"), {"spatial_norm_groups": 4}),
    "vae_v1_3": (lambda: weights("vae13"), {}),
}
FULL = {
    "stdit_xl2_v1_0_16x256x256": ("stdit", 28, 1152, 16),
    "stdit_xl2_v1_0_16x512x512": ("stdit", 28, 1152, 16),
    "stdit2_xl2_v1_1": ("stdit2", 28, 1152, 16),
    "stdit3_xl2_v1_2": ("stdit3", 28, 1152, 16),
    "stdit3_3b2_v1_2": ("stdit3", 28, 1872, 26),
    "stdit3_xl2_v1_3": ("stdit3_v1_3", 28, 1152, 16),
}
FULL_VAES = {
    "opensora_vae_v1_2": "vae_v1_2",
    "vae2d_v1_0_v1_1": "vae_2d",
    "opensora_vae_v1_3": "vae_v1_3",
    "opensora_vae_v1_3_tiled": "vae_v1_3",
}


def load(family, state_dict, config=None):
    return (load_vae if family.startswith("vae") else load_transformer)(
        state_dict, SMALL[family][1] if config is None else config
    )


@pytest.mark.parametrize("name", FULL)
def test_full_size_transformers_have_exactly_the_originals_keys(name):
    shapes = manifest(name)
    plan = plan_transformer(shapes)
    family, *sizes = FULL[name]
    assert plan.network.family == family
    assert [plan.config.depth, plan.config.hidden_size, plan.config.num_heads] == sizes
    own = plan.build().state_dict()
    assert {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in shapes.items()}


@pytest.mark.parametrize("name", FULL_VAES)
def test_full_size_vaes_have_exactly_the_originals_keys(name):
    shapes = manifest(name)
    plan = plan_vae(shapes)
    assert plan.network.family == FULL_VAES[name]
    own = plan.build().state_dict()
    assert {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in shapes.items()}


@pytest.mark.parametrize("family", SMALL)
def test_every_family_loads_with_its_weights_used_as_they_are(family):
    state_dict = SMALL[family][0]()
    module = load(family, state_dict)
    assert type(module) is CLASSES[family][0]
    assert module.family == family
    assert not module.training
    own = module.state_dict()
    assert own.keys() >= state_dict.keys()
    for key, value in state_dict.items():
        assert own[key].data_ptr() == value.data_ptr()
    assert not any(value.is_meta or value.requires_grad for value in module.parameters())


@pytest.mark.parametrize("family", SMALL)
@pytest.mark.parametrize("prefix", ["module.", "model.diffusion_model."])
def test_prefixes_of_other_programs_come_off(family, prefix):
    state_dict = SMALL[family][0]()
    module = load(family, {prefix + key: value for key, value in state_dict.items()})
    assert module.state_dict().keys() >= state_dict.keys()


@pytest.mark.parametrize("family", SMALL)
def test_missing_unexpected_and_misshapen_keys_are_listed(family):
    state_dict = SMALL[family][0]()
    biases = sorted(key for key in state_dict if key.endswith(".bias"))
    missing, misshapen = biases[0], biases[-1]
    stranger = "module.stranger" if family == "vae_2d" else "stranger"
    del state_dict[missing]
    state_dict[stranger] = torch.zeros(1)
    state_dict[misshapen] = torch.zeros(1, 2, 3)
    with pytest.raises(ValueError) as error:
        load(family, state_dict)
    assert (
        f"do not fit {CLASSES[family][0].__name__}. 1 missing keys: {missing}; 1 unexpected keys: {stranger}; "
        f"1 wrong shapes: {misshapen} (1, 2, 3) instead of ("
    ) in str(error.value)


@pytest.mark.parametrize("family", SMALL)
def test_any_missing_weight_is_listed(family):
    state_dict = SMALL[family][0]()
    optional = CLASSES[family][0].OPTIONAL
    for key in [key for key in state_dict if key not in optional][::11]:
        rest = {name: value for name, value in state_dict.items() if name != key}
        with pytest.raises(ValueError, match="missing keys") as error:
            load(family, rest)
        assert key in str(error.value)


@pytest.mark.parametrize("family", ["stdit2", "stdit3", "stdit3_v1_3"])
def test_a_missing_rope_table_is_computed(family):
    state_dict = SMALL[family][0]()
    stored = state_dict.pop("rope.freqs")
    config = {"num_heads": load(family, {**state_dict, "rope.freqs": stored}).config.num_heads}
    assert torch.allclose(load(family, state_dict, config).rope.freqs, stored, rtol=1e-6)


def test_missing_shift_and_scale_are_the_official_ones_or_the_configs():
    state_dict, config = weights("vae12"), SMALL["vae_v1_2"][1]
    shift, scale = state_dict.pop("shift"), state_dict.pop("scale")
    official = load_vae(state_dict, config)
    assert torch.allclose(official.shift, shift)
    assert torch.allclose(official.scale, scale)
    given = load_vae(state_dict, {**config, "shift": [1.0, 2.0, 3.0, 4.0]})
    assert given.shift.flatten().tolist() == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("family", ["vae_v1_2", "vae_2d"])
def test_old_diffusers_attention_names_load(family):
    new = SMALL[family][0]()
    old = dict(new)
    for before, after in OLD_NAMES.items():
        old = {key.replace(f"attentions.0.{after}.", f"attentions.0.{before}."): value for key, value in old.items()}
    assert len(old.keys() - new.keys()) == 16
    assert modern_keys(old).keys() == new.keys()
    assert load(family, old).state_dict().keys() >= new.keys()


@pytest.mark.parametrize("family", [family for family in SMALL if not family.startswith("vae")])
@pytest.mark.parametrize("name", ["depth", "hidden_size", "caption_channels", "model_max_length", "in_channels"])
def test_a_config_that_contradicts_the_weights_is_refused(family, name):
    state_dict = SMALL[family][0]()
    found = getattr(plan_transformer(state_dict).config, name)
    load_transformer(state_dict, {name: found, "of something else": 1})
    with pytest.raises(ValueError, match=f"config says {name} = {found + 1}, but the weights say {found}"):
        load_transformer(state_dict, {name: found + 1})


@pytest.mark.parametrize("wrapper", ["state_dict", "ema", "model", "module"])
@pytest.mark.parametrize("family", SMALL)
def test_wrappers_of_training_come_off(family, wrapper):
    state_dict, config = SMALL[family][0](), SMALL[family][1]
    load = load_transformer if family in TRANSFORMERS else load_vae
    assert load({wrapper: {f"module.{key}": value for key, value in state_dict.items()}, "step": 3}, config)


@pytest.mark.parametrize("family", ["stdit", "stdit2", "stdit3", "stdit3_v1_3"])
def test_any_width_of_the_mlp_loads(family):
    """28 · (61 / 28) is a hair below 61."""
    network, sizes = CLASSES[family]
    with torch.device("meta"):
        module = network(sizes(depth=1, hidden_size=28, num_heads=1, caption_channels=8, mlp_ratio=61 / 28))
    state_dict = random_weights(module.to_empty(device="cpu"), 0)
    blocks = "spatial_blocks" if "stdit3" in family else "blocks"
    assert state_dict[f"{blocks}.0.mlp.fc1.weight"].shape == (61, 28)
    load_transformer(state_dict, {"num_heads": 1})
