"""The options of Open-Sora 1.3: each acts, alone, and on that generation only."""

import pytest
import torch
from families import SMALL, clip, ours
from golden import difference
from small import pack, run


def options(model, **changes):
    settings = {"image_cfg": 5.0, "oscillation": False, "flaw_fix": False, "sdedit": False, **changes}
    return run(pack("nodes.v1_3_options").OpenSoraV13Options, model=model, **settings)[0]


KEPT = [0.0, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("change", "mask", "steps"),
    [
        ({"image_cfg": 9.0}, KEPT, 3),
        ({"sdedit": True}, KEPT, 3),
        ({"oscillation": True}, KEPT, 13),
        ({"oscillation": True}, None, 13),
        ({"flaw_fix": True}, None, 3),
    ],
)
def test_each_option_acts_and_leaves_the_model_alone(models, positive, change, mask, steps):
    model, latent = models["stdit3_v1_3"], clip("stdit3_v1_3", mask)
    before = ours(model, positive, latent, steps=steps)
    changed = ours(options(model, **change), positive, latent, steps=steps)
    assert torch.isfinite(changed).all() and (changed - before).abs().max() > 1e-3
    assert torch.equal(ours(options(model), positive, latent, steps=steps), before)


@pytest.mark.parametrize(
    ("change", "mask"), [({"image_cfg": 9.0}, None), ({"flaw_fix": True}, KEPT), ({"sdedit": True}, None)]
)
def test_options_that_do_not_apply_change_nothing(models, positive, change, mask):
    model, latent = models["stdit3_v1_3"], clip("stdit3_v1_3", mask)
    assert torch.equal(
        ours(options(model, **change), positive, latent, steps=3), ours(model, positive, latent, steps=3)
    )


def test_an_image_cfg_of_1_is_the_stock_guidance(comfy, models, positive):
    """Without image guidance the third prediction counts for nothing."""
    model, latent = options(models["stdit3_v1_3"], image_cfg=1.0), clip("stdit3_v1_3", KEPT)
    plain = model.clone()
    del plain.model_options["sampler_calc_cond_batch_function"]
    assert difference(ours(model, positive, latent), ours(plain, positive, latent)) <= 1e-5


@pytest.mark.parametrize("name", [name for name in SMALL if name != "stdit3_v1_3"])
def test_the_options_belong_to_1_3(models, name):
    with pytest.raises(ValueError, match="model is .*these options belong to Open-Sora 1.3"):
        options(models[name])
