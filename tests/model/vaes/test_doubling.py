"""Doubling and the convolution behind it in one: against the two steps, whoever's layer it is."""

import pytest
import torch
import torch.nn.functional as F
from golden import difference
from opensora_comfy.model.vaes.causal import CausalConv3d
from opensora_comfy.model.vaes.doubling import doubled
from torch.utils.flop_counter import FlopCounterMode

IMAGES, VIDEO = (2, 6, 5, 7), (2, 6, 3, 5, 7)


def randn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def two_steps(layer, x):
    """What `doubled` stands for."""
    if isinstance(layer, CausalConv3d):
        return layer(F.interpolate(x, size=[2 * length for length in x.shape[2:]], mode="nearest"))
    frames = x.unbind(2) if x.ndim == 5 else [x]
    made = [layer(F.interpolate(frame, scale_factor=2.0, mode="nearest")) for frame in frames]
    return torch.stack(made, 2) if x.ndim == 5 else made[0]


def layer_of(kind, dtype=torch.float32):
    torch.manual_seed(0)
    if kind == "video":
        return CausalConv3d(6, 4, 3, torch.nn, dtype=dtype)
    return torch.nn.Conv2d(6, 4, 3, padding=1, dtype=dtype)


CASES = [("image", IMAGES), ("image", VIDEO), ("video", VIDEO)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize(("kind", "shape"), CASES)
@torch.no_grad()
def test_is_the_two_steps(kind, shape, dtype, tolerance):
    layer, x = layer_of(kind), randn(*shape)
    expected = two_steps(layer, x)
    found = doubled(getattr(layer.to(dtype), "conv", layer), x.to(dtype))
    assert found.shape == expected.shape and found.is_contiguous()
    assert difference(found.float(), expected) <= tolerance


@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_gradients_are_those_of_the_two_steps(kind, shape):
    """For who trains a VAE."""
    layer, found = layer_of(kind), []
    for function in (two_steps, lambda layer, x: doubled(getattr(layer, "conv", layer), x)):
        x = randn(*shape).requires_grad_()
        layer.zero_grad()
        function(layer, x).square().sum().backward()
        found.append([x.grad, *(weight.grad for weight in layer.parameters())])
    assert all(difference(one, other) <= 1e-5 for one, other in zip(*found))


@pytest.mark.parametrize(("kind", "shape", "share"), [("image", IMAGES, 4 / 9), ("video", (1, 6, 8, 5, 7), 9 / 27)])
@torch.no_grad()
def test_takes_fewer_products(kind, shape, share):
    """Of the frames one stands before the clip, so of 8 it is 9 / 8 · 8 / 27."""
    counts = []
    for function in (two_steps, lambda layer, x: doubled(getattr(layer, "conv", layer), x)):
        with FlopCounterMode(display=False) as counter:
            function(layer_of(kind), randn(*shape))
        counts.append(counter.get_total_flops())
    assert counts[1] / counts[0] == pytest.approx(share)


@torch.no_grad()
def test_a_host_that_calls_cudnn_itself(monkeypatch):
    """As ComfyUI does on a GPU for some versions of PyTorch; the GPU's function is worked out by a CPU's here."""

    class Conv3d(torch.nn.Conv3d):
        def _conv_forward(self, x, weight, bias):
            named = {"benchmark": False, "deterministic": False, "allow_tf32": True}
            out = torch.cudnn_convolution(x, weight, self.padding, self.stride, self.dilation, self.groups, **named)
            return out + bias.view(1, -1, 1, 1, 1)

    def transpose(x, weight, padding, output_padding, stride, dilation, groups, benchmark, deterministic, allow_tf32):
        return F.conv_transpose3d(x, weight, None, stride, padding, output_padding, groups, dilation)

    monkeypatch.setattr(torch, "cudnn_convolution_transpose", transpose)
    layer, own = layer_of("video"), Conv3d(6, 4, 3, padding=(0, 1, 1))
    own.load_state_dict(layer.conv.state_dict())
    assert difference(doubled(own, randn(*VIDEO)), two_steps(layer, randn(*VIDEO))) <= 1e-6


def test_a_layer_that_does_something_else_is_refused():
    with pytest.raises(RuntimeError, match="Linear convolves by a function that is not one of"):
        doubled(torch.nn.Linear(7, 3), randn(*IMAGES))
