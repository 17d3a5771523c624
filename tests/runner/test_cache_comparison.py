"""`python run.py bench cache`: a small one runs from beginning to end, and docs/caching.md says what the large one found."""

import json

import pytest
import torch
from conftest import ROOT

PAGE = (ROOT / "docs" / "caching.md").read_text(encoding="utf-8")
FIGURES = json.loads((ROOT / "docs" / "caching.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def comparison(comfy):
    from opensora_comfy.runner import cache_comparison

    return cache_comparison


def test_the_page_shows_the_figures(comparison):
    for said in (comparison.changes_table(FIGURES), comparison.table(FIGURES)):
        assert said in PAGE, said


def test_it_is_better_than_both_at_equal_calls(comparison):
    """What the cache is shipped for: over 48 captions, at every speed that the others reach."""
    assert FIGURES["clips"] == 48
    ours = [row for row in FIGURES["rows"] if row["kind"] == "Open-Sora Cache"]
    compared = 0
    for row in ours:
        for kind in ("EasyCache", "LazyCache"):
            other = comparison.at_equal_calls(FIGURES, kind, row["calls"])
            assert other is None or row["psnr"] > other + 6, (row, kind)
            compared += other is not None
    assert compared >= 2
    fewest = {
        kind: min(row["calls"] for row in FIGURES["rows"] if row["kind"] == kind) for kind in ("EasyCache", "LazyCache")
    }
    assert ours[-1]["calls"] < min(fewest.values())


def test_settings_are_interpolated(comparison):
    rows = [{"kind": "EasyCache", "calls": calls, "psnr": psnr} for calls, psnr in ((100, 50.0), (60, 30.0))]
    at = comparison.at_equal_calls
    assert at({"rows": rows}, "EasyCache", 90) == pytest.approx(45.0)
    assert at({"rows": rows}, "EasyCache", 59) is None and at({"rows": rows}, "LazyCache", 90) is None


def test_a_small_one(comparison):
    figures, clips = comparison.compare(comparison.held_out_trials(1), speeds=(0.5,), thresholds=(0.05,))
    rows = figures["rows"]
    assert [row["kind"] for row in rows] == ["none", "Open-Sora Cache", "EasyCache", "LazyCache"]
    assert rows[0]["calls"] == 30 * 2 * 24 and all(0 < row["calls"] < rows[0]["calls"] for row in rows[1:])
    assert rows[1]["calls"] < 0.5 * rows[0]["calls"] and rows[1]["psnr"] > 40
    assert len(clips) == 4 and all(clip[0].shape == torch.Size((17, 64, 64, 3)) for clip in clips.values())
    assert comparison.sheet(clips).size[0] > 500
    assert {len(found["held"]) for found in figures["changes"].values()} == {3}
    middle = {kind: found["held"][1] for kind, found in figures["changes"].items()}
    assert max(middle["spatial cross-attention"], middle["temporal cross-attention"]) < 0.2 * min(
        value for kind, value in middle.items() if "cross" not in kind
    )
    assert comparison.table(figures).count("\n") == 9 and comparison.changes_table(figures).count("\n") == 7
