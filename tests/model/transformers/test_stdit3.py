"""STDiT3 against recorded runs of the original."""

import pytest
import torch
from golden import Case, difference, first_divergence, weights
from opensora_comfy.model import load_transformer
from opensora_comfy.model.transformers.layers import matmul_attention

CALL_TOLERANCE = 1.5e-6


def call(transformer, case, **changes):
    inputs = {**case.inputs, **changes}
    with torch.no_grad():
        return transformer(
            inputs["x"],
            inputs["timestep"],
            inputs["y"][:, 0],
            caption_mask=inputs["mask"],
            frame_mask=inputs.get("x_mask"),
            fps=inputs["fps"],
            height=inputs["height"],
            width=inputs["width"],
        )


@pytest.mark.parametrize("name", ["a_t2v", "b_xmask", "c_odd5x7", "d_image", "e_cfg"])
@pytest.mark.parametrize("attention", [None, matmul_attention], ids=["fused", "matmul"])
def test_matches_the_original(name, attention):
    case = Case(f"stdit3_{name}")
    transformer = load_transformer(weights("stdit3"), case.meta["config"], attention=attention)
    diverged = first_divergence(transformer, case, 5e-6)
    output = call(transformer, case)
    assert output.dtype == torch.float32
    assert difference(output, case.outputs["x"]) <= CALL_TOLERANCE, f"first differences: {diverged}"


def test_bf16_matches_with_the_originals_rounding():
    case = Case("stdit3_bf16_a_t2v")
    transformer = load_transformer({key: value.bfloat16() for key, value in weights("stdit3").items()})
    output = call(transformer, case, timestep=case.inputs["timestep"].bfloat16())
    assert difference(output, case.outputs["x"]) <= 2e-2


def test_sizes_may_be_plain_lists():
    case = Case("stdit3_a_t2v")
    transformer = load_transformer(weights("stdit3"))
    lists = {name: case.inputs[name].tolist() for name in ("fps", "height", "width")}
    assert torch.equal(call(transformer, case, **lists), call(transformer, case))


def test_describes_itself():
    transformer = load_transformer(weights("stdit3"))
    assert (transformer.family, transformer.in_channels, transformer.caption_channels) == ("stdit3", 4, 48)
    assert transformer.max_caption_length == 20
    assert transformer.null_caption.shape == (20, 48)


def test_padding_tokens_never_take_part():
    case = Case("stdit3_b_xmask")
    transformer = load_transformer(weights("stdit3"))
    disturbed = case.inputs["y"] + 100.0 * (case.inputs["mask"] == 0)[:, None, :, None]
    assert torch.equal(call(transformer, case), call(transformer, case, y=disturbed))


def test_kept_frames_are_told_timestep_zero():
    """Through the blocks, a clip whose frames are all kept is the same at every timestep; a generated one is not."""
    case = Case("stdit3_d_image")
    transformer = load_transformer(weights("stdit3"))
    seen = []
    transformer.temporal_blocks[-1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    kept = torch.zeros(2, 1, dtype=torch.bool)
    for mask in (kept, ~kept):
        for t in (900.0, 100.0):
            call(transformer, case, x_mask=mask, timestep=torch.full((2,), t))
    assert torch.equal(seen[0], seen[1])
    assert not torch.allclose(seen[2], seen[3])


def test_sizes_default_to_the_latents_own():
    case = Case("stdit3_a_t2v")
    transformer = load_transformer(weights("stdit3"))
    height, width = (8.0 * n for n in case.inputs["x"].shape[3:])
    explicit = call(
        transformer, case, fps=torch.full((2,), 24.0), height=torch.full((2,), height), width=torch.full((2,), width)
    )
    assert torch.equal(explicit, call(transformer, case, fps=None, height=None, width=None))
