"""Motion scores: known speeds in their order, in pixels, and what has no motion."""

import pickle
import re
import sys

import numpy
import pytest
import torch
from moved import frame_of, frames_of, looked_at, panned, scored
from opensora_comfy.training.data.footage.measures.motion import SAMPLINGS, FlowDIS, FlowRAFT
from torchvision.models.optical_flow import raft_small


@pytest.fixture(scope="module")
def picture(footage):
    return frame_of(footage / "bigbuckbunny.mp4", 20)


def test_frames_are_the_originals():
    dis = FlowDIS()
    assert dis.frames(250, 25) == dis.frames(31, 25) == [0, 10, 20, 30] and dis.frames(30, 25) == [0, 10, 20]
    assert FlowDIS("1.3").frames(500, 25) == list(range(0, 136, 15))
    assert dis.frames(7, 25) == [0, 6] and dis.frames(2, 25) == [0, 1] and dis.frames(1, 120) == []
    for total in range(1, 200):
        for version in SAMPLINGS:
            found = FlowDIS(version).frames(total, 25)
            assert found == sorted(set(found)) and all(0 <= number < total for number in found)
    with pytest.raises(ValueError, match=r'version is "2.0"; motion is compared as in 1.1, 1.2, 1.3'):
        FlowDIS("2.0")


@pytest.mark.parametrize("tall", [False, True])
def test_a_panned_picture_scores_as_it_moves(picture, tall):
    speeds = (0, 0.2, 0.5, 1, 2)  # pixels a frame, so ten times that from one of the frames to the next
    scores = []
    for speed in speeds:
        frames = panned(picture, 31, right=speed)
        frames = [frame.swapaxes(0, 1) for frame in frames] if tall else frames
        scores.append(looked_at(FlowDIS(), frames)["flow_dis"])
    assert scores == sorted(scores) and scores[0] < 0.01
    for speed, score in zip(speeds[1:], scores[1:]):
        assert score == pytest.approx(10 * speed, rel=0.2)


def test_size_does_not_matter(picture):
    """The same movement across the frame in a window twice as large."""
    small = looked_at(FlowDIS(), panned(picture, 31, 0.5))["flow_dis"]
    large = picture.repeat(2, axis=0).repeat(2, axis=1)
    assert looked_at(FlowDIS(), panned(large, 31, 1.0, height=640, width=1152))["flow_dis"] == pytest.approx(
        small, rel=0.1
    )


def test_real_shots(footage):
    def score(name):
        dis = FlowDIS()
        return scored(dis, frames_of(footage / name, dis.frames(120, 25)))["flow_dis"]

    assert score("b.mp4") < score("carphone_pristine.mp4")  # a globe that turns slowly, a man in a car


def test_what_has_no_motion(picture):
    assert looked_at(FlowDIS(), [picture]) == {"flow_dis": None}
    assert looked_at(FlowDIS(), [numpy.zeros_like(picture)] * 31)["flow_dis"] == 0
    assert 0 < looked_at(FlowDIS(), panned(picture, 5, 1))["flow_dis"] < 6


def test_without_opencv(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(
        ValueError, match="DIS flow needs the package opencv-python-headless: pip install opencv-python-"
    ):
        FlowDIS()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "raft_small.pth"
    torch.manual_seed(0)
    torch.save(raft_small(weights=None).state_dict(), path)
    return path


def test_raft_runs_with_its_weights(picture, weights):
    """Random ones here: what it says is no motion, but of the right shape, and the same in another process."""
    flow = FlowRAFT(weights)
    frames = panned(picture, 11, 1)
    score = looked_at(flow, frames)
    assert score.keys() == {"flow_raft"} and numpy.isfinite(score["flow_raft"])
    assert len(pickle.dumps(flow)) < 1000
    assert looked_at(pickle.loads(pickle.dumps(flow)), frames) == score
    first, second = (flow.reduce(frame) for frame in (frames[0].swapaxes(0, 1), frames[10]))
    assert flow.between(first, second).shape == (320, 576, 2)
    assert re.fullmatch(r"flow_raft 4x10 [0-9a-f]{64}", flow.key)
    assert FlowDIS("1.3").key != FlowDIS("1.2").key == FlowDIS("1.1").key


def test_other_weights_are_told(tmp_path, picture):
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="other.pth: these are no weights of torchvision's raft_large or raft_small"):
        looked_at(FlowRAFT(tmp_path / "other.pth"), [picture] * 11)
    with pytest.raises(ValueError, match=r"none.pth: it cannot be read \(No such file"):
        FlowRAFT(tmp_path / "none.pth")
