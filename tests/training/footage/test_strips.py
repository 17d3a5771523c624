"""The nodes' pictures: frames where they belong, what is left out darker and with its reason, all text in its room."""

import numpy
import pytest
from manifests import footage, left_out, many, shot
from opensora_comfy.training.data import lettering, panels
from opensora_comfy.training.data.footage.report import histograms, strips
from opensora_comfy.training.data.footage.report.account import Score
from opensora_comfy.training.data.footage.report.histograms import counts, scale, value_said
from opensora_comfy.training.data.footage.report.strips import DIM
from PIL import ImageColor
from videos import LEVEL

YELLOW = ImageColor.getrgb(panels.USED)


@pytest.fixture
def said(monkeypatch):
    """All text that is drawn, where it ends, and the width of what it is drawn on."""
    found = []

    def write(draw, x, y, text, size, color):
        end = lettering.write(draw, x, y, text, size, color)
        found.append((text, end, draw._image.width))
        return end

    for module in (panels, strips, histograms):
        monkeypatch.setattr(module, "write", write)
    return found


def has(picture, level):
    """Whether somewhere a square of 8 x 8 pixels is about that grey."""
    pixels = numpy.asarray(picture, int)
    near = (abs(pixels - level).max(-1) <= 3)[::4, ::4]
    return bool((near[:-1, :-1] & near[1:, :-1] & near[:-1, 1:] & near[1:, 1:]).any())


def test_strips_show_what_is_kept_and_darker_what_is_not(tmp_path, said):
    rows = footage(tmp_path)
    rows[2] |= {"start": 39, "num_frames": 1}
    picture = strips.strips(rows, tmp_path)
    texts = [text for text, _, _ in said]
    assert picture.width == 1400 and "3 of 4 shots kept, 1.9 s of 1.9 s; 3 files" in texts
    assert texts.index("Kept") < texts.index("long.mp4#0") < texts.index("Left out") < texts.index("long.mp4#2")
    assert {"frames 10 to 34, 1.0 s", "motion 4.5 · sharpness 0.2", "it lasts 0.2 s; the least is 2 s"} <= set(texts)
    assert texts[-1] == "it breaks off after 12 of 30 frames; export it again"
    level = 10 + 39 * LEVEL
    assert has(picture, 10 + 1 * LEVEL) and has(picture, int(level * DIM)) and not has(picture, level)


def test_the_heart_shows_scores_time_lines_and_reasons(tmp_path, said):
    picture = strips.heart(footage(tmp_path), tmp_path)
    texts = [text for text, _, _ in said]
    assert {"Footage", "Length", "Motion", "Sharpness", "long.mp4", "2 of 3 shots kept", "short.mp4"} <= set(texts)
    assert texts[texts.index("1 shot, 0.2 s") + 1] == "it lasts 0.2 s; the least is 2 s"
    assert texts[texts.index("1 file") + 1].startswith("it breaks off after 12")
    pixels = numpy.asarray(picture)
    assert (pixels == YELLOW).all(-1).sum() > 5000
    assert has(picture, 10 + 19 * LEVEL)  # of the second shot


@pytest.mark.parametrize("draw", [strips.strips, strips.heart])
def test_all_text_stays_in_its_room(draw, tmp_path, said):
    long = "word " * 60 + "w" * 300
    rows = [shot(f"{'folder/' * 30}{number}.mp4", text=long, aes=number * 1e6, flow_dis=number / 7, **{"m" * 90: number})
            for number in range(3)]  # fmt: skip
    rows[1] |= {"kept": False, "reason": long}
    draw([*rows, left_out("x" * 300, long)], tmp_path, 900)
    assert len(said) > 15 and [text for text, end, width in said if end > width] == []


@pytest.mark.parametrize("draw", [strips.strips, strips.heart])
def test_many_rows_or_none(draw, tmp_path, said):
    picture = draw(many(10_000, files=2000), tmp_path)
    assert picture.height < 15_000 and any(text.startswith("10,000") or "10,000 shots" in text for text, _, _ in said)
    said.clear()
    draw([], tmp_path)
    assert "0 of 0 shots kept; 0 files" in [text for text, _, _ in said]


def test_a_histogram_counts_every_value_once():
    values = [0.0, 0.01, 0.5, 0.99, 1.0, None]
    kept, out = counts(Score("x", "X", "", values), [True, False, True, True, False, True])
    assert sum(kept) == 3 and sum(out) == 2
    assert (kept[0], out[0], kept[-1], out[-1]) == (1, 1, 1, 1)


def test_a_scale_makes_room_for_the_many_small_values():
    even, skewed = scale([0, 1, 2, 3, 4]), scale([*range(1, 50), 1000])
    assert [even.place(value) for value in (0, 2, 4)] == [0, 0.5, 1]
    assert (skewed.place(1), skewed.place(1000)) == (0, 1) and skewed.place(25) > 0.15
    assert [value_said(value) for value in (None, 3, 0.12345, 174080, 2.0)] == ["–", "3", "0.123", "174,080", "2"]
