"""A run of the recipe learns and goes on where it stopped; its rate rises and falls; losses count what is generated."""

import math
import signal

import pytest
import torch
from opensora_comfy.model.transformers.stdit3 import STDiT3, STDiT3Config
from opensora_comfy.training.checkpoints import entries, newest
from opensora_comfy.training.objective import Drawn, loss
from opensora_comfy.training.tiny import run
from opensora_comfy.training.tiny.examples import TinyObjective


def fit(folder, steps, stop=None, muon_rate=0.0, memory=None):
    """Teach a small matrix a linear map; returns the module, and its loss then."""
    torch.manual_seed(0)
    module, goal = torch.nn.Linear(16, 16), torch.eye(16)
    seen = {"calls": 0} if memory is None else memory

    def loss_of(rng):
        if seen["calls"] == stop:
            raise KeyboardInterrupt
        seen["calls"] += 1
        x = torch.randn(32, 16) + torch.from_numpy(rng.normal(size=(32, 16))).float()
        found = (module(x) - x @ goal).square().mean()
        return found, {"half": found.detach() / 2}

    module = run.fit(folder, module, loss_of, steps, 0.02, muon_rate=muon_rate, memory=seen)
    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
    return module, (module(x) - x @ goal).square().mean().item()


@pytest.mark.parametrize("muon_rate", [0.0, 0.05], ids=["adamw", "muon"])
def test_a_run_learns_and_resumes_where_it_stopped(tmp_path, muon_rate, monkeypatch):
    """What it remembers beside its weights is of the checkpoint's step, too."""
    monkeypatch.setattr(run, "EVERY", 10)
    straight, again = {"calls": 0}, {"calls": 0}
    whole, loss = fit(tmp_path / "straight" / "run", 150, muon_rate=muon_rate, memory=straight)
    assert loss < 0.05
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "halted" / "run", 150, stop=85, muon_rate=muon_rate)
    assert newest(tmp_path / "halted" / "run")["memory"] == {"calls": 80}
    resumed, _ = fit(tmp_path / "halted" / "run", 150, muon_rate=muon_rate, memory=again)
    assert torch.equal(resumed.weight, whole.weight) and again == straight == {"calls": 150}
    logs = [entries(tmp_path / name / "run" / "log.jsonl") for name in ("straight", "halted")]
    assert [line["loss"] for line in logs[0]] == [line["loss"] for line in logs[1]]
    assert [2 * line["half"] for line in logs[0]] == pytest.approx([line["loss"] for line in logs[0]], abs=1e-4)
    assert [line["step"] for line in logs[1]] == list(range(1, 151))
    assert not any(parameter.requires_grad for parameter in resumed.parameters())


def test_a_run_that_is_asked_to_stop_does_not_let_the_next_begin(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "tell", lambda entry: entry["step"] == 3)
    with pytest.raises(SystemExit, match="stopped at step 3; the same command goes on"):
        fit(tmp_path, 10)
    monkeypatch.undo()
    fit(tmp_path, 10)
    assert [line["step"] for line in entries(tmp_path / "log.jsonl")] == list(range(1, 11))


@pytest.mark.parametrize("when", ["before", 4, 10])
def test_a_signal_stops_it_before_the_first_step_and_behind_the_last_too(tmp_path, monkeypatch, when):
    stop = lambda: signal.raise_signal(signal.SIGTERM)  # noqa: E731
    if when == "before":
        monkeypatch.setattr(run.Fit, "begin", lambda running: stop())
    else:
        monkeypatch.setattr(run, "tell", lambda entry: stop() if entry["step"] == when else None)
    done = 0 if when == "before" else when
    with pytest.raises(SystemExit, match=f"stopped at step {done}; the same command goes on"):
        fit(tmp_path, 10)
    assert len(entries(tmp_path / "log.jsonl")) == done
    monkeypatch.undo()
    fit(tmp_path, 10)
    assert [line["step"] for line in entries(tmp_path / "log.jsonl")] == list(range(1, 11))


def test_parts_learn_and_the_rest_stays(tmp_path):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    before = {name: value.clone() for name, value in module.state_dict().items()}

    def loss_of(rng):
        return module(torch.ones(1, 4)).square().sum(), {}

    run.fit(tmp_path, module, loss_of, 3, 0.1, parts=[module[1]])
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"1.weight", "1.bias"}


def test_dear_work_is_done_once(tmp_path):
    made = []

    def make():
        made.append(1)
        return [(torch.ones(2), [1, 2])]

    for _ in range(2):
        ((tensor, numbers),) = run.kept(tmp_path / "work.pt", make)
        assert torch.equal(tensor, torch.ones(2)) and numbers == [1, 2]
    assert made == [1] and [path.name for path in tmp_path.iterdir()] == ["work.pt"]


@pytest.mark.parametrize("muon_rate", [0.0, 0.1])
def test_the_learning_rate_rises_over_100_steps_and_falls_as_half_a_cosine(tmp_path, muon_rate):
    fit(tmp_path, 300, muon_rate=muon_rate)
    rates = [line["rate"] for line in entries(tmp_path / "log.jsonl")]
    wanted = [(step + 1) / 101 for step in range(100)]
    wanted += [0.5 * (1 + math.cos(math.pi * step / 200)) for step in range(200)]
    assert rates == pytest.approx([0.02 * factor for factor in wanted], rel=1e-6)
    groups = newest(tmp_path)["optimizer"]["param_groups"]
    assert [group["lr"] / group["initial_lr"] for group in groups] == pytest.approx([wanted[-1]] * len(groups))
    assert [group["initial_lr"] for group in groups] == [0.02, muon_rate][: len(groups)]


def test_the_loss_counts_generated_frames_only():
    transformer = STDiT3(STDiT3Config(depth=1, hidden_size=32, num_heads=2, caption_channels=8, model_max_length=4))
    torch.nn.init.zeros_(transformer.final_layer.linear.weight)
    torch.nn.init.zeros_(transformer.final_layer.linear.bias)
    clean, noise = torch.randn(2, 4, 3, 4, 4), torch.randn(2, 4, 3, 4, 4)
    frame_mask = torch.tensor([[True, False, True], [True, True, True]])
    told = {"caption": torch.randn(4, 8), "caption_mask": torch.ones(4), "sizes": {}}
    batch = [Drawn(*three, frame_mask=mask, **told) for *three, mask in zip(clean, noise, (500.0, 900.0), frame_mask)]
    with torch.no_grad():
        found = loss(transformer, batch, TinyObjective())
    # The final layer is zero, so the prediction is 0 and the error is the target itself.
    expected = (clean - noise).square().mean((1, 3, 4))
    assert found[0] == pytest.approx(expected[0, [0, 2]].mean().item(), rel=1e-5)
    assert found[1] == pytest.approx(expected[1].mean().item(), rel=1e-5)
