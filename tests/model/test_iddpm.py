"""The ancestral sampler of 1.0 and 1.1 against recorded runs and tables of the original."""

import pytest
import torch
from golden import Case, difference, table, weights
from opensora_comfy.model import iddpm, load_transformer

FACTS = table("iddpm_facts")


def run(case, transformer, **changes):
    """The recorded run again: (latents, gaps of the latents that each step saw, frame masks it saw)."""
    inputs = {**case.inputs, **changes.pop("inputs", {})}
    gaps, masks = [], []

    def watch(x, t, *args, **kwargs):
        assert (t == case.mid["timesteps"][len(gaps), 0]).all()
        gaps.append(difference(x[: len(x) // 2], case.mid["z_in"][len(gaps)]))
        masks.append(kwargs["frame_mask"])
        return transformer(x, t, *args, **kwargs)

    z = iddpm.sample(
        watch,
        inputs["z0"],
        inputs["y"][:, 0],
        inputs["y_null"][:, 0],
        caption_mask=inputs["mask"],
        steps=case.meta["steps"],
        guidance=case.meta["cfg_scale"],
        frame_mask=inputs.get("frame_mask"),
        noise=lambda draw, shape: inputs["randn_like"][draw],
        **{name: inputs[name] for name in ("fps", "height", "width", "num_frames")},
        **{"original_masks": True, **changes},
    )
    return z, gaps, masks


@pytest.fixture(scope="module")
def transformer():
    return load_transformer(weights("iddpm"))


@pytest.mark.parametrize("name", ["cfg3", "mask_first"])
def test_sample_matches_the_original(name, transformer):
    case = Case(f"iddpm_{name}")
    z, gaps, masks = run(case, transformer)
    assert difference(z, case.outputs["z"]) <= 1e-5, f"inputs of the steps differ by {gaps}"
    if "frame_mask" in case.inputs:
        assert torch.equal(torch.stack(masks), case.mid["x_mask"])
    else:
        assert masks == [None] * case.meta["steps"]


def test_kept_frames_stay_bit_for_bit_unless_the_original_is_asked_for(transformer):
    case = Case("iddpm_mask_first")
    kept, start = case.inputs["frame_mask"][0] == 0, case.inputs["z0"]
    for original_masks in (False, True):
        z, _, _ = run(case, transformer, original_masks=original_masks)
        assert torch.equal(z[:, :, kept], start[:, :, kept]) is not original_masks
        assert not torch.equal(z[:, :, ~kept], start[:, :, ~kept])


@pytest.mark.parametrize("steps", [100, 10])
def test_schedule_is_the_originals(steps):
    own, recorded = iddpm.schedule(steps), FACTS[str(steps)]
    tables = {
        "betas": own.betas,
        "alphas_cumprod": own.alphas_cumprod,
        "posterior_log_variance_clipped": own.posterior_log_variance,
        "posterior_mean_coef1": own.posterior_clean,
        "posterior_mean_coef2": own.posterior_noisy,
        "sqrt_recip_alphas_cumprod": (1 / own.alphas_cumprod).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / own.alphas_cumprod - 1).sqrt(),
    }
    assert own.timesteps.tolist() == recorded["timestep_map"]
    assert set(recorded) == {*tables, "timestep_map", "spaced_dtype"}
    for name, values in tables.items():
        assert str(values.dtype) == recorded["spaced_dtype"]
        assert torch.allclose(values, torch.tensor(recorded[name]), rtol=5e-7, atol=0), name


@pytest.mark.parametrize("steps", sorted(FACTS["timestep_map_steps"], key=int))
def test_timesteps_are_the_originals(steps):
    assert iddpm.respaced_timesteps(int(steps)).tolist() == FACTS["timestep_map_steps"][steps][::-1]


def test_trained_betas_are_the_originals():
    assert (FACTS["schedule"], FACTS["beta_start"], FACTS["beta_end"]) == ("linear", iddpm.BETA_START, iddpm.BETA_END)
    assert (FACTS["model_mean_type"], FACTS["model_var_type"]) == (
        "ModelMeanType.EPSILON",
        "ModelVarType.LEARNED_RANGE",
    )
    every = iddpm.schedule(1000)
    assert every.timesteps.tolist() == list(range(1000))
    assert torch.allclose(every.betas, torch.linspace(1e-4, 0.02, 1000), rtol=1e-6)


def test_one_step_alone_continues_a_run(transformer):
    """What a host that drives the loop itself calls: `guide` and `Schedule.step` from a recorded step to the next."""
    case = Case("iddpm_cfg3")
    z = case.mid["z_in"][0]
    eps, variance = iddpm.guide(case.mid["pred_step0"], 4, case.meta["cfg_scale"])
    stepped = iddpm.schedule(10).step(z, eps, variance, 9, case.inputs["randn_like"][0, :1])
    assert difference(stepped, case.mid["z_in"][1]) <= 1e-5


def test_guidance_leaves_the_channels_behind_it_alone():
    prediction = torch.randn(2, 8, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    conditional, unconditional = prediction[:1], prediction[1:]
    pushed = unconditional + 7.0 * (conditional - unconditional)
    for channels, guided in ((3, 3), (None, 4), (0, 0)):
        eps, variance = iddpm.guide(prediction, 4, 7.0, channels)
        assert torch.equal(eps, torch.cat([pushed[:, :guided], conditional[:, guided:4]], dim=1))
        assert torch.equal(variance, conditional[:, 4:])


def test_variance_spans_the_posteriors_and_the_betas():
    table_ = iddpm.schedule(10)
    z = eps = torch.zeros(1, 4, 1, 2, 2)
    for bound, variance in ((-1.0, table_.posterior_log_variance[5].exp()), (1.0, table_.betas[5])):
        stepped = table_.step(z, eps, torch.full_like(z, bound), 5, torch.ones_like(z))
        assert torch.allclose(stepped, variance.sqrt().expand_as(z))


def test_frames_wake_at_their_share_of_the_steps():
    mask = torch.tensor([[0.0, 0.05, 0.3, 0.99, 1.0]])
    woken, moved = {}, {}
    for original_masks in (False, True):
        states = [iddpm.frame_states(mask, 10, index, original_masks) for index in reversed(range(10))]
        woken[original_masks] = torch.cat([state.waking for state in states]).sum(0).tolist()
        moved[original_masks] = torch.cat([state.moving for state in states]).sum(0).tolist()
        assert [state.active[0, 2].item() for state in states] == [False] * 7 + [True] * 3
    assert woken == {False: [0, 0, 1, 1, 0], True: [1, 1, 1, 1, 0]}
    assert moved == {False: [0, 0, 4, 10, 10], True: [1, 1, 4, 10, 10]}


def test_draws_of_its_own_are_fresh(transformer):
    case = Case("iddpm_cfg3")
    torch.manual_seed(0)
    first, second = (
        iddpm.sample(
            transformer, case.inputs["z0"], case.inputs["y"][:, 0], transformer.null_caption, steps=2, guidance=1
        )
        for _ in range(2)
    )
    assert first.isfinite().all()
    assert not torch.allclose(first, second)


def test_bad_arguments_are_named(transformer):
    case = Case("iddpm_cfg3")
    for steps, nearest in ((1, 2), (1001, 1000)):
        with pytest.raises(ValueError, match=f"steps is {steps}; .* takes 2 to 1000 .nearest: {nearest}"):
            iddpm.respaced_timesteps(steps)
    with pytest.raises(ValueError, match="guidance_channels is 5; these latents have 4"):
        run(case, transformer, guidance_channels=5)
    with pytest.raises(ValueError, match="returns 4 channels for latents of 4"):
        run(case, lambda *args, **kwargs: transformer(*args, **kwargs)[:, :4])
