"""The 1.3 sampler and its timesteps against recorded runs of the original; the pieces that hosts reuse."""

import pytest
import torch
from golden import Case, difference, table, weights
from opensora_comfy.model import flow, flow_v1_3
from opensora_comfy.model.flow_v1_3 import Options
from opensora_comfy.model.transformers.stdit3_v1_3 import STDiT3v13, STDiT3v13Config

TOLERANCE = 1e-5


@pytest.mark.parametrize(
    "row", table("rflow13_timesteps"), ids=lambda row: f"{row['hw'][0]}-{row['num_frames']}-{row['scale']}"
)
def test_timesteps_match_the_original(row):
    timesteps = flow.timesteps(row["steps"], *row["hw"], row["num_frames"], version="1.3", scale=row["scale"])
    assert (timesteps - torch.tensor(row["timesteps"])).abs().max() <= 1e-3


@pytest.fixture(scope="module")
def transformer():
    state_dict = weights("rflow13")
    with torch.device("meta"):
        module = STDiT3v13(STDiT3v13Config.from_weights(state_dict, Case("rflow13_t2v").meta["config"]))
    module.load_state_dict(state_dict, assign=True)
    return module.eval().requires_grad_(False)


def run(transformer, case, options, **changes):
    """The sampler on a recorded case, with the case's own condition where it has one."""
    inputs = case.inputs
    sizes = {key: inputs[key] for key in ("height", "width", "num_frames")}
    arguments = {}
    if "z_cond" in inputs:
        arguments = {
            "condition": inputs["z_cond"],
            "condition_mask": inputs["z_cond_mask"],
            "condition_frames": case.meta["kw"]["mask_index"],
            "noise": lambda step, shape: inputs["randn_like"][step],
        }
    arguments.update(changes)
    return flow_v1_3.sample(
        transformer,
        inputs["z"],
        inputs["y"][:, 0],
        inputs["y_null"][:, 0],
        caption_mask=inputs["mask"],
        timesteps=case.mid["timesteps"][:, 0],
        guidance=case.meta["cfg_scale"],
        options=options,
        fps=inputs["fps"],
        **sizes,
        **arguments,
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("t2v", Options()),
        ("t2v_osc_flawfix", Options(oscillation=True, flaw_fix=True, force_num=2)),
        ("i2v", Options(image_cfg=5.0, oscillation=True, sdedit=True, force_num=2)),
    ],
)
def test_sample_matches_the_original(transformer, name, options):
    case = Case(f"rflow13_{name}")
    seen = []

    def watch(x, t, *args, **kwargs):
        seen.append(difference(x[: len(case.inputs["z"])], case.mid["z_in"][len(seen)]))
        return transformer(x, t, *args, **kwargs)

    z = run(watch, case, options)
    assert len(seen) == case.meta["steps"]
    assert difference(z, case.outputs["z"]) <= TOLERANCE, f"inputs of the steps differ by {seen}"


def test_a_negative_prompt_has_its_own_mask_and_kept_frames_read_the_null_caption(transformer):
    case = Case("rflow13_i2v")
    seen = []

    def watch(x, t, captions, **arguments):
        seen.append((captions, arguments))
        return transformer(x, t, captions, **arguments)

    negative = {"negative_caption": case.inputs["y_neg"][:, 0], "negative_mask": case.inputs["mask_neg"]}
    z = run(watch, case, Options(), **negative)
    captions, arguments = seen[0]
    y, y_neg, y_null = (case.inputs[name][:, 0] for name in ("y", "y_neg", "y_null"))
    assert torch.equal(captions, torch.cat([y, y_neg, y_neg]))
    mask, mask_neg = case.inputs["mask"], case.inputs["mask_neg"]
    assert torch.equal(arguments["caption_mask"], torch.cat([mask, mask_neg, mask_neg]))
    assert torch.equal(arguments["null_caption"], torch.cat([y_null] * 3))
    assert not torch.allclose(z, run(transformer, case, Options()))
    unmasked = {"negative_caption": y_neg}
    run(watch, case, Options(), **unmasked)
    assert torch.equal(seen[-1][1]["caption_mask"], torch.cat([mask, *[torch.ones_like(mask)] * 2]))


def test_the_third_part_sees_no_condition_and_the_loop_holds_no_frame(transformer):
    case = Case("rflow13_i2v")
    seen = []

    def watch(x, t, captions, **arguments):
        seen.append(arguments)
        return transformer(x, t, captions, **arguments)

    z = run(watch, case, Options())
    with_text, image, none = seen[0]["condition"].chunk(3)
    kept = case.inputs["z_cond"] * case.inputs["z_cond_mask"]
    assert torch.equal(with_text, kept) and torch.equal(image, kept) and not none.any()
    assert torch.equal(seen[0]["condition_mask"], torch.cat([case.inputs["z_cond_mask"]] * 3))
    assert not torch.allclose(z[:, :, 0], case.inputs["z_cond"][:, :, 0])


def test_a_frame_mask_keeps_its_frames(transformer):
    """1.2's way of keeping frames, which 1.3 has too where there is no condition."""
    case = Case("rflow13_t2v")
    draws = torch.randn(6, *case.inputs["z"].shape, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[0.0, 1.0, 1.0, 0.5, 1.0]])
    arguments = {"frame_mask": mask, "noise": lambda step, shape: draws[step]}
    z = run(transformer, case, Options(), **arguments)
    assert torch.equal(z[:, :, 0], case.inputs["z"][:, :, 0])
    assert not torch.allclose(z[:, :, 3], case.inputs["z"][:, :, 3])
    state = dict(fps=case.inputs["fps"], **{key: case.inputs[key] for key in ("height", "width", "num_frames")})
    plain = flow.sample(
        transformer, case.inputs["z"], case.inputs["y"][:, 0], case.inputs["y_null"][:, 0],
        caption_mask=case.inputs["mask"], timesteps=case.mid["timesteps"][:, 0], guidance=case.meta["cfg_scale"],
        **arguments, **state,
    )  # fmt: skip
    assert torch.equal(z, plain)


def test_oscillation():
    assert [flow_v1_3.oscillate(7.5, step, 3) for step in range(7)] == [7.5, 7.5, 7.5, 1.0, 7.5, 1.0, 7.5]
    assert [flow_v1_3.oscillate(7.5, step) for step in (9, 10, 11)] == [7.5, 7.5, 1.0]


def test_image_weights_fall_over_steps_and_grow_over_frames():
    first, middle, last = (flow_v1_3.image_weights(5.0, step, 5, 3) for step in (0, 2, 4))
    assert torch.equal(first, torch.tensor([1.0, 3.0, 5.0]))
    assert torch.equal(middle, torch.tensor([1.0, 2.0, 3.0]))
    assert torch.equal(last, torch.ones(3))
    assert torch.equal(flow_v1_3.image_weights(5.0, 0, 5, 1), torch.ones(1))
    assert torch.equal(flow_v1_3.image_weights(5.0, 4, 5, 2, floor=2.0), torch.full((2,), 2.0))


def test_options_give_each_step_its_guidance():
    options = Options(image_cfg=5.0, oscillation=True, force_num=1)
    assert [options.text_guidance(7.0, step) for step in range(4)] == [7.0, 1.0, 7.0, 1.0]
    assert torch.equal(options.image_guidance(1, 4, 3), torch.ones(3))
    assert torch.equal(options.image_guidance(0, 4, 3), torch.tensor([1.0, 3.0, 5.0]))
    text_only = Options(oscillation=True, oscillation_for_image=False, force_num=1, image_cfg_falls=False)
    assert (text_only.text_guidance(7.0, 1), text_only.image_guidance(1, 4, 2).tolist()) == (1.0, [5.0, 5.0])
    image_only = Options(oscillation_for_image=True, force_num=1, image_cfg_falls=False)
    assert (image_only.text_guidance(7.0, 1), image_only.image_guidance(1, 4, 2).tolist()) == (7.0, [1.0, 1.0])
    assert Options(image_cfg=0.5).image_guidance(0, 4, 2).tolist() == [0.5, 0.5]


def test_combination():
    none, image, text = (torch.full((1, 2, 3, 1, 1), value) for value in (1.0, 3.0, 4.0))
    assert torch.equal(flow_v1_3.combine(none, text, 2.0), torch.full_like(none, 7.0))
    weights = torch.tensor([1.0, 2.0, 3.0])
    three = flow_v1_3.combine(none, text, 2.0, image, weights)
    assert three[0, 0, :, 0, 0].tolist() == [5.0, 7.0, 9.0]
    options = Options(image_cfg=3.0)
    assert torch.equal(flow_v1_3.guided(none, text, 2.0, 0, 4, image, options), three)
    assert torch.equal(flow_v1_3.guided(none, text, 2.0, 3, 4, image, options), torch.full_like(none, 5.0))


def test_the_flaw_fix_works_sample_by_sample_and_only_without_kept_frames():
    torch.manual_seed(0)
    conditional, none = torch.randn(2, 4, 3, 5, 6), torch.randn(2, 4, 3, 5, 6)
    wide = conditional * torch.tensor([2.0, 1.0]).view(2, 1, 1, 1, 1)
    fixed = flow_v1_3.fix_flaw(wide, conditional)
    assert torch.allclose(fixed[0], conditional[0] * 2 * (0.7 / 2 + 0.3), atol=1e-6)
    assert torch.allclose(fixed[1], conditional[1], atol=1e-6)
    on, off = Options(flaw_fix=True), Options()
    assert not torch.equal(
        flow_v1_3.guided(none, conditional, 7.0, 0, 4, options=on),
        flow_v1_3.guided(none, conditional, 7.0, 0, 4, options=off),
    )
    assert torch.equal(
        flow_v1_3.guided(none, conditional, 7.0, 0, 4, none, on),
        flow_v1_3.guided(none, conditional, 7.0, 0, 4, none, off),
    )


def test_sdedit_lays_kept_frames_into_the_noise():
    z, condition, noise = torch.zeros(1, 2, 3, 1, 1), torch.ones(1, 2, 3, 1, 1), torch.full((1, 2, 3, 1, 1), 3.0)
    mask = torch.zeros_like(z)
    mask[:, :, 0] = 1
    laid = flow_v1_3.lay_in(z, condition, mask, torch.tensor([250.0]), noise)
    assert laid[0, 0, :, 0, 0].tolist() == [1.5, 0.0, 0.0]


def test_the_shift_counts_latents_its_own_way():
    assert flow.shift_ratio(512, 512, 17, version="1.3") == 2
    assert flow.shift_ratio(512, 512, 20, version="1.3") == 2
    assert flow.shift_ratio(512, 512, 17, version="1.2") == pytest.approx(5**0.5)
    assert flow.shift_ratio(512, 512, 17, version="1.3", scale=2.0) == 4
    assert flow.shift_ratio(512, 512, 1, version="1.3", scale=2.0) == 1
    assert flow.shift_ratio(256, 256, 17, version="1.3", base_resolution=256 * 256, base_num_frames=4) == 1
    with pytest.raises(ValueError, match="num_frames is 4; .* for 1 frame and from 5 on"):
        flow.timesteps(10, 64, 64, 4, version="1.3")
    with pytest.raises(ValueError, match='version is "1.1"; the timesteps known here are those of 1.2 and 1.3'):
        flow.timesteps(10, 64, 64, 17, version="1.1")
