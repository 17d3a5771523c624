"""Transformers in scaled fp8, mxfp8 and nvfp4: read as ComfyUI's own models are, by layers that multiply as the card can."""

import json

import pytest
import torch
from families import SMALL, clip, ours
from golden import difference
from safetensors.torch import save_file
from small import CAPTION_CHANNELS, CAPTION_LENGTH, pack, random_weights

# Format: ComfyUI's name of its layout, and how far a small random network may be from the weights before.
FORMATS = {
    "float8_e4m3fn": ("TensorCoreFP8E4M3Layout", 0.3),
    "mxfp8": ("TensorCoreMXFP8Layout", 0.3),
    "nvfp4": ("TensorCoreNVFP4Layout", 0.8),
}


def can_read(comfy):
    import comfy.utils

    return hasattr(comfy.utils, "convert_old_quants")


def quantised(weights, kind):
    """The attention's and the MLP's matrices in a format of ComfyUI's, with the marks that its Save nodes write."""
    from comfy.quant_ops import QuantizedTensor

    found = {}
    for key, value in weights.items():
        if not (value.ndim == 2 and key.endswith(("qkv.weight", "fc1.weight", "fc2.weight"))):
            found[key] = value
            continue
        layer = key.removesuffix(".weight")
        found |= QuantizedTensor.from_float(value.bfloat16(), FORMATS[kind][0], scale="recalculate").state_dict(key)
        found[f"{layer}.comfy_quant"] = torch.tensor(list(json.dumps({"format": kind}).encode()), dtype=torch.uint8)
    return {key: value.contiguous() for key, value in found.items()}


@pytest.fixture(scope="module", params=["stdit3", "stdit"])
def original(request):
    """(name, weights) of a network whose matrices fill the formats' blocks of 32, as the official sizes do."""
    module, kind, _, _ = SMALL[request.param]
    module = pack(f"model.transformers.{module}")
    sizes = {"depth": 2, "hidden_size": 96, "num_heads": 2}
    config = getattr(module, f"{kind}Config")(
        caption_channels=CAPTION_CHANNELS, model_max_length=CAPTION_LENGTH, **sizes
    )
    return request.param, random_weights(getattr(module, kind)(config), seed=11)


def file(tmp_path, original, change, file="weights.safetensors"):
    name, weights = original
    save_file(change(dict(weights)), tmp_path / file, {"opensora": json.dumps({"config": SMALL[name][3]})})
    return str(tmp_path / file)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_quantised_file_samples(comfy, original, positive, tmp_path, kind, prefix):
    loading = pack("nodes.comfy.loading")
    if not can_read(comfy):
        path = file(tmp_path, original, lambda w: {**w, "blocks.comfy_quant": torch.zeros(2, dtype=torch.uint8)})
        with pytest.raises(ValueError, match="model_name.*cannot read; update ComfyUI, or use a file in bf16"):
            loading.load_model(path)
        return
    change = lambda weights: {f"{prefix}{key}": value for key, value in quantised(weights, kind).items()}  # noqa: E731
    model = loading.load_model(file(tmp_path, original, change))
    whole, name = loading.load_model(file(tmp_path, original, dict, "whole.safetensors"), "fp32"), original[0]
    layers = [part for part in model.model.diffusion_model.modules() if getattr(part, "quant_format", None) == kind]
    assert len(layers) >= 6 and not any(weight.is_meta for weight in model.model.diffusion_model.parameters())
    expected = ours(whole, positive, clip(name), steps=2)
    gap = difference(ours(model, positive, clip(name), steps=2), expected)
    assert 0 < gap < FORMATS[kind][1], gap


def test_scaled_fp8_of_before(comfy, original, positive, tmp_path):
    """The way that text encoders were scaled: `scale_weight`, and one mark for the whole file."""
    loading = pack("nodes.comfy.loading")

    def change(weights):
        found = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
        for key, value in weights.items():
            if value.ndim == 2 and key.endswith("fc1.weight"):
                scale = value.abs().max() / 448
                found[key.replace(".weight", ".scale_weight")] = scale.float()
                value = (value / scale).to(torch.float8_e4m3fn)
            found[key] = value
        return found

    path, name = file(tmp_path, original, change), original[0]
    if not can_read(comfy):
        with pytest.raises(ValueError, match="cannot read; update ComfyUI"):
            loading.load_model(path)
        return
    whole = loading.load_model(file(tmp_path, original, dict, "whole.safetensors"), "fp32")
    expected = ours(whole, positive, clip(name), steps=2)
    assert 0 < difference(ours(loading.load_model(path), positive, clip(name), steps=2), expected) < 0.3
