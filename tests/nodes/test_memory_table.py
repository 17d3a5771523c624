"""docs/memory.md shows what `python run.py bench memory` counts."""

from pathlib import Path

import pytest
import torch
from small import pack

DOCS = Path(__file__).resolve().parents[2] / "docs" / "memory.md"


def rows(first):
    """{first cell: other cells} of the table in the docs whose head begins with `first`."""
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    end = next(i for i in range(start, len(lines)) if not lines[i].startswith("|"))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:end]]
    return {line[0]: line[1:] for line in (cells[0], *cells[2:])}


def test_the_transformers(comfy):
    table, said = pack("runner.memory_table"), rows("clip")
    assert len(said) == 1 + len(table.SIZES) * len(table.LENGTHS) and said["clip"][1:-1] == list(table.MODELS)
    for column, version in enumerate(table.MODELS, start=1):
        assert said["480p, 4 s"][column] == table.gigabytes(table.transformer_peak(version, 854, 480, 102)), version
    assert said["480p, 4 s"][0] == "102" and said["480p, 4 s"][-1] == f"{12 * 102 * 854 * 480 / 1e9:.2f}"


def test_the_vaes(comfy):
    table, said = pack("runner.memory_table"), rows("frame")
    assert list(said) == ["frame", *table.SIZES]
    one = table.vae_peak(table.VideoVAE, "decode", 426, 240, images=4)
    assert said["240p"][said["frame"].index("1.0-1.2 decode, four at once")] == table.gigabytes(one)
    whole = table.vae_peak(table.CausalVAE, "encode", 426, 240)
    assert said["240p"][said["frame"].index("1.3 encode, whole")] == table.gigabytes(whole)


def test_the_weights(comfy):
    table = pack("runner.memory_table")
    assert table.weights_table() in DOCS.read_text(encoding="utf-8")


def test_bytes_are_counted_while_they_live():
    """Views are nothing new, what is given does not count, and what nobody holds any more goes."""
    counter, given = pack("training.live_bytes").LiveBytes(), torch.zeros(100)
    with counter:
        kept = given.view(10, 10)[1:] + 1
        assert counter.now == kept.nbytes == 360
        for _ in range(3):
            kept = kept * 2
        given.add_(1)
        del kept
    assert counter.now == 0 and counter.peak == 720


def test_only_what_is_alive_decides(comfy):
    """Twice the area, twice the memory: nothing is held from layer to layer."""
    table = pack("runner.memory_table")
    small, large = (table.vae_peak(table.ImageVAE, "decode", 512, side, images=1) for side in (512, 1024))
    assert large == pytest.approx(2 * small, rel=0.02)
