"""The word for the camera's movement, of movements that are known."""

import sys

import numpy
import pytest
from moved import frame_of, looked_at, panned, zoomed
from opensora_comfy.model.text import CAMERA_MOTIONS
from opensora_comfy.training.data.footage.measures.camera import CameraMotion, word_of


@pytest.fixture(scope="module")
def picture(footage):
    return frame_of(footage / "bigbuckbunny.mp4", 20)


MOVES = {
    "pan right": dict(right=0.5),
    "pan left": dict(right=-0.5),
    "tilt down": dict(down=0.5),
    "tilt up": dict(down=-0.5),
    "static": dict(),
}


@pytest.mark.parametrize("word", MOVES)
def test_a_window_over_a_picture(picture, word):
    assert looked_at(CameraMotion(), panned(picture, 46, **MOVES[word])) == {"cmotion": word}
    assert word in CAMERA_MOTIONS


@pytest.mark.parametrize("word, by", [("zoom in", 1.006), ("zoom out", 1 / 1.006)])
def test_zooms(picture, word, by):
    assert looked_at(CameraMotion(), zoomed(picture, 46, by)) == {"cmotion": word}


@pytest.mark.parametrize("scale", [0.5, 2])
def test_size_does_not_matter(picture, scale):
    frames = panned(picture, 31, right=0.5)
    side = numpy.arange(int(320 * scale)) / scale, numpy.arange(int(576 * scale)) / scale
    frames = [frame[side[0].astype(int)][:, side[1].astype(int)] for frame in frames]
    assert looked_at(CameraMotion(), frames) == {"cmotion": "pan right"}


def test_a_majority_decides(picture):
    right, left = panned(picture, 46, right=0.5), panned(picture, 46, right=-0.5)
    assert looked_at(CameraMotion(), right[:31] + left[30:]) == {"cmotion": "pan right"}  # two of three pairs
    assert looked_at(CameraMotion(), right[:16] + left[15:31]) == {"cmotion": "dynamic"}


def test_shots_without_a_pair(picture):
    assert CameraMotion().frames(46, 25) == [0, 15, 30, 45] and len(CameraMotion().frames(10**6, 25)) == 31
    assert looked_at(CameraMotion(), [picture]) == looked_at(CameraMotion(), [picture] * 15) == {"cmotion": None}
    assert looked_at(CameraMotion(), [picture] * 16) == {"cmotion": "static"}


def test_directions_hold_where_angles_begin_anew():
    """A little up and a little down of right: as angles they are near 0 and near 360 degrees."""
    flow = numpy.zeros((40, 60, 2))
    flow[..., 0] = 5
    flow[::2, :, 1], flow[1::2, :, 1] = 0.5, -0.5
    assert word_of(flow) == "pan left"


def test_without_opencv(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ValueError, match="camera motion needs the package opencv-python-headless: pip install"):
        CameraMotion()
