"""`python run.py bench counted` and `measured`: what costs what, that the figures of the docs still hold, that both run."""

import json
from pathlib import Path

import pytest
import torch
from opensora_comfy.runner.speed import cases, measured, page
from opensora_comfy.runner.speed.roofline import BYTES, FLOPS, LAUNCH, count

DOCS = Path(__file__).resolve().parents[2] / "docs"
AGAIN = (
    "if that is meant: python run.py bench counted --comfyui DIR --json docs/performance.json, with ComfyUI 0.33 in DIR"
)


def tensor(*shape, dtype=torch.bfloat16):
    return torch.empty(shape, dtype=dtype, device="cuda")


@pytest.mark.parametrize(
    ("work", "kernels", "flops", "moved"),
    [
        (lambda x: x @ x, 1, 2 * 64**3, 3 * 2 * 64**2),
        (lambda x: x + x[:1].expand(64, 64), 1, 0, 2 * (64 * 64 + 64 + 64 * 64)),
        (lambda x: x.add_(1), 1, 0, 2 * 2 * 64**2),
        (lambda x: x.copy_(x.t()), 1, 0, 2 * 2 * 64**2),
        (lambda x: x.t().unflatten(0, (8, 8)).permute(1, 0, 2)[:, :4].expand(2, 8, 4, 64), 0, 0, 0),
        (lambda x: x.t().contiguous(), 1, 0, 2 * 2 * 64**2),
        (lambda x: torch.empty(5), 0, 0, 0),  # of a CPU
        (
            lambda x: torch.nn.functional.scaled_dot_product_attention(*[x.view(1, 4, 16, 64)] * 3),
            1,
            4 * 4 * 16 * 16 * 64,
            4 * 2 * 64**2,
        ),
    ],
)
def test_what_a_kernel_costs(work, kernels, flops, moved):
    found = count(lambda: tensor(64, 64), work)
    assert (found.kernels, found.flops, found.moved) == (kernels, flops, moved)
    assert found.seconds == pytest.approx(kernels * LAUNCH + max(flops / FLOPS, moved / BYTES))


def test_attention_leaves_its_result_token_by_token():
    """As the fused kernels do: what follows needs no copy."""
    q = (1, 4, 16, 64)
    found = count(
        lambda: tensor(*q),
        lambda q: torch.nn.functional.scaled_dot_product_attention(q, q, q).transpose(1, 2).flatten(2),
    )
    assert found.kernels == 1 and dict(found.by_name).keys() == {"attention"}


def test_depths_that_are_not_counted_follow():
    """From one and two depths to all: exactly what all of them come to."""
    size = cases.Size(64, 48, 17)
    followed = cases.deep(lambda depth: cases.transformer("1.2", size, depth), 4)
    whole = count(*cases.transformer("1.2", size, 4))
    assert (followed.kernels, followed.flops, followed.moved) == (whole.kernels, whole.flops, whole.moved)
    assert followed.seconds == pytest.approx(whole.seconds) and followed.peak == whole.peak


@pytest.mark.parametrize(
    "name", ["1.2, 480p, 4 s", "1.2, 480p, 4 s, first frame kept", "1.1, 240p, 2 s", "1.3, 480p, 4 s"]
)
def test_nothing_became_slower_or_faster_unseen(name):
    said = json.loads((DOCS / "performance.json").read_text(encoding="utf-8"))["transformer"]["PyTorch alone"][name]
    kept = name.endswith("kept")
    family, size = name.removesuffix(", first frame kept").split(", ", 1)
    assert cases.step(family, cases.SIZES[size], kept=kept).figures() == said, AGAIN


def test_hosted_it_takes_no_longer(comfy, monkeypatch):
    """Alone or by ComfyUI's way; with comfy-kitchen, what the docs say."""
    from opensora_comfy.nodes.comfy.transformer import attention
    from opensora_comfy.runner.speed.hosts import hosts

    monkeypatch.setattr(attention, "optimized_attention", attention.optimized_attention)  # back to it afterwards
    said = json.loads((DOCS / "performance.json").read_text(encoding="utf-8"))["transformer"]
    alone = said["PyTorch alone"]["1.2, 480p, 4 s"]["ms"]
    hosted = {way: by for way, by in hosts()[0].items() if by is not None}
    assert hosted
    for way, by in hosted.items():
        found = cases.step("1.2", cases.SIZES["480p, 4 s"], by).figures()
        assert found == said[way]["1.2, 480p, 4 s"] if way in said else found["ms"] <= 1.01 * alone, (way, AGAIN)


def test_the_page_says_what_is_counted():
    """Its tables are those that the figures make."""
    said = json.loads((DOCS / "performance.json").read_text(encoding="utf-8"))
    text = (DOCS / "performance.md").read_text(encoding="utf-8")
    assert "| 1.2, 480p, 4 s |" in text and page.with_tables(text, said) == text


def test_this_machine_is_measured(tmp_path):
    """Small, and beside another implementation: here our own once more."""
    other = tmp_path / "other.py"
    other.write_text(
        "from opensora_comfy.model import load_transformer\n"
        "def build(state_dict, depth):\n    return load_transformer(dict(state_dict))\n"
        "def call(network, x, t, caption, mask, fps, height, width):\n"
        "    return network(x, t, caption, None, mask, fps, height, width)\n",
        encoding="utf-8",
    )
    found = measured.on_cpu(other, turns=1, depth=1, width=96)
    for case in ("plain", "kept"):
        ours, others = found[case]["ours"], found[case]["other"]
        assert 0 < ours["share"] < 1.5 and ours["seconds"] > 0 and ours["peak_mb"] == pytest.approx(others["peak_mb"])
        assert found[case]["difference"] <= 1e-6
