"""A run learns and resumes where it stopped; its learning rate rises and falls; losses count what is generated."""

import math

import pytest
import torch
from opensora_comfy.model.transformers.stdit3 import STDiT3, STDiT3Config
from opensora_comfy.training.optimizers import orthogonalise, rise_and_fall
from opensora_comfy.training.timesteps import stratified
from opensora_comfy.training.tiny.run import Run
from opensora_comfy.training.tiny.transformer import loss_of


def fit(folder, steps, stop=None, matrix_rate=0.0):
    """Teach a small matrix a linear map; returns the run and its last loss."""
    torch.manual_seed(0)
    module = torch.nn.Linear(16, 16)
    goal = torch.eye(16)
    run = Run(folder, module, steps=steps, learning_rate=0.02, matrix_rate=matrix_rate, save_every=10, log_every=10)
    for step in run:
        if step == stop:
            break
        x = torch.randn(64, 16, generator=torch.Generator().manual_seed(step))
        loss = (module(x) - x @ goal).square().mean()
        run.update(loss)
    return run, loss.item()


@pytest.mark.parametrize("matrix_rate", [0.0, 0.05], ids=["adamw", "muon"])
def test_a_run_learns_and_resumes_where_it_stopped(tmp_path, matrix_rate):
    straight, loss = fit(tmp_path / "straight", 150, matrix_rate=matrix_rate)
    assert loss < 0.05
    fit(tmp_path / "halted", 150, stop=85, matrix_rate=matrix_rate)
    resumed, again = fit(tmp_path / "halted", 150, matrix_rate=matrix_rate)
    assert again == pytest.approx(loss, rel=1e-5)
    assert torch.allclose(resumed.averaged.module.weight, straight.averaged.module.weight, atol=1e-6)


def test_orthogonalise_evens_out_singular_values():
    matrix = torch.randn(32, 64, generator=torch.Generator().manual_seed(0)) @ torch.diag(torch.logspace(0, -1, 64))
    values = torch.linalg.svdvals(orthogonalise(matrix))
    assert values.min() > 0.4
    assert values.max() < 1.4


def test_the_learning_rate_rises_over_100_steps_and_falls_as_half_a_cosine():
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=0.5)
    schedule, rates = rise_and_fall(optimizer, 300), []
    for _ in range(300):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    wanted = [(step + 1) / 100 for step in range(100)]
    wanted += [0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / 200)) for step in range(200)]
    assert rates == pytest.approx([0.5 * factor for factor in wanted], rel=1e-6)


def test_timesteps_cover_the_range_and_move_toward_noise():
    torch.manual_seed(0)
    even = stratified(8, torch.tensor(1.0)).sort().values
    assert torch.equal((even / 125).floor(), torch.arange(8.0))
    assert stratified(800, torch.tensor(4.0)).median() > 750 > stratified(800, torch.tensor(4.0), even=1.0).median()


def test_the_loss_counts_generated_frames_only():
    transformer = STDiT3(STDiT3Config(depth=1, hidden_size=32, num_heads=2, caption_channels=8, model_max_length=4))
    torch.nn.init.zeros_(transformer.final_layer.linear.weight)
    torch.nn.init.zeros_(transformer.final_layer.linear.bias)
    clean, noise = torch.randn(2, 4, 3, 4, 4), torch.randn(2, 4, 3, 4, 4)
    frame_mask = torch.tensor([[True, False, True], [True, True, True]])
    conditions = {"caption": torch.randn(2, 4, 8), "caption_mask": torch.ones(2, 4)}
    with torch.no_grad():
        loss = loss_of(transformer, clean, noise, torch.tensor([500.0, 900.0]), frame_mask, **conditions)
    # The final layer is zero, so the prediction is 0 and the error is the target itself.
    expected = (clean - noise).square().mean((1, 3, 4))
    assert loss[0] == pytest.approx(expected[0, [0, 2]].mean().item(), rel=1e-5)
    assert loss[1] == pytest.approx(expected[1].mean().item(), rel=1e-5)
