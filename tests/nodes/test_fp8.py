"""Products in fp8, as ComfyUI's fast mode has them where a GPU can: every matrix of a block goes that way."""

import pytest
import torch
from families import VIDEO, clip
from golden import difference
from small import CAPTION_CHANNELS, CAPTION_LENGTH, pack


@pytest.fixture
def products(comfy, monkeypatch):
    """(dimensions of the input, whether it was taken) of each product that ComfyUI was asked for in fp8."""
    import comfy.ops

    asked, real = [], comfy.ops.fp8_linear

    def spy(layer, x):
        out = real(layer, x)
        asked.append((x.ndim, out is not None))
        return out

    monkeypatch.setattr(comfy.ops, "fp8_linear", spy)
    return asked


def call(network, name):
    generator = torch.Generator().manual_seed(3)
    shape = clip(name)["samples"].shape
    x = torch.randn(2, *shape[1:], generator=generator)
    caption = torch.randn(2, CAPTION_LENGTH, CAPTION_CHANNELS, generator=generator)
    told = (None, None, 24.0, 8.0 * shape[3], 8.0 * shape[4], 17.0)
    with torch.inference_mode():
        return network(x.bfloat16(), torch.tensor([300.0, 700.0]), caption.bfloat16(), *told)


@pytest.mark.parametrize("name", VIDEO)
def test_every_product_of_a_block_is_taken(comfy, families, products, name):
    """ComfyUI's fp8 knows two and three dimensions; of more it says nothing and computes in 16 bits."""
    import comfy.ops

    loading = pack("nodes.comfy.loading")
    network = loading.load_model(families[name], "fp8_e4m3fn", comfy.ops.fp8_ops).model.diffusion_model.eval()
    found = call(network, name)
    matrices = [part for part in network.modules() if isinstance(part, comfy.ops.fp8_ops.Linear)]
    assert len(products) >= len(matrices) > 20 and all(taken for _, taken in products), products
    assert {part.weight.dtype for part in matrices} == {torch.float8_e4m3fn}
    exact = call(loading.load_model(families[name], "bf16").model.diffusion_model, name)
    assert difference(found, exact) < 0.35  # two blocks of random weights, rounded to three bits


def test_weights_in_fp8_alone_are_closer(comfy, families):
    """Without the fast mode they are brought to 16 bits before each product."""
    loading, name = pack("nodes.comfy.loading"), "stdit3"
    exact, stored = (
        call(loading.load_model(families[name], kind).model.diffusion_model, name) for kind in ("bf16", "fp8_e4m3fn")
    )
    assert 0 < difference(stored, exact) < 0.2
