"""The trainers learn, resume where they stopped, and write files that load."""

import numpy
import pytest
import torch
from opensora_comfy.model import load_vae
from opensora_comfy.model.loading import read_file
from opensora_comfy.model.stdit3 import STDiT3, STDiT3Config
from opensora_comfy.model.vae import VideoVAE
from opensora_comfy.training import latents, train_vae
from opensora_comfy.training.calibrate import GUIDANCE, TEACHER_GUIDANCE, calibration_loss
from opensora_comfy.training.export import export
from opensora_comfy.training.loop import Run
from opensora_comfy.training.muon import orthogonalise
from opensora_comfy.training.shapes import render
from opensora_comfy.training.train_transformer import flow_loss, initialise


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
    assert torch.allclose(resumed.average["weight"], straight.average["weight"], atol=1e-6)


def test_orthogonalise_evens_out_singular_values():
    matrix = torch.randn(32, 64, generator=torch.Generator().manual_seed(0)) @ torch.diag(torch.logspace(0, -1, 64))
    values = torch.linalg.svdvals(orthogonalise(matrix))
    assert values.min() > 0.4
    assert values.max() < 1.4


@pytest.mark.parametrize(("share", "expected"), [(TEACHER_GUIDANCE / GUIDANCE, 0.0), (1.0, 25.0)])
def test_calibration_wants_the_teachers_result_at_the_default_guidance(share, expected):
    """With captions of ones the teacher's branches are 1 apart; the student's `share` of that."""

    def network(scale):
        def velocity(x, t, caption, frame_mask, **conditions):
            return x + scale * caption.mean((1, 2)).view(-1, 1, 1, 1, 1)

        return velocity

    clean, noise = torch.randn(2, 4, 3, 4, 4), torch.randn(2, 4, 3, 4, 4)
    mask = torch.tensor([[True, False, True], [True, True, True]])
    null, caption, t = torch.zeros(6, 8), torch.ones(2, 4, 8), torch.tensor([500.0, 900.0])
    loss = calibration_loss(network(share), network(1.0), null, clean, noise, t, mask, caption=caption)
    assert loss.tolist() == pytest.approx([expected] * 2, abs=1e-4)


def test_flow_loss_counts_generated_frames_only():
    transformer = initialise(
        STDiT3(STDiT3Config(depth=1, hidden_size=32, num_heads=2, caption_channels=8, model_max_length=4))
    )
    clean, noise = torch.randn(2, 4, 3, 4, 4), torch.randn(2, 4, 3, 4, 4)
    frame_mask = torch.tensor([[True, False, True], [True, True, True]])
    conditions = {"caption": torch.randn(2, 4, 8), "caption_mask": torch.ones(2, 4)}
    with torch.no_grad():
        loss = flow_loss(transformer, clean, noise, torch.tensor([500.0, 900.0]), frame_mask, **conditions)
    # The final layer starts at zero, so the prediction is 0 and the error is the target itself.
    expected = (clean - noise).square().mean((1, 3, 4))
    assert loss[0] == pytest.approx(expected[0, [0, 2]].mean().item(), rel=1e-5)
    assert loss[1] == pytest.approx(expected[1].mean().item(), rel=1e-5)


def test_latents_round_trip_through_the_set(tmp_path):
    torch.manual_seed(0)
    vae = VideoVAE(train_vae.TINY).eval().requires_grad_(False)
    bucket = latents.encode_bucket(vae, numpy.random.default_rng(0), 3, 64, 64, 34)
    assert bucket.latents.shape == (3, 4, 10, 8, 8)
    assert bucket.has_still[:, 0].all()
    assert bucket.has_still[:, -1].all()
    scene = bucket.scenes[0]
    video = render(scene).permute(3, 0, 1, 2)[None] * 2 - 1
    assert torch.allclose(vae.encode(video)[0], bucket.latents[0], atol=1e-3)
    assert torch.allclose(vae.encode(video[:, :, :1])[0, :, 0], bucket.stills[0, :, 0], atol=1e-3)
    last = video[:, :, -1:].repeat(1, 1, 17, 1, 1)
    assert torch.allclose(vae.encode(last)[0, :, 4], bucket.stills[0, :, 9], atol=1e-3)


def test_exported_files_load(tmp_path):
    vae = VideoVAE(train_vae.TINY)
    config = {"spatial_norm_groups": 8, "temporal_norm_groups": 8}
    path = export(vae, tmp_path / "vae.safetensors", kind="vae", family="vae_v1_2", title="a test", config=config)
    state_dict, metadata = read_file(path)
    again = load_vae({key: value.float() for key, value in state_dict.items()}, metadata["opensora"]["config"])
    video = torch.rand(1, 3, 17, 16, 16) * 2 - 1
    assert torch.allclose(again.encode(video), vae.eval().encode(video), atol=0.02)
