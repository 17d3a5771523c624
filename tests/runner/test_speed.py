"""`python run.py bench counted` and `measured`: what costs what, the figures and the page of the docs, that both run."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from opensora_comfy.runner.speed import cards, cases, charts, measured, page
from opensora_comfy.runner.speed.roofline import BYTES, FLOPS, LAUNCH, count
from PIL import Image

DOCS = Path(__file__).resolve().parents[2] / "docs"
AGAIN = (
    "if that is meant: python run.py bench counted --comfyui DIR --json docs/performance.json, with ComfyUI 0.33 in DIR"
)


def tensor(*shape, dtype=torch.bfloat16):
    return torch.empty(shape, dtype=dtype, device="cuda")


@pytest.fixture
def said():
    """The figures of the docs."""
    return json.loads((DOCS / "performance.json").read_text(encoding="utf-8"))


def written(folder):
    """An adapter: our own code as another's."""
    other = folder / "other.py"
    other.write_text(
        "from opensora_comfy.model import load_transformer\n"
        "def build(state_dict, depth):\n    return load_transformer(dict(state_dict))\n"
        "def call(network, x, t, caption, mask, fps, height, width):\n"
        "    return network(x, t, caption, None, mask, fps, height, width)\n",
        encoding="utf-8",
    )
    return other


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
def test_nothing_became_slower_or_faster_unseen(name, said):
    kept = name.endswith("kept")
    family, size = name.removesuffix(", first frame kept").split(", ", 1)
    assert cases.step(family, cases.SIZES[size], kept=kept).figures() == said["transformer"]["PyTorch alone"][name], (
        AGAIN
    )


def test_hosted_it_takes_no_longer(comfy, monkeypatch, said):
    """Alone or by ComfyUI's way; with comfy-kitchen, what the docs say."""
    from opensora_comfy.nodes.comfy.transformer import attention
    from opensora_comfy.runner.speed.hosts import hosts

    monkeypatch.setattr(attention, "optimized_attention", attention.optimized_attention)  # back to it afterwards
    ways, _ = hosts()
    found = {way: cases.step("1.2", cases.SIZES["480p, 4 s"], by).figures() for way, by in ways.items()}
    alone = said["transformer"]["PyTorch alone"]["1.2, 480p, 4 s"]
    for way, figures in found.items():
        if way in said["transformer"]:
            assert figures == said["transformer"][way]["1.2, 480p, 4 s"], (way, AGAIN)
        assert figures["ms"] <= 1.01 * alone["ms"]


def test_the_page_shows_the_figures(said):
    """Every table is as the figures make it, and pictures say that they show them."""
    text = (DOCS / "performance.md").read_text(encoding="utf-8")
    assert all(f"<!-- bench: {name} -->" in text for name in page.TABLES)
    assert page.with_tables(text, said) == text, AGAIN
    for name in charts.pictures(said):
        with Image.open(DOCS / f"performance_{name}.png") as picture:
            assert picture.info["figures"] == page.digest(said), (name, AGAIN)
        assert f"](performance_{name}.png)" in text


def test_a_page_follows_its_figures(tmp_path, said):
    """Figures that changed change the page and the pictures; figures of a first run, without a past, are shown too."""
    for name in ("performance.json", "performance.md"):
        shutil.copy(DOCS / name, tmp_path)
    fresh = {key: value for key, value in said.items() if key not in ("before", "other", "cpu")}
    fresh["transformer"]["PyTorch alone"]["1.2, 240p, 2 s"]["ms"] = 12345.0
    (tmp_path / "performance.json").write_text(json.dumps(fresh), encoding="utf-8")
    page.write(tmp_path / "performance.json")
    text = (tmp_path / "performance.md").read_text(encoding="utf-8")
    assert "12,345" in text and "before |" not in text
    with Image.open(tmp_path / "performance_steps.png") as picture:
        assert picture.info["figures"] == page.digest(fresh)


def test_groups_of_kernels_lose_nothing(said):
    for way, kernels in said["kinds"].items():
        counted = said["transformer"][way]["1.2, 480p, 4 s"]["ms"]
        assert sum(charts.grouped(kernels).values()) == pytest.approx(sum(kernels.values())) == pytest.approx(counted)


def test_what_fits_a_card(said):
    """More fits more, and the least room is taken last."""
    needed = {"together": 12.0, "in turn": 6.0, "in pieces": 3.0}
    assert [cards._way(needed, room, "") for room in (13, 12, 6, 3, 2)] == [
        "together",
        "together",
        "in turn",
        "in pieces",
        "",
    ]
    for version in cards.MODELS:
        lengths = [cards._lengths(said["cards"], version, "480p", 2**30 * card) for card in (4, 8, 16, 80)]
        most = [max((int(part.split()[0]) for part in text.split("; ") if part != "–"), default=0) for text in lengths]
        assert most == sorted(most) and most[-1] == 16 and lengths[-1] == "16"


def test_another_implementation_is_counted(tmp_path):
    """Ours handed over as another's counts as ours."""
    size = cases.Size(64, 48, 17)
    module = cases.another(written(tmp_path))
    for kept in (False, True):
        ours, other = (
            count(*work)
            for work in (cases.transformer("1.2", size, 1, kept=kept), cases.others_transformer(module, size, 1, kept))
        )
        assert other.flops == ours.flops and abs(other.kernels - ours.kernels) <= 3


def test_measured_beside_the_count():
    """As on a GPU, with a small layer on the CPU: milliseconds beside the count."""
    work = cases.Work(lambda: torch.nn.Linear(1024, 1024), lambda layer: layer(torch.ones(2048, 1024)))
    found = measured.beside(work, cases.Count(seconds=1e-3), turns=1)
    assert 0 < found["ms"] < 1000 and found["counted_ms"] == 1.0


def test_this_machine_is_measured(tmp_path):
    """Small, and beside another implementation: here our own once more."""
    found = measured.on_cpu(written(tmp_path), turns=1, depth=1, width=96)
    for case in ("plain", "kept"):
        ours, others = found[case]["ours"], found[case]["other"]
        assert 0 < ours["share"] < 1.5 and ours["seconds"] > 0 and ours["peak_mb"] == pytest.approx(others["peak_mb"])
        assert found[case]["difference"] <= 1e-6


def test_vaes_are_measured(monkeypatch):
    """Both ways, on a picture as small as it takes: one VAE, since making all takes half a minute."""
    monkeypatch.setattr(measured, "VAES", {"VAE 1.0, 1.1": cases.ImageVAE})
    found = measured.vaes_on_cpu(turns=1, small=16)
    assert (
        found.keys() == {"products_gflops", "VAE 1.0, 1.1 encode", "VAE 1.0, 1.1 decode"}
        and found.pop("products_gflops") > 0
    )
    assert all(figures["seconds"] > 0 and figures["peak_mb"] > 0 for figures in found.values())
