"""Text in pictures: found in the clip of text, and in no other."""

import pickle
import sys

import numpy
import pytest
from moved import frames_of, looked_at, scored
from opensora_comfy.training.data import media
from opensora_comfy.training.data.footage.measures.overlay import TextOverlay, middle
from PIL import Image, ImageDraw, ImageFont

WITHOUT = ("b.mp4", "bikes.mp4", "bigbuckbunny.mp4", "carphone_distorted.mp4", "carphone_pristine.mp4")


@pytest.fixture(scope="module")
def overlay():
    return TextOverlay()


def regions(overlay, path):
    return scored(overlay, frames_of(path, overlay.frames(media.probe(path).frames, 25)))["ocr"]


def test_text_is_found_in_the_clip_of_text(overlay, footage):
    assert regions(overlay, footage / "a.mp4") == 1  # "thanks for watching"


@pytest.mark.parametrize("name", WITHOUT)
def test_and_not_in_the_others(overlay, footage, name):
    assert regions(overlay, footage / name) == 0


def test_lines_are_counted(overlay):
    picture = Image.new("RGB", (640, 360), (60, 90, 70))
    for row, line in enumerate(("Open footage", "directed by nobody", "2026")):
        ImageDraw.Draw(picture).text((120, 60 + 90 * row), line, "white", ImageFont.load_default(42))
    frame = numpy.asarray(picture)
    assert looked_at(overlay, [frame]) == {"ocr": 3}
    assert looked_at(overlay, [numpy.zeros_like(frame)] * 3) == {"ocr": 0}
    # Text outside of the middle square is not looked at, as in the original.
    wide = numpy.zeros((360, 2304, 3), numpy.uint8)
    wide[:, :640] = frame
    assert looked_at(overlay, [wide]) == {"ocr": 0}


def test_frames_and_the_square():
    overlay = TextOverlay()
    assert overlay.frames(250, 25) == [10, 125] and overlay.frames(5, 25) == [2, 4] and overlay.frames(1, 120) == [0]
    assert overlay.frames(20, 25) == [10]
    frame = numpy.arange(1100 * 1030, dtype=numpy.uint8).reshape(1100, 1030, 1).repeat(3, -1)
    assert (middle(frame) == frame[38:1062, 3:1027]).all() and middle(frame[:90]).shape == (90, 1024, 3)


def test_the_reader_stays_where_it_is(overlay):
    copy = pickle.loads(pickle.dumps(overlay))
    assert overlay.reader() is overlay.reader() and type(copy.reader()) is type(overlay.reader())


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidocr_onnxruntime", None)
    with pytest.raises(
        ValueError, match="finding text .* needs the package rapidocr-onnxruntime: pip install rapidocr-"
    ):
        TextOverlay()
