"""Small pictures of shots: the right frames, in few goes, and nothing worse than none where a file is gone."""

import pytest
from manifests import footage, shot, told
from opensora_comfy.training.data import media
from opensora_comfy.training.data.footage.report import thumbnails as module
from opensora_comfy.training.data.footage.report.thumbnails import spread, thumbnails
from PIL import Image
from videos import LEVEL


@pytest.fixture
def reads(monkeypatch):
    found, read = [], media.read
    monkeypatch.setattr(
        media, "read", lambda path, frames: found.append((path.name, list(frames))) or read(path, frames)
    )
    return found


@pytest.mark.parametrize(
    "start, frames, count, expected",
    [(0, 8, 4, [1, 3, 5, 7]), (10, 25, 3, [14, 22, 30]), (35, 2, 4, [35, 36]), (5, 1, 4, [5]), (0, 5, 1, [2])],
)
def test_frames_are_spread_over_the_shot(start, frames, count, expected):
    assert spread(shot(start=start, frames=frames), count) == expected


def test_each_shot_shows_its_own_frames(tmp_path, reads):
    rows = footage(tmp_path)[:4]
    found = dict(thumbnails(rows, tmp_path, 3, 32))
    for number, row in enumerate(rows):
        assert list(map(told, found[number])) == spread(row, 3), row["path"]
    assert [path for path, _ in reads] == ["long.mp4", "short.mp4"]  # each file once
    assert {image.size for image in found[0]} == {(32, 24)} and {image.size for image in found[3]} == {(18, 32)}


def test_few_frames_are_held_at_once(tmp_path, reads, monkeypatch):
    rows = footage(tmp_path)[:4]
    monkeypatch.setattr(module, "BYTES_AT_ONCE", 48 * 64 * 3 * 5)
    found = dict(thumbnails(rows, tmp_path, 3, 32))
    assert sorted(found) == [0, 1, 2, 3] and max(len(frames) for _, frames in reads) == 6
    assert list(map(told, found[1])) == spread(rows[1], 3)


def test_what_cannot_be_read_has_no_pictures_and_takes_none_from_others(tmp_path):
    rows = footage(tmp_path)[:4]
    rows[1] = {**rows[1], "num_frames": 400}  # the file has become shorter
    (tmp_path / "short.mp4").unlink()
    found = dict(thumbnails(rows, tmp_path, 2, 32))
    assert [len(found[number]) for number in range(4)] == [2, 0, 2, 0]
    Image.new("RGB", (64, 48), (10 + 3 * LEVEL,) * 3).save(tmp_path / "picture.png")
    ((_, (image,)),) = thumbnails([shot("picture.png", frames=1)], tmp_path, 4, 32)
    assert told(image) == 3
