"""bf16 and fp16 against fp32: every family, and the picture that the tiny model draws."""

import math

import pytest
import torch
from families import SMALL, clip, ours
from golden import psnr
from small import pack, run

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def load_in(path, dtype):
    """A MODEL that holds its weights in `dtype` and computes in it too, which ComfyUI would not choose on a CPU."""
    model = pack("nodes.comfy.loading").load_model(path, dtype).clone()
    if dtype in HALF:
        model.set_model_compute_dtype(HALF[dtype])
    return model


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("dtype", "least"), [("bf16", 45), ("fp16", 60)])
def test_half_precision_agrees(families, models, positive, name, dtype, least):
    """PSNR of the latents against fp32, in dB.

    Only the lower part of the schedule is run: from the top, an untrained network of noise lets latents grow a
    hundredfold, beyond what its attention without q/k norm (1.0) can hold in fp16.
    """
    model = load_in(families[name], dtype)
    assert next(model.model.diffusion_model.parameters()).dtype == HALF[dtype]
    latent = clip(name, [1.0] if name == "pixart" else [0.0, 1.0, 1.0, 1.0, 1.0])
    result, exact = (ours(each, positive, latent, denoise=0.4) for each in (model, models[name]))
    print(f"{name}, {dtype}: {psnr(result, exact):.1f} dB")
    assert torch.isfinite(result).all() and psnr(result, exact) >= least


@pytest.fixture(scope="module")
def tiny(comfy):
    """dtype → the clip that the bundled tiny model draws with it, IMAGE [T, H, W, C]."""
    files = pack("nodes.comfy.files")
    path = files.path_of(files.BUNDLED, "vae", "vae")
    loading, conditioning = pack("nodes.comfy.loading"), pack("nodes.comfy.sampling.conditioning")
    vae = loading.load_vae(path)
    clip_model = loading.load_text_encoder(files.path_of(files.BUNDLED, "text_encoders", "text_encoder"))
    prompt = conditioning.encode_prompt(clip_model, "a red circle moves left on a white background")
    latent = {"samples": torch.zeros(1, 4, 5, 8, 8), "frames": 17, "fps": 24.0, "height": 64, "width": 64}
    path = files.path_of(files.BUNDLED, "diffusion_models", "transformer")

    def draw(dtype):
        samples = ours(load_in(path, dtype), prompt, latent, steps=10, cfg=3.0)
        return run(pack("nodes.codec").OpenSoraVAEDecode, vae=vae, samples={**latent, "samples": samples})[0]

    return {dtype: draw(dtype) for dtype in ("fp32", "bf16", "fp16")}


@pytest.mark.parametrize(("dtype", "least"), [("bf16", 40), ("fp16", 60)])
def test_the_tiny_model_draws_the_same_in_half_precision(tiny, dtype, least):
    assert tiny[dtype].shape == (17, 64, 64, 3) and torch.isfinite(tiny[dtype]).all()
    error = (tiny[dtype] - tiny["fp32"]).pow(2).mean().clamp(min=1e-12)
    found = -10 * math.log10(error.item())
    print(f"tiny model, {dtype}: {found:.1f} dB")
    assert found >= least
