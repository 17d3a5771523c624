"""The picture before training: crops where `clips.fit` makes them, frames as they are used, all text within its room."""

import dataclasses

import numpy
import pytest
import torch
from opensora_comfy.training.data import lettering, panels, preflight
from opensora_comfy.training.data.cache import Cut
from opensora_comfy.training.data.clips import fit
from opensora_comfy.training.data.dataset import Clip, LeftOut, clip_of_images
from opensora_comfy.training.data.preflight import MOST_CLIPS, Row, crop_of, picture
from PIL import ImageColor

USED, TRACK, OTHER = (ImageColor.getrgb(color) for color in (preflight.USED, preflight.TRACK, preflight.OTHER))


def clip(frames=10, height=50, width=100, name="clip.mp4", caption="A clip.", value=1.0):
    return clip_of_images(torch.full((frames, height, width, 3), value), caption, name=name)


def row(bucket="240p · 17 frames · 9:16", note="", frames=range(10), **about):
    one = clip(**about)
    return Row(one, bucket, Cut(tuple(frames), 40, 40), note)


@pytest.fixture
def said(monkeypatch):
    """All text that is drawn, and where each begins and ends."""
    found = []

    def write(draw, x, y, text, size, color):
        end = lettering.write(draw, x, y, text, size, color)
        found.append((text, end, draw._image.width))
        return end

    for module in (panels, preflight):
        monkeypatch.setattr(module, "write", write)
    return found


def texts(said):
    return [text for text, _, _ in said]


SIZES = [(90, 161, 40, 53), (161, 90, 40, 53), (133, 200, 64, 49), (67, 51, 120, 133), (240, 240, 31, 80)]


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("mode, version", [("resize_crop", "1.2"), ("center", "1.2"), ("center", "1.3")])
@pytest.mark.parametrize("size", SIZES)
def test_the_crop_is_that_of_fit(size, mode, version, single):
    """Each pixel tells its place; what comes out of `fit` tells where it was taken from, a line through the middle."""
    H, W, height, width = size
    rows, columns = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    places = torch.stack([columns, rows, rows]).to(torch.uint8)
    fitted = fit(places.movedim(0, -1) if single else places[None], height, width, mode, version)
    fitted = (fitted if single else fitted[0]) * 127.5 + 127.5
    left, top, right, bottom = crop_of(H, W, Cut((0,), height, width, mode, version), single)
    for values, start, end in ((fitted[0].mean(0), left, right), (fitted[1].mean(1), top, bottom)):
        count = len(values)
        inner = numpy.arange(count)[count // 4 : -(count // 4)]
        step, first = numpy.polyfit(inner + 0.5, values.numpy()[inner] + 0.5, 1)
        # A picture in the middle is halved before it is scaled, and loses what an odd side has over.
        tolerance = 0.25 if not single else 2 if mode == "center" else 0.6
        assert abs(first - start) < tolerance and abs(first + step * count - end) < tolerance


def test_what_is_cut_off_is_dark_and_what_is_kept_is_framed():
    pixels = numpy.array(picture([row()], []))
    white, dark = (pixels == 255).all(-1), (pixels == int(255 * preflight.CUT_OFF)).all(-1)
    columns = white[:, :400].sum(0)
    kept = numpy.flatnonzero(columns > 60)
    cut_off = numpy.flatnonzero(dark.sum(0) > 60)
    side = len(kept) + 4  # the frame is 2 pixels wide
    assert len(cut_off) == pytest.approx(side, abs=3)  # a square of a clip twice as wide as high
    assert cut_off[0] < kept[0] < kept[-1] < cut_off[-1]
    frame = (pixels == USED).all(-1)
    assert frame[:, kept[0] - 2].sum() >= len(kept) and frame[:, kept[-1] + 1].sum() >= len(kept)


@pytest.mark.parametrize("frames", [range(3, 7), (0, 3, 6, 9)])
def test_the_bar_shows_the_frames_that_are_used(frames):
    pixels = numpy.array(picture([row(frames=frames)], []))
    used, track = (pixels == USED).all(-1), (pixels == TRACK).all(-1)
    bars = numpy.flatnonzero(used.any(1) & track.any(1))
    line = bars[-1]
    both = numpy.flatnonzero(used[line] | track[line])
    places = (numpy.flatnonzero(used[line]) - both[0] + 0.5) / len(both) * 10
    assert {int(place) for place in places} == set(frames)
    assert len(places) / len(both) == pytest.approx(0.4, abs=0.03)


def test_stretches_that_take_turns_are_marked(said):
    """Behind the one that is shown; the clip beside it has none, and a picture without any does not speak of them."""
    turns = row(frames=range(3, 6))._replace(others=(Cut(tuple(range(4)), 40, 40), Cut((8, 9), 40, 40)))
    pixels = numpy.array(picture([turns, row()], []))
    assert "an epoch takes one of 3 stretches" in texts(said) and "used in other epochs" in texts(said)
    used, other = (pixels == USED).all(-1), (pixels == OTHER).all(-1)
    line = numpy.flatnonzero(used.any(1) & other.any(1))[-1]
    first = numpy.flatnonzero(other[line])
    bar = numpy.arange(first[0], first[-1] + 1)
    places = {kind: {int(place) for place in (numpy.flatnonzero(of[line, bar]) + 0.5) / len(bar) * 10}
              for kind, of in (("used", used), ("other", other))}  # fmt: skip
    assert places == {"used": {3, 4, 5}, "other": {0, 1, 2, 8, 9}}
    said.clear()
    assert not (numpy.array(picture([row()], [])) == OTHER).all(-1).any() and "used in other epochs" not in texts(said)


def test_a_single_frame_of_a_long_clip_is_seen_within_the_bar():
    long, bars = clip(frames=1001, height=4, width=8), []
    for frame in (0, 500, 1000):
        pixels = numpy.array(picture([Row(long, "A", Cut((frame,), 40, 40))], []))
        used, track = (pixels == USED).all(-1), (pixels == TRACK).all(-1)
        line = numpy.flatnonzero(used.any(1) & track.any(1))[-1]
        bars.append(numpy.flatnonzero(used[line] | track[line]))
        assert used[line].sum() == 1
    assert all(numpy.array_equal(bar, bars[0]) for bar in bars)


def test_everything_is_counted_and_named(said):
    rows = [
        row(name="set/a.mp4", caption="A caption.", note="scaled up 2 times", frames=range(2, 6)),
        row(name="set\\b.mp4", frames=(0, 3, 6, 9)),
        row(name="s.mp4", frames=range(4))._replace(clip=dataclasses.replace(clip(name="s.mp4"), start=34)),
        row("256 · pictures", name="c.png", frames=[0])._replace(clip=clip(frames=1, name="c.png")),
    ]
    picture(rows, [LeftOut("d.mp4", "it breaks off")], lines=("about 3 h", "9 GB of memory"))
    drawn = texts(said)
    for text in (
        "3 clips and 1 picture in 2 buckets; 1 file left out", "about 3 h", "9 GB of memory",
        "240p · 17 frames · 9:16", "3 clips, 40 x 40 pixels", "a.mp4", "the shot from frame 34 on", "A caption.", "scaled up 2 times",
        "100 x 50, 24 fps", "frames 2 to 5 of 10", "b.mp4", "frames 0 to 9 of 10, every 3",
        "256 · pictures", "1 picture, 40 x 40 pixels", "c.png", "100 x 50", "picture",
        "Left out", "1 file", "d.mp4", "it breaks off",
    ):  # fmt: skip
        assert text in drawn, text


def test_of_many_clips_some_of_each_bucket_are_drawn(said):
    small = dict(height=6, width=8, frames=[0])
    rows = [row("A", name=f"a{n}", **small) for n in range(100)] + [row("B", name=f"b{n}", **small) for n in range(5)]
    picture(rows, [LeftOut(f"x{n}", "broken") for n in range(50)])
    drawn = texts(said)
    names = [text for text in drawn if text[:1] in "ab" and text[1:].isdigit()]
    assert len(names) == MOST_CLIPS and sum(name[0] == "b" for name in names) == 5
    assert "and 45 more" in drawn and "and 10 more" in drawn and "100 clips, 40 x 40 pixels" in drawn
    many = [row(f"bucket {n}", **small) for n in range(MOST_CLIPS + 3)]
    said.clear()
    picture(many, [])
    assert texts(said).count("1 that are not drawn here") == 3


ODD = (
    "日の出 山の上に太陽が昇る" * 30,
    "Ünïcödé — “quotes” … ×",
    "Солнце поднимается " * 40,
    "مرحبا بالعالم",
    "👩‍👩‍👧 emoji \U0001f600",
    "line\nbreaks\tand\x00controls\x1b[0m",
    "half \udcff of a character",
    "w" * 5000,
    "",
)


@pytest.mark.parametrize("fonts", [(), lettering.SYSTEM_FONTS])
def test_names_and_captions_of_any_letters_stay_in_their_room(said, monkeypatch, fonts):
    monkeypatch.setattr(lettering, "SYSTEM_FONTS", fonts)
    rows = [row(bucket=text[:200] or "none", name=text, caption=text, note=text, frames=[0]) for text in ODD]
    picture(rows, [LeftOut(text, text) for text in ODD], lines=ODD)
    assert len(said) > 60
    assert [text for text, end, room in said if end > room] == []


def test_letters_that_no_font_has(monkeypatch):
    monkeypatch.setattr(lettering, "SYSTEM_FONTS", ())
    assert lettering.shortened("Über Nacht, 日の出", 15, 1000) == "Uber Nacht, ???"


def test_what_is_no_letter_is_a_space():
    assert lettering.plain(" line\nbreaks\x00and \udcff halves\u200b") == "line breaks and halves"


def test_lines_break_between_words():
    lines = lettering.wrapped("one two three four five six seven eight nine", 15, 100, 3)
    assert len(lines) == 3 and all(line and line == line.strip() for line in lines)
    assert " ".join(lines).startswith("one two three") and lines[-1].endswith("…")
    assert lettering.wrapped("", 15, 100, 3) == []
    assert lettering.shortened("clip of the long winter night.mp4", 15, 150, middle=True).endswith(".mp4")


@pytest.mark.parametrize("width", [300, 1400, 2600])
def test_any_width(width):
    drawn = picture([row(name=f"{n}.mp4", frames=[0]) for n in range(3)], [LeftOut("a", "b")], width)
    assert drawn.width == width and drawn.mode == "RGB"


def test_a_clip_that_is_gone_is_told(tmp_path, said):
    gone = Clip(str(tmp_path / "gone.mp4"), "Gone.", 10, 50, 100, 24.0, "key")
    picture([Row(gone, "A", Cut(tuple(range(5)), 40, 40))], [])
    assert "cannot be read any more" in texts(said)


def test_nothing_but_what_is_left_out(said):
    picture([], [LeftOut("a.mp4", "it has no caption")])
    assert "no clips in 0 buckets; 1 file left out" in texts(said)
