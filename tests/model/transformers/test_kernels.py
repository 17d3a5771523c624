"""What a CPU writes over its input, without gradients, is what the plain operations give."""

import pytest
import torch
from golden import difference
from opensora_comfy.model.transformers.kernels import PLAIN, rotations, turns, writes_over
from opensora_comfy.model.transformers.layers import RMSNorm, rope_frequencies

HEAD = 24


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def norms():
    made = [RMSNorm(HEAD), RMSNorm(HEAD)]
    for number, norm in enumerate(made):
        norm.weight.data += 0.1 * random(HEAD) + number
    return made


ROTATIONS = {
    "none": None,
    "frames": turns(torch.arange(5), rope_frequencies(HEAD))[:, None, None],
    "windows": turns(torch.arange(7), rope_frequencies(HEAD))[None, :, None],
    "odd shares": [rotations(random(1, 7, 1, 1)), rotations(random(1, 7, 1, 5))],
}


@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("rope_first", [True, False])
@pytest.mark.parametrize("rotation", ROTATIONS)
def test_queries_and_keys(rotation, rope_first, normed):
    """They are views of one product, of which values stay as they are."""
    q_norm, k_norm = norms() if normed else (torch.nn.Identity(), torch.nn.Identity())
    given = random(2, 5, 7, 3, 2, HEAD)
    results = []
    for gradients in (True, False):
        q, k, v = given.clone().unbind(3)
        with torch.set_grad_enabled(gradients):
            results.append(PLAIN.heads(q, k, q_norm, k_norm, ROTATIONS[rotation], rope_first))
        assert torch.equal(v, given[:, :, :, 2])
    for found, wanted in zip(*results):
        assert difference(found, wanted) <= 5e-7
    if rotation != "odd shares":
        assert all(each.untyped_storage().data_ptr() == q.untyped_storage().data_ptr() for each in results[1])


def test_norm_and_modulation():
    x, shift, scale = random(2, 5, 7, 48), random(2, 1, 48), random(2, 5, 48)
    kept = x.clone()
    wanted = PLAIN.modulated_norm(x, shift, scale)
    with torch.no_grad():
        assert difference(PLAIN.modulated_norm(x, shift, scale), wanted) <= 5e-7
    assert torch.equal(x, kept)


def test_when_a_result_is_written_over():
    with torch.no_grad():
        assert writes_over(torch.zeros(1)) and not writes_over(torch.zeros(1).bfloat16())
        assert not writes_over(torch.zeros(1, device="meta"))
    assert not writes_over(torch.zeros(1))
