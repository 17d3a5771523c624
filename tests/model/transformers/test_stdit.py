"""STDiT of 1.0 against recorded runs of the original."""

import pytest
import torch
from golden import Case, difference, first_divergence, manifest, weights
from opensora_comfy.model import load_transformer
from opensora_comfy.model.transformers.layers import matmul_attention
from opensora_comfy.model.transformers.stdit import STDiT, STDiTConfig

CALL_TOLERANCE = 1.5e-6
TABLES = ("pos_embed", "pos_embed_temporal")


def load(case, tables=True, attention=None, **config):
    """The recorded network; with its position tables, which differ from case to case, as a file may bring them."""
    stored = {name: case.mid[name] for name in TABLES} if tables else {}
    return load_transformer({**weights("stdit"), **stored}, {**case.meta["config"], **config}, attention=attention)


def call(transformer, case, **changes):
    inputs = {**case.inputs, **changes}
    with torch.no_grad():
        return transformer(
            inputs["x"],
            inputs["timestep"],
            inputs["y"][:, 0],
            caption_mask=inputs["mask"],
            frame_mask=inputs.get("x_mask"),
        )


@pytest.mark.parametrize("name", ["a_t2v", "b_xmask", "d_image"])
@pytest.mark.parametrize("tables", [True, False], ids=["tables stored", "tables dropped"])
@pytest.mark.parametrize("attention", [None, matmul_attention], ids=["fused", "matmul"])
def test_matches_the_original(name, tables, attention):
    case = Case(f"stdit_{name}")
    transformer = load(case, tables, attention)
    diverged = first_divergence(transformer, case, 5e-6)
    output = call(transformer, case)
    assert output.dtype == torch.float32
    assert difference(output, case.outputs["x"]) <= CALL_TOLERANCE, f"first differences: {diverged}"


@pytest.mark.parametrize("name", ["a_t2v", "d_image"])
def test_positions_are_the_originals_bit_for_bit(name):
    case = Case(f"stdit_{name}")
    transformer = load(case)
    frames, height, width = case.inputs["x"].shape[2:]
    assert torch.equal(transformer.place_positions(height // 2, width // 2), case.mid["pos_embed"][0])
    assert torch.equal(transformer.frame_positions(frames), case.mid["pos_embed_temporal"][0])


def test_positions_scale_with_space_and_time():
    """Twice the scale puts the places at half the distance: place 2i then lies where place i was."""
    case = Case("stdit_a_t2v")
    plain, wide = load(case), load(case, space_scale=1.0, time_scale=2.0)
    halved = wide.place_positions(8, 8).view(8, 8, -1)[::2, ::2]
    assert torch.equal(halved, plain.place_positions(4, 4).view(4, 4, -1))
    assert torch.equal(wide.frame_positions(10)[::2], plain.frame_positions(5))


@pytest.mark.parametrize(("name", "grid", "space_scale"), [("16x256x256", 256, 0.5), ("16x512x512", 1024, 1.0)])
def test_full_size_has_exactly_the_originals_keys(name, grid, space_scale):
    shapes = manifest(f"stdit_xl2_v1_0_{name}")
    config = STDiTConfig.from_weights(shapes)
    assert (config.depth, config.hidden_size, config.num_heads, config.model_max_length) == (28, 1152, 16, 120)
    assert (config.stored_positions, config.space_scale, config.time_scale) == ((grid, 16), space_scale, 1.0)
    with torch.device("meta"):
        own = STDiT(config).state_dict()
    assert {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in shapes.items()}


def test_describes_itself():
    transformer = load(Case("stdit_a_t2v"))
    assert (transformer.family, transformer.version, transformer.prediction) == ("stdit", "1.0", "epsilon")
    assert (transformer.in_channels, transformer.caption_channels, transformer.max_caption_length) == (4, 48, 20)
    assert transformer.null_caption.shape == (20, 48)


@pytest.mark.parametrize("shape", [(34, 4, 6), (3, 5, 7), (1, 10, 4)], ids=str)
def test_takes_other_lengths_and_sizes_than_its_tables(shape):
    """The tables' size is that of the files' training clips; odd sizes are padded to whole patches and cropped."""
    case = Case("stdit_a_t2v")
    transformer = load(case)
    x = torch.randn(2, 4, *shape, generator=torch.Generator().manual_seed(1))
    output = call(transformer, case, x=x)
    assert output.shape == (2, 8, *shape)
    padded = torch.nn.functional.pad(x, (0, shape[2] % 2, 0, shape[1] % 2))
    assert torch.equal(output, call(transformer, case, x=padded)[:, :, :, : shape[1], : shape[2]])


def test_no_caption_mask_means_all_tokens_are_real():
    case = Case("stdit_a_t2v")
    transformer = load(case)
    every = call(transformer, case, mask=torch.ones(2, 20))
    assert difference(call(transformer, case, mask=None), every) <= CALL_TOLERANCE


def test_all_frames_generated_is_no_frame_mask():
    case = Case("stdit_b_xmask")
    transformer = load(case)
    every = call(transformer, case, x_mask=torch.ones(2, 5, dtype=torch.bool))
    assert torch.equal(every, call(transformer, case, x_mask=None))
    assert not torch.allclose(every, case.outputs["x"], atol=1e-2)


def test_rows_of_a_batch_do_not_mix():
    case = Case("stdit_b_xmask")
    transformer = load(case)
    second = {name: value[1:] for name, value in case.inputs.items()}
    assert difference(call(transformer, case, **second), call(transformer, case)[1:]) <= CALL_TOLERANCE


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"depth": 3}, "config says depth = 3, but the weights say 2"),
        ({"pred_sigma": False}, "config says pred_sigma = False"),
        ({"num_heads": 5}, "num_heads is 5, which does not divide"),
    ],
)
def test_refuses_a_config_that_does_not_fit(config, message):
    with pytest.raises(ValueError, match=message):
        STDiTConfig.from_weights(weights("stdit"), config)
