"""STDiT3 of 1.3 against recorded runs of the original, and what no recording shows."""

import pytest
import torch
from einops import rearrange
from golden import Case, difference, first_divergence, manifest, weights
from opensora_comfy.model import load_transformer
from opensora_comfy.model.transformers.kernels import rotate
from opensora_comfy.model.transformers.layers import matmul_attention, rope_frequencies
from opensora_comfy.model.transformers.stdit3_v1_3 import (
    STDiT3v13,
    STDiT3v13Config,
    WindowAttention,
    Windows,
    window_rotation,
)

CALL_TOLERANCE = 1.5e-6
CONFIG = Case("stdit3v13_i2v").meta["config"]


@pytest.fixture(scope="module")
def transformer():
    return load_transformer(weights("stdit3v13"), CONFIG)


def call(transformer, case, **changes):
    inputs = {"condition_frames": case.meta["mask_index"], **case.inputs, **changes}
    with torch.no_grad():
        return transformer(
            inputs["x"],
            inputs["timestep"],
            inputs["y"][:, 0],
            caption_mask=inputs.get("mask"),
            frame_mask=inputs.get("frame_mask"),
            fps=inputs["fps"],
            height=inputs["height"],
            width=inputs["width"],
            condition=inputs.get("cond"),
            condition_mask=inputs.get("cond_mask"),
            condition_frames=inputs["condition_frames"],
            null_caption=inputs["y_null"][:, 0] if inputs.get("y_null") is not None else None,
        )


@pytest.mark.parametrize("name", ["t2v_window", "i2v"])
@pytest.mark.parametrize("attention", [None, matmul_attention], ids=["fused", "matmul"])
def test_matches_the_original(name, attention):
    case = Case(f"stdit3v13_{name}")
    windows = "temporal_blocks.0.attn"
    case.mid[windows] = rearrange(case.mid[windows], "B H W T C -> B T (H W) C")
    transformer = load_transformer(weights("stdit3v13"), case.meta["config"], attention=attention)
    diverged = first_divergence(transformer, case, 5e-6)
    output = call(transformer, case)
    assert output.dtype == torch.float32
    assert difference(output, case.outputs["x"]) <= CALL_TOLERANCE, f"first differences: {diverged}"


def test_full_size_has_exactly_the_originals_keys():
    shapes = manifest("stdit3_xl2_v1_3")
    config = STDiT3v13Config.from_weights(shapes)
    assert (config.depth, config.hidden_size, config.num_heads, config.in_channels) == (28, 1152, 16, 16)
    assert (config.kernel_size, config.use_spatial_rope) == ((8, 8, -1), True)
    with torch.device("meta"):
        own = STDiT3v13(config).state_dict()
    assert {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in shapes.items()}


def test_describes_itself(transformer):
    assert (transformer.family, transformer.version, transformer.prediction) == ("stdit3_v1_3", "1.3", "flow")
    assert (transformer.in_channels, transformer.caption_channels, transformer.max_caption_length) == (16, 48, 20)
    assert transformer.null_caption.shape == (20, 48)


def test_a_missing_rope_table_is_computed():
    state_dict = weights("stdit3v13")
    stored = state_dict.pop("rope.freqs")
    assert torch.equal(load_transformer(state_dict, CONFIG).rope.freqs, stored)


def test_the_rope_table_tells_whether_there_are_windows():
    """1.3 without a kernel_size has 1.2's temporal attention, and a table over the whole head."""
    state_dict = weights("stdit3v13")
    state_dict["rope.freqs"] = rope_frequencies(36)
    config = STDiT3v13Config.from_weights(state_dict)
    assert (config.kernel_size, config.use_spatial_rope, config.num_heads) == (None, False, 2)
    case = Case("stdit3v13_i2v")
    assert call(load_transformer(state_dict), case).isfinite().all()
    with pytest.raises(ValueError, match=r"config says kernel_size = \[2, 2, -1\], but the weights.*18 frequencies"):
        load_transformer(state_dict, CONFIG)
    with pytest.raises(ValueError, match="config says kernel_size = None.*6 frequencies"):
        load_transformer(weights("stdit3v13"), {"kernel_size": None})
    with pytest.raises(ValueError, match="use_spatial_rope, which needs a kernel_size"):
        load_transformer(state_dict, {"use_spatial_rope": True})


def test_heads_without_qk_norm_come_from_the_rope_table():
    state_dict = {key: value for key, value in weights("stdit3v13").items() if "_norm." not in key}
    assert STDiT3v13Config.from_weights(state_dict).num_heads == 2
    state_dict["rope.freqs"] = rope_frequencies(72)
    assert STDiT3v13Config.from_weights(state_dict, {"kernel_size": None}).num_heads == 1


@pytest.mark.parametrize("given", [(8, 8), (8, 0, -1)])
def test_a_window_that_is_none_is_refused(given):
    with pytest.raises(ValueError, match="kernel_size = .* it is tokens of height, width, time"):
        STDiT3v13Config.from_weights(weights("stdit3v13"), {"kernel_size": given})


def test_misshapen_keys_are_listed():
    state_dict = weights("stdit3v13")
    state_dict["rope.freqs"] = torch.zeros(5)
    del state_dict["x_embedder_cond.proj.bias"]
    with pytest.raises(
        ValueError, match=r"missing keys: x_embedder_cond.proj.bias; .*rope.freqs \(5,\) instead of \(6,\)"
    ):
        load_transformer(state_dict, CONFIG)


@pytest.mark.parametrize("window", [(3, 2, 4), (2, 4, 3), (1, 5, 7), (8, 8, 8)])
def test_windows_are_the_originals_filled_up_and_masked_ones(window):
    """One attention over everything, where a token may see those that share its window."""
    B, grid, heads, channels = 2, (3, 5, 7), 2, 48
    torch.manual_seed(0)
    attention = WindowAttention(channels, heads, True, torch.nn, matmul_attention)
    x = torch.randn(B, grid[0], grid[1] * grid[2], channels)
    places = torch.cartesian_prod(*(torch.arange(length) for length in grid))
    windows = places // torch.tensor(window)
    together = (windows[:, None] == windows[None]).all(-1)[None, None]
    whole = WindowAttention(channels, heads, True, torch.nn, lambda q, k, v, mask: matmul_attention(q, k, v, together))
    whole.load_state_dict(attention.state_dict())

    def cut(window):
        return Windows.of(grid, window, lambda size: window_rotation(rope_frequencies(8), (0, 1, 2), size, 0.5, 24))

    with torch.no_grad():
        expected = whole(x, cut(grid))
        for given in (cut(window), cut(window).finer(2), cut(window).finer(64)):
            assert difference(attention(x, given), expected) <= 1e-6
    assert len(cut(window).finer(64).pieces) > len(cut(window).pieces) or window == (8, 8, 8)


def test_positions_count_from_a_windows_first_token_and_by_scale():
    window = (3, 2, 4)
    matrices = window_rotation(torch.ones(1), (0, 1, 2), window, scale=0.5, head_dim=6)
    angles = torch.atan2(matrices[..., 1, 0], matrices[..., 0, 0]).view(*window, 3)
    for axis, wanted in enumerate([[0, 1, 2], [0, 2], [0, 2, 4, 6]]):
        found = angles[..., axis].movedim(axis, 0)
        wanted = torch.atan2(*(f(torch.tensor(wanted).float()) for f in (torch.sin, torch.cos)))
        assert torch.allclose(found, wanted[:, None, None].expand_as(found))


@pytest.mark.parametrize(("head_dim", "reach", "stay"), [(32, 5, [10, 21]), (40, 6, [12, 13, 26, 27])])
def test_channels_beyond_the_frequencies_stay(head_dim, reach, stay):
    """A head of 32 channels splits 11, 11, 10, and 5 frequencies turn 10 of each; 40 split 14, 14, 12, 12 are turned."""
    window = (3, 5, 7)
    x = torch.randn(1, 2, 105, 2, head_dim)
    turned = rotate(x, window_rotation(torch.ones(reach), (0, 1, 2), window, 1.0, head_dim))
    assert torch.equal(turned[..., stay], x[..., stay])
    moved = [channel for channel in range(head_dim) if channel not in stay]
    inner = [values.unflatten(2, window)[:, :, 1:, 1:, 1:][..., moved] for values in (turned, x)]
    assert not torch.isclose(*inner).all(-1).any()
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1))


def test_padding_tokens_never_take_part(transformer):
    case = Case("stdit3v13_t2v_window")
    disturbed = case.inputs["y"] + 100.0 * (case.inputs["mask"] == 0)[:, None, :, None]
    assert torch.equal(call(transformer, case), call(transformer, case, y=disturbed))


def test_kept_frames_read_the_null_caption_and_nothing_else(transformer):
    """Where all frames are kept, the prompt counts for nothing; left out, the null caption is the checkpoint's own."""
    case = Case("stdit3v13_i2v")
    own = transformer.null_caption[None, None].expand(2, -1, -1, -1)
    everything = {"condition_frames": list(range(5)), "y_null": None}
    mask = torch.arange(20)[None].expand(2, -1) < torch.tensor([[7], [13]])
    kept = call(transformer, case, **everything, mask=mask)
    assert torch.equal(kept, call(transformer, case, **everything, mask=mask, y=torch.randn(2, 1, 20, 48)))
    assert torch.equal(kept, call(transformer, case, **{**everything, "y_null": own}, mask=mask))
    assert not torch.allclose(kept, call(transformer, case, **everything))


def test_the_null_caption_is_as_long_as_the_captions_mask(transformer):
    """A host may hand in captions without their padding; the kept frames read no more null tokens than otherwise."""
    case = Case("stdit3v13_i2v")
    mask = torch.arange(20)[None].expand(2, -1) < torch.tensor([[7], [9]])
    short = call(transformer, case, mask=mask[:, :9], y=case.inputs["y"][:, :, :9])
    assert torch.allclose(short, call(transformer, case, mask=mask), atol=1e-5)


def test_the_order_of_the_kept_frames_does_not_matter(transformer):
    case = Case("stdit3v13_i2v")
    assert torch.equal(call(transformer, case), call(transformer, case, condition_frames=[4, 0]))


def test_without_condition_frames_there_is_no_condition(transformer):
    case = Case("stdit3v13_i2v")
    without = {"cond": None, "cond_mask": None, "y_null": None}
    plain = call(transformer, case, condition_frames=None)
    assert torch.equal(plain, call(transformer, case, condition_frames=None, **without))
    assert not torch.allclose(plain, call(transformer, case, condition_frames=[]))


def test_a_condition_that_does_not_fit_is_named(transformer):
    case = Case("stdit3v13_i2v")
    with pytest.raises(ValueError, match="condition_frames is given without condition"):
        call(transformer, case, cond=None)
    for frames in ([5], [-1]):
        with pytest.raises(ValueError, match=r"condition_frames is \[-?\d\]; the latents have frames 0 to 4"):
            call(transformer, case, condition_frames=frames)


def test_frames_behind_a_frame_mask_are_told_timestep_zero(transformer):
    """With every frame kept, a velocity at t and one at 0 differ in the final layer's second norm alone."""
    case = Case("stdit3v13_t2v_window")
    seen = []
    hook = transformer.temporal_blocks[-1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    for t in (900.0, 100.0):
        call(transformer, case, frame_mask=torch.zeros(2, 5, dtype=torch.bool), timestep=torch.full((2,), t))
    hook.remove()
    assert torch.equal(*seen)


def test_a_half_precision_run_stays_close():
    case = Case("stdit3v13_i2v")
    transformer = load_transformer({key: value.bfloat16() for key, value in weights("stdit3v13").items()}, CONFIG)
    assert difference(call(transformer, case), case.outputs["x"]) <= 5e-2


def test_it_can_be_trained():
    transformer = load_transformer(weights("stdit3v13"), CONFIG).requires_grad_(True)
    case = Case("stdit3v13_i2v")
    inputs = case.inputs
    arguments = dict(condition=inputs["cond"], condition_mask=inputs["cond_mask"], condition_frames=[0, 4])
    transformer(inputs["x"], inputs["timestep"], inputs["y"][:, 0], **arguments).square().mean().backward()
    assert all(weight.grad is not None for weight in transformer.parameters())
