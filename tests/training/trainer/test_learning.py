"""What a run does with the weights, what it says, and what it leaves."""

import json
import math
import sys

import pytest
import torch
from opensora_comfy.training import lora
from opensora_comfy.training.checkpoints import entries
from opensora_comfy.training.config import TrainConfig
from opensora_comfy.training.objective import VALIDATION_TIMESTEPS
from opensora_comfy.training.optimizers import PACKAGES, optimizer_of, rate_at
from opensora_comfy.training.trainer.learner import says_what_fits
from safetensors import safe_open
from small_runs import COUNTING, VERSIONS, clip, mixed_clips, network, prepared, trainer


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def examples(cache):
    return prepared(cache, mixed_clips(), seed=3)


def one_clip(cache, family):
    length = 17 if COUNTING[family].factor > 1 else 4
    return prepared(cache, [clip(0, length)], {"32x32": {length: 1}}, family)


@pytest.mark.parametrize("family", VERSIONS)
def test_the_loss_of_a_repeated_clip_falls(tmp_path, cache, family):
    """Judged as validation does, at fixed noise: what a step draws differs too much."""
    examples = one_clip(cache, family)
    running = trainer(
        tmp_path, examples, family, validation=examples, train={"steps": 30, "learning_rate": 3e-3, "ema": 0.0},
        saving={"validate_every": 30},
    )  # fmt: skip
    result = running.run()
    first, last = (line["validation"] for line in entries(tmp_path / "log.jsonl") if "validation" in line)
    assert last < 0.75 * first and result == {"step": 30, "loss": last}
    losses = [line["loss"] for line in entries(tmp_path / "log.jsonl") if "loss" in line]
    assert len(losses) == 30 and all(map(math.isfinite, losses))


@pytest.mark.parametrize("family", VERSIONS)
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_half_precision_learns(tmp_path, cache, family, kind):
    examples, rate = one_clip(cache, family), 1e-2 if kind == "lora" else 3e-3
    train = {"steps": 20, "kind": kind, "precision": "bf16", "rank": 4, "learning_rate": rate, "ema": 0.0}
    running = trainer(tmp_path, examples, family, validation=examples, train=train, saving={"validate_every": 20})
    assert {p.dtype for p in running.parameters.values()} == {torch.float32}
    running.run()
    first, last = (line["validation"] for line in entries(tmp_path / "log.jsonl") if "validation" in line)
    assert last < first


def test_what_is_frozen_does_not_move(tmp_path, examples):
    running = trainer(tmp_path, examples, train={"kind": "lora", "branches": "motion", "steps": 3})
    running.run()
    after = {name.replace(".base.", "."): value for name, value in running.network.state_dict().items()}
    moved = {name for name, value in network().state_dict().items() if not torch.equal(after[name], value)}
    assert not moved and all(layer.up.any() for layer in lora.layers(running.network).values())


def test_the_learning_rate_rises_and_falls(tmp_path, examples):
    for schedule in ("constant", "cosine"):
        train = {"steps": 8, "warmup": 3, "schedule": schedule, "learning_rate": 1e-3}
        trainer(tmp_path / schedule, examples, train=train).run()
    rates = {name: [line["rate"] for line in entries(tmp_path / name / "log.jsonl")] for name in ("constant", "cosine")}
    assert rates["constant"] == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, *[1e-3] * 5])
    falling = [0.5e-3 * (1 + math.cos(math.pi * part / 5)) for part in range(5)]
    assert rates["cosine"] == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, *falling])
    assert (
        rate_at(0, 1.0, warmup=0, steps=10, schedule="cosine") == 1.0
        and rate_at(10, 1.0, warmup=0, steps=10, schedule="cosine") == 0
    )


def test_the_average_follows_the_weights(tmp_path, examples):
    seen = []
    running = trainer(tmp_path, examples, train={"steps": 4, "ema": 0.75, "warmup": 0})
    running.on_step = lambda entry: (
        seen.append({name: p.detach().clone() for name, p in running.parameters.items()}) and None
    )
    expected = {name: p.detach().clone() for name, p in running.parameters.items()}
    running.run()
    for weights in seen:
        expected = {name: 0.75 * value + 0.25 * weights[name] for name, value in expected.items()}
    assert all(torch.allclose(running.average[name], value, atol=1e-6) for name, value in expected.items())
    name = next(name for name in expected if not torch.equal(expected[name], running.parameters[name]))
    learning = running.parameters[name].detach().clone()
    with running.averaged():
        assert torch.equal(running.parameters[name], running.average[name])
    assert torch.equal(running.parameters[name], learning)
    running.result()
    assert torch.equal(running.parameters[name], running.average[name])


def test_with_warmup_the_average_forgets_the_beginning(tmp_path, examples):
    running = trainer(tmp_path, examples, train={"steps": 4, "ema": 0.25, "ema_warmup": True, "warmup": 0})
    expected = {name: p.detach().clone() for name, p in running.parameters.items()}
    decays = iter((1 / 10, 2 / 11, 0.25, 0.25))

    def compare(entry):
        decay = next(decays)
        for name, value in expected.items():
            expected[name] = decay * value + (1 - decay) * running.parameters[name].detach()
            assert torch.allclose(running.average[name], expected[name], rtol=0, atol=1e-6), (entry["step"], name)

    running.on_step = compare
    running.run()
    assert next(decays, None) is None


def test_muon_moves_matrices_and_adamw_the_rest(tmp_path, examples):
    """Matrices by steps of one size, whatever the gradient; the rest as AdamW alone would; and it resumes."""
    train = {"optimizer": "muon", "muon_rate": 0.01, "learning_rate": 1e-3, "warmup": 0, "clip": 0.0}
    whole = trainer(tmp_path / "whole", examples, train={**train, "steps": 4})
    before = {name: p.detach().clone() for name, p in whole.parameters.items()}
    kinds = {name: p.ndim >= 2 and min(p.flatten(1).shape) >= 16 for name, p in whole.parameters.items()}
    groups = {id(p): group["muon"] for group in whole.optimizer.param_groups for p in group["params"]}
    assert {name: groups[id(p)] for name, p in whole.parameters.items()} == kinds and len(set(kinds.values())) == 2
    first = trainer(tmp_path / "run", examples, train={**train, "steps": 1})
    first.run()
    for name, p in first.parameters.items():
        step = (p.detach() - before[name]).flatten(1) if kinds[name] else (p.detach() - before[name])
        if not step.any():
            continue
        if kinds[name]:
            largest = 0.01 * max(1.0, step.shape[0] / step.shape[1]) ** 0.5
            assert 0.6 * largest < torch.linalg.matrix_norm(step, 2) < 1.3 * largest, name
        else:
            assert step.abs().max() == pytest.approx(1e-3, rel=0.02), name
    whole.run()
    on = trainer(tmp_path / "run", examples, train={**train, "steps": 4})
    on.run()
    assert all(torch.equal(value, on.parameters[name]) for name, value in whole.parameters.items())


def test_muon_s_adamw_is_adamw():
    """On a vector, step by step."""
    torch.manual_seed(0)
    ours = torch.nn.Parameter(torch.randn(7))
    theirs = torch.nn.Parameter(ours.detach().clone())
    muon = optimizer_of("muon", [ours], 0.05, weight_decay=0.1)
    adamw = torch.optim.AdamW([theirs], lr=0.05, betas=(0.9, 0.99), weight_decay=0.1)
    for _ in range(20):
        ours.grad = torch.randn(7)
        theirs.grad = ours.grad.clone()
        muon.step()
        adamw.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_another_loss_is_learned_by(tmp_path, examples):
    """Of distillation, say: it is given the network, the batch and the objective."""

    def loss(network, batch, objective):
        return network.final_layer.linear.weight.square().sum() * torch.ones(len(batch))

    running = trainer(tmp_path, examples, loss=loss, train={"steps": 3})
    before = float(running.network.final_layer.linear.weight.detach().square().sum())
    running.run()
    losses = [line["loss"] for line in entries(tmp_path / "log.jsonl")]
    assert losses[0] == pytest.approx(before, rel=1e-5) and losses[2] < losses[1] < losses[0]


def test_validation_by_noise_band_and_the_best_is_kept(tmp_path, cache, examples):
    held = prepared(cache, [clip(20)])
    running = trainer(tmp_path, examples, validation=held, train={"steps": 6}, saving={"validate_every": 2})
    result = running.run()
    judged = [line for line in entries(tmp_path / "log.jsonl") if "validation" in line]
    assert [line["step"] for line in judged] == [0, 2, 4, 6]
    sizes = {
        name: sum(low <= t < high for t in VALIDATION_TIMESTEPS)
        for name, (low, high) in {"low": (0, 333), "middle": (333, 667), "high": (667, 1000)}.items()
    }
    for line in judged:
        assert line["validation"] == pytest.approx(sum(line[name] * count for name, count in sizes.items()) / 10)
    best = min(judged, key=lambda line: line["validation"])
    assert result == {"step": best["step"], "loss": best["validation"]}
    with safe_open(tmp_path / "best.safetensors", "pt") as file:
        assert file.metadata() == {"step": str(best["step"]), "loss": str(best["validation"])}
        assert set(file.keys()) == set(running.parameters)


def test_samples_are_shown_with_the_average(tmp_path, examples):
    shown = []
    running = trainer(tmp_path, examples, train={"steps": 5}, saving={"sample_every": 2})
    name = next(iter(running.parameters))
    running.sample = lambda module, step: shown.append(
        (step, torch.equal(running.parameters[name], running.average[name]))
    )
    running.run()
    assert shown == [(2, True), (4, True), (5, True)]


def test_clipping_bounds_the_step(tmp_path, examples):
    running = trainer(tmp_path, examples, train={"clip": 1e-3, "steps": 1})
    norms = []
    running.optimizer.step = lambda: norms.append(
        torch.cat([p.grad.flatten() for p in running.parameters.values() if p.grad is not None]).norm()
    )
    running.run()
    (line,) = entries(tmp_path / "log.jsonl")
    assert float(norms[0]) == pytest.approx(1e-3, rel=1e-3) and line["norm"] > 1e-2


def test_a_loss_that_is_no_number_ends_the_run_and_nothing_of_it_is_kept(tmp_path, examples):
    running = trainer(tmp_path, examples, saving={"every_steps": 2})
    heard = []

    def spoil(entry):
        if entry["step"] == 3:
            running.network.final_layer.linear.weight.data.fill_(math.nan)

    running.on_step = lambda entry: heard.append(entry["step"]) or spoil(entry)
    with pytest.raises(
        ValueError, match="step 4: the loss is nan, not a number; the clips were clip .*; a tenth of it"
    ) as caught:
        running.run()
    assert "learning_rate is 0.001" in str(caught.value) and heard == [1, 2, 3]
    assert [line["step"] for line in entries(tmp_path / "log.jsonl")] == [1, 2, 3]
    on = trainer(tmp_path, examples)
    on.resume()
    assert on.step == 2 and all(torch.isfinite(p).all() for p in on.parameters.values())


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB\nmore"),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
)
def test_out_of_memory_names_the_bucket_and_what_helps(tmp_path, examples, error, monkeypatch):
    running = trainer(tmp_path, examples)

    def fails(batch):
        raise error

    monkeypatch.setattr(running.learner, "forward", fails)
    words = "^out of memory at 2 clips of 17 frames, 32x32: a batch size below 2 or gradient_checkpointing or precision bf16 or kind lora or a smaller bucket helps"
    with pytest.raises(ValueError, match=words):
        running.run()
    assert not entries(tmp_path / "log.jsonl")  # known before the first step


def test_other_errors_are_left_as_they_are(examples, tmp_path):
    batch = trainer(tmp_path, examples).schedule.largest()
    with pytest.raises(RuntimeError, match="^something else$"), says_what_fits(batch, TrainConfig()):
        raise RuntimeError("something else")
    with (
        pytest.raises(ValueError) as caught,
        says_what_fits(batch[:1], TrainConfig(precision="bf16", gradient_checkpointing=True)),
    ):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
    assert "at 1 clips of 17 frames, 32x32: a smaller bucket helps" in str(caught.value)


def test_memory_is_tried_and_nothing_of_it_is_kept(tmp_path, examples):
    running = trainer(tmp_path, examples)
    before = {name: p.detach().clone() for name, p in running.parameters.items()}
    calls = []
    running.learner.register_forward_pre_hook(lambda module, args: calls.append(args[0]))
    assert running.try_largest() > 0
    assert len(calls) == 1 and [tuple(each.clean.shape) for each in calls[0]] == [(4, 5, 4, 4)] * 2
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in running.parameters.items())


@pytest.mark.parametrize("accumulate, numbers", [(1, 2), (2, 3)])
def test_the_trial_counts_what_the_optimizer_will_keep(tmp_path, examples, monkeypatch, accumulate, numbers):
    """As from the second step on; when a run goes on it is there already."""
    running = trainer(tmp_path, examples, train={"accumulate": accumulate, "steps": 1})
    made, empty = [], torch.empty
    monkeypatch.setattr(torch, "empty", lambda size, **options: made.append(size) or empty(size, **options))
    running.try_largest()
    count = sum(p.numel() for p in running.parameters.values())
    assert made == [numbers * count]
    running.run()
    made.clear()
    running.try_largest()
    assert made == [(numbers - 2) * count]


@pytest.mark.parametrize("kind", PACKAGES)
def test_packages_of_optimizers_are_named(kind, monkeypatch):
    package = PACKAGES[kind][0].partition(".")[0]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ValueError,
        match=f"optimizer is '{kind}', which needs the package {package}: pip install {package}; adamw needs none",
    ):
        optimizer_of(kind, [torch.nn.Parameter(torch.ones(1))], 1e-3)
    with pytest.raises(ValueError, match="optimizer is 'sgd'; it must be one of adamw, adamw8bit, prodigy"):
        optimizer_of("sgd", [], 1e-3)


def test_a_folder_that_cannot_be_written(tmp_path, examples, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="^save.folder: .* cannot be written .*; free space there, or choose a folder"):
        trainer(tmp_path / "file" / "run", examples).run()


def test_a_full_disk_leaves_what_was_saved(tmp_path, examples, monkeypatch):
    running = trainer(tmp_path, examples, saving={"every_steps": 2})
    whole = torch.save

    def full(state, path):
        if state["step"] == 4:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        whole(state, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        ValueError, match="step-00000004.pt cannot be written .*No space left on device.*what was saved before is whole"
    ):
        running.run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["about.json", "log.jsonl", "step-00000002.pt"]
    assert json.loads((tmp_path / "about.json").read_text()) == {}
    monkeypatch.undo()
    trainer(tmp_path, examples).run()
    assert [line["step"] for line in entries(tmp_path / "log.jsonl")] == list(range(1, 11))
