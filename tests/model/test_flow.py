"""Rectified flow: timesteps and the guided Euler loop against recorded runs of the original."""

import pytest
import torch
from golden import Case, difference, table, weights
from opensora_comfy.model import flow, load_transformer


@pytest.mark.parametrize(
    "row", table("rflow_timesteps"), ids=lambda row: f"{row['resolution']}-{row['num_frames']}-{row['args_dtype']}"
)
def test_timesteps_match_the_original(row):
    sizes = [row["height"], row["width"], row["num_frames_arg"]]
    if row["args_dtype"] != "fp32":
        sizes = [torch.tensor(size).bfloat16() for size in sizes]
    timesteps = flow.timesteps(row["steps"], *sizes)
    assert timesteps.dtype == torch.float32
    assert (timesteps - torch.tensor(row["timesteps"])).abs().max() <= 1e-3


@pytest.mark.parametrize("kind", [torch.tensor, list])
def test_timesteps_of_a_batch_are_those_of_its_size(kind):
    sizes = [kind([value, value]) for value in (240.0, 426.0, 51.0)]
    assert torch.equal(flow.timesteps(30, *sizes), flow.timesteps(30, 240, 426, 51))
    with pytest.raises(ValueError, match="num_frames is 8"):
        flow.timesteps(10, *sizes[:2], kind([8, 8]))
    with pytest.raises(ValueError, match=r"sizes are \[17.0, 34.0\]; .* all of a batch must have it"):
        flow.timesteps(30, *sizes[:2], kind([17.0, 34.0]))


@pytest.mark.parametrize("name", ["t2v", "t2i", "mask_first", "mask_edit"])
def test_sample_matches_the_original(name):
    case = Case(f"rflow_{name}")
    inputs = case.inputs
    transformer = load_transformer(weights("rflow"))
    sizes = {key: inputs[key] for key in ("height", "width", "num_frames")}
    timesteps = flow.timesteps(case.meta["steps"], *(float(value[0]) for value in sizes.values()))
    seen = []

    def watch(x, t, *args, **kwargs):
        seen.append(difference(x[: len(x) // 2], case.mid["z_in"][len(seen)]))
        return transformer(x, t, *args, **kwargs)

    z = flow.sample(
        watch,
        inputs["z0"],
        inputs["y"][:, 0],
        inputs["y_null"][:, 0],
        caption_mask=inputs["mask"],
        timesteps=timesteps,
        guidance=case.meta["cfg_scale"],
        frame_mask=inputs.get("frame_mask"),
        noise=lambda step, shape: inputs["randn_like"][step],
        fps=inputs["fps"],
        **sizes,
    )
    assert difference(z, case.outputs["z"]) <= 1e-5, f"inputs of the steps differ by {seen}"
    if "frame_mask" in inputs:
        kept = inputs["frame_mask"][0] == 0
        assert torch.equal(z[:, :, kept], inputs["z0"][:, :, kept])


def test_shift_is_relative_to_the_base():
    assert flow.shift_ratio(512, 512, 1) == 1
    assert flow.shift_ratio(64, 64, 17, base_resolution=64 * 64, base_num_frames=5) == 1
    assert flow.shift_ratio(64, 64, 34, base_resolution=1024) == pytest.approx(2 * 10**0.5, rel=1e-6)


def test_timesteps_fall_from_1000():
    for height, width, frames in ((64, 64, 17), (720, 1280, 408), (144, 256, 1)):
        timesteps = flow.timesteps(30, height, width, frames)
        assert timesteps[0] == 1000
        assert (timesteps.diff() < 0).all()


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="steps is 0"):
        flow.timesteps(0, 64, 64, 17)
    with pytest.raises(ValueError, match="num_frames is 8"):
        flow.timesteps(10, 64, 64, 8)
