"""Losses, their gradients, timesteps, learning rates and averages as the original's."""

import json

import pytest
import torch
from golden import FOLDER, Case, difference
from opensora_comfy.model.iddpm import schedule
from opensora_comfy.training import timesteps
from opensora_comfy.training.losses import iddpm, rectified_flow
from opensora_comfy.training.optimizers import ema_update, warmup

CASES = sorted(path.stem for path in (FOLDER / "training").glob("loss_*.safetensors"))


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient(name):
    case = Case(f"training/{name}")
    given, known, meta = case.inputs, case.outputs, case.meta
    output = given["model_output"].clone().requires_grad_()
    handed = {}

    def predict(x_t, t):
        handed.update(x_t=x_t, t=t)
        return output

    x0, mask = given["x0"], given["frame_mask"].bool() if "frame_mask" in given else None
    if "iddpm" in name:
        terms = iddpm(predict, x0, given["t"], given["noise"], frame_mask=mask, version=meta["version"])
        assert difference(terms["mse"].detach(), known["mse"]) < 1e-6
        assert difference(terms["vb"].detach(), known["vb"]) < 1e-6
        loss = terms["loss"]
    else:
        threshold = meta.get("noise_disable_threshold")
        if threshold is not None:
            x0 = torch.where((given["t"] > threshold).view(-1, 1, 1, 1, 1), given["x_gt"], x0)
        loss = rectified_flow(
            predict, x0, given["t"], given["noise"], frame_mask=mask, weights=given.get("weights"),
            version=meta["version"], target=given.get("x_gt"), condition_frames=meta.get("mask_index", ()),
            condition_weight=meta.get("x_cond_weight", 1),
        )  # fmt: skip
    loss.mean().backward()
    assert difference(handed["x_t"], known["x_t"]) < 1e-6
    assert difference(loss.detach(), known["loss"]) < 1e-6
    assert difference(output.grad, known["grad_model_output"]) < 1e-6


def test_every_frame_a_condition_is_refused():
    x = torch.zeros(1, 4, 2, 3, 3)
    with pytest.raises(ValueError, match="condition_frames names all 2 latent frames"):
        rectified_flow(lambda x_t, t: x_t, x, torch.zeros(1), x, condition_frames=[0, 1])


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_every_timestep(version):
    names = {"sample_method": "method", "use_discrete_timesteps": "discrete", "use_timestep_transform": "transform"}
    rows = json.loads((FOLDER / "training" / f"train_timesteps_v{version.replace('.', '_')}.json").read_text())["rows"]
    for row in rows:
        config = {names.get(key, key): value for key, value in row["config"].items()}
        size = {key: row[key] for key in ("height", "width", "num_frames")}
        generator = torch.Generator().manual_seed(row["seed"])
        t = timesteps.sample(len(row["t"]), **size, version=version, **config, generator=generator)
        assert difference(t, torch.tensor(row["t"], dtype=torch.float32)) < 1e-6, row
    assert len(rows) > 60


def test_timesteps_refuse_what_has_none():
    size = {"height": 240, "width": 426}
    refused = {
        "method is 'beta'; it must be 'uniform' or 'logit-normal'": {"method": "beta"},
        "discrete timesteps are drawn uniformly": {"method": "logit-normal", "discrete": True},
        "version is '1.1'; rectified flow is that of 1.2 and 1.3": {"version": "1.1"},
        "transform_scale is 0; it must be above 0": {"transform_scale": 0},
    }
    for words, given in refused.items():
        with pytest.raises(ValueError, match=words):
            timesteps.sample(2, **size, num_frames=51, **given)
    with pytest.raises(ValueError, match="num_frames is 9; the shift is defined for 1 frame and from 17 on"):
        timesteps.sample(2, **size, num_frames=9, transform=True)


def test_warm_up():
    for row in json.loads((FOLDER / "training" / "lr_warmup_v1_2.json").read_text()):
        used = [warmup(step, row["warmup_steps"], row["lr"]) for step in range(len(row["used_at_step"]))]
        assert used == pytest.approx(row["used_at_step"], rel=1e-9)
    assert warmup(0, 2, 1e-3, "1.3") == pytest.approx(1e-3 / 3 + 1e-6)


class Averaged(torch.nn.Module):
    """The names of the recorded average: parameters, a frozen one, a buffer."""

    def __init__(self, tensors):
        super().__init__()
        self.a = torch.nn.Linear(3, 2)
        self.pos_embed = torch.nn.Parameter(torch.zeros(2))
        self.frozen = torch.nn.Parameter(torch.zeros(2), requires_grad=False)
        self.register_buffer("buf", torch.zeros(2))
        self.load_state_dict(tensors)


def test_tables_of_1_1():
    table = json.loads((FOLDER / "training" / "iddpm_schedule.json").read_text())
    tables = schedule(1000)
    assert str(tables.betas.dtype) == table["dtype"]
    assert tables.betas[:3].tolist() == table["betas_first"] and tables.betas[-3:].tolist() == table["betas_last"]
    for name, ours in (
        ("alphas_cumprod", "alphas_cumprod"),
        ("posterior_log_variance_clipped", "posterior_log_variance"),
    ):
        for index, value in table[name].items():
            assert getattr(tables, ours)[int(index)].item() == pytest.approx(value, rel=1e-6)


def test_average_of_the_weights():
    case = Case("training/ema")

    def recorded(tensors, prefix):
        return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}

    average = Averaged(recorded(case.inputs, "ema."))
    for index, decay in enumerate(case.meta["decay_of_update"]):
        ema_update(average, Averaged(recorded(case.inputs, f"model.{index}.")), decay)
        known = recorded(case.outputs, f"ema.{index}.")
        assert known
        for key, value in known.items():
            torch.testing.assert_close(average.state_dict()[key], value, rtol=1e-6, atol=1e-7)
