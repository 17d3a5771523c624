"""STDiT2 of 1.1 against recorded runs of the original."""

import pytest
import torch
from golden import Case, difference, first_divergence, manifest, weights
from opensora_comfy.model import load_transformer
from opensora_comfy.model.transformers.layers import matmul_attention
from opensora_comfy.model.transformers.stdit2 import STDiT2, STDiT2Config

CALL_TOLERANCE = 1.5e-6
SIZES = ("fps", "height", "width", "num_frames")


def call(transformer, case, **changes):
    inputs = {**case.inputs, **changes}
    with torch.no_grad():
        return transformer(
            inputs["x"],
            inputs["timestep"],
            inputs["y"][:, 0],
            caption_mask=inputs["mask"],
            frame_mask=inputs.get("x_mask"),
            **{name: inputs[name] for name in SIZES},
        )


@pytest.mark.parametrize("name", ["a_t2v", "b_xmask", "c_odd5x7", "e_cfg"])
@pytest.mark.parametrize("attention", [None, matmul_attention], ids=["fused", "matmul"])
def test_matches_the_original(name, attention):
    case = Case(f"stdit2_legacy_{name}")
    transformer = load_transformer(weights("stdit2"), case.meta["config"], attention=attention)
    diverged = first_divergence(transformer, case, 5e-6)
    output = call(transformer, case)
    assert output.dtype == torch.float32
    assert difference(output, case.outputs["x"]) <= CALL_TOLERANCE, f"first differences: {diverged}"


def test_full_size_has_exactly_the_originals_keys():
    shapes = manifest("stdit2_xl2_v1_1")
    config = STDiT2Config.from_weights(shapes)
    assert (config.depth, config.hidden_size, config.num_heads, config.model_max_length) == (28, 1152, 16, 200)
    assert (config.qk_norm, config.qk_norm_legacy, config.input_sq_size) == (True, True, 512)
    with torch.device("meta"):
        own = STDiT2(config).state_dict()
    assert {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in shapes.items()}


def test_describes_itself():
    transformer = load_transformer(weights("stdit2"))
    assert (transformer.family, transformer.version, transformer.prediction) == ("stdit2", "1.1", "epsilon")
    assert (transformer.in_channels, transformer.caption_channels, transformer.max_caption_length) == (4, 48, 20)
    assert transformer.null_caption.shape == (20, 48)


def test_a_missing_rope_table_is_computed():
    state_dict = weights("stdit2")
    stored = state_dict.pop("rope.freqs")
    transformer = load_transformer(state_dict)
    assert transformer.config.num_heads == 3
    assert torch.allclose(transformer.rope.freqs, stored, rtol=1e-6)


def test_heads_come_from_rope_where_there_is_no_norm():
    state_dict = {key: value for key, value in weights("stdit2").items() if "_norm" not in key}
    config = STDiT2Config.from_weights(state_dict)
    assert (config.num_heads, config.qk_norm) == (3, False)
    del state_dict["rope.freqs"]
    assert STDiT2Config.from_weights(state_dict).num_heads == 1  # heads of 72
    assert STDiT2Config.from_weights(state_dict, {"num_heads": 3}).num_heads == 3


def test_norm_and_rope_swap_places():
    """A rotation keeps the length of a query, so their order shows only where the norm weighs channels unequally."""
    case = Case("stdit2_legacy_a_t2v")
    flat = {key: torch.ones_like(value) if "_norm" in key else value for key, value in weights("stdit2").items()}

    def gap(state_dict):
        legacy, later = (
            call(load_transformer(state_dict, {"qk_norm_legacy": legacy}), case) for legacy in (True, False)
        )
        return difference(later, legacy)

    assert gap(flat) <= CALL_TOLERANCE
    assert gap(weights("stdit2")) > 1e-3


def test_sizes_default_to_the_latents_own():
    case = Case("stdit2_legacy_c_odd5x7")
    transformer = load_transformer(weights("stdit2"))
    own = {"fps": 24.0, "height": 40.0, "width": 56.0, "num_frames": 3.0}
    explicit = call(transformer, case, **{name: torch.full((2,), value) for name, value in own.items()})
    assert torch.equal(explicit, call(transformer, case, **dict.fromkeys(SIZES)))


def test_an_image_has_120_frames_a_second():
    case = Case("stdit2_legacy_a_t2v")
    transformer = load_transformer(weights("stdit2"))
    still = {"x": case.inputs["x"][:, :, :1]}
    explicit = call(transformer, case, **still, fps=torch.full((2,), 120.0))
    assert torch.equal(explicit, call(transformer, case, **still, fps=None))
    assert not torch.allclose(explicit, call(transformer, case, **still), atol=1e-3)


@pytest.mark.parametrize("name", SIZES)
def test_is_told_every_size(name):
    case = Case("stdit2_legacy_a_t2v")
    transformer = load_transformer(weights("stdit2"))
    changed = case.inputs[name] * torch.tensor([1.0, 1.5])
    first, second = call(transformer, case, **{name: changed}).sub(case.outputs["x"]).abs().amax((1, 2, 3, 4))
    assert first < 1e-5  # each row has its own
    assert second > 1e-3


def test_rows_of_a_batch_do_not_mix():
    case = Case("stdit2_legacy_b_xmask")
    transformer = load_transformer(weights("stdit2"))
    second = {name: value[1:] for name, value in case.inputs.items()}
    assert difference(call(transformer, case, **second), call(transformer, case)[1:]) <= CALL_TOLERANCE


def test_kept_frames_are_told_timestep_zero():
    """Through the blocks, a clip whose frames are all kept is the same at every timestep; a generated one is not."""
    case = Case("stdit2_legacy_b_xmask")
    transformer = load_transformer(weights("stdit2"))
    seen = []
    transformer.blocks[-1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    kept = torch.zeros(2, 5, dtype=torch.bool)
    for mask in (kept, ~kept):
        for t in (900.0, 100.0):
            call(transformer, case, x_mask=mask, timestep=torch.full((2,), t))
    assert torch.equal(seen[0], seen[1])
    assert not torch.allclose(seen[2], seen[3])


def test_padding_tokens_never_take_part():
    case = Case("stdit2_legacy_b_xmask")
    transformer = load_transformer(weights("stdit2"))
    disturbed = case.inputs["y"] + 100.0 * (case.inputs["mask"] == 0)[:, None, :, None]
    assert not torch.equal(disturbed, case.inputs["y"])
    assert torch.equal(call(transformer, case), call(transformer, case, y=disturbed))


@pytest.mark.parametrize(
    ("config", "message"),
    [({"num_heads": 9}, "config says num_heads = 9, but the weights say 3"), ({"qk_norm": False}, "qk_norm = False")],
)
def test_refuses_a_config_that_contradicts_the_weights(config, message):
    with pytest.raises(ValueError, match=message):
        STDiT2Config.from_weights(weights("stdit2"), config)
