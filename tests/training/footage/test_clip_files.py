"""Shots written as files of their own."""

import av
import numpy
import pytest
from manifests import shot
from opensora_comfy.training.data import media
from opensora_comfy.training.data.footage import manifest
from opensora_comfy.training.data.footage.clip_files import brought_down, clip_name, shown_at, write_clip, write_clips
from videos import numbers, video


def row(path, frames, start=0, shot=0, fps=10.0, height=48, width=64):
    return {
        "path": path,
        "shot": shot,
        "start": start,
        "num_frames": frames,
        "fps": fps,
        "height": height,
        "width": width,
    }


@pytest.fixture
def film(tmp_path):
    (tmp_path / "raw" / "day 1").mkdir(parents=True)
    video(tmp_path / "raw" / "day 1" / "film.mp4", 38, fps=10)
    return tmp_path / "raw"


def test_a_shot_is_resampled_by_time(film, tmp_path):
    path = write_clip(row("day 1/film.mp4", 24, start=10, shot=3), tmp_path / "out", film)
    assert path == tmp_path / "out" / "day 1" / "film_scene-3.mp4"
    assert media.probe(path) == (72, 48, 64, 30)
    assert numbers(media.read(path, range(72))) == [10 + number // 3 for number in range(72)]
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_few_frames_are_held_at_once(film, tmp_path, monkeypatch):
    monkeypatch.setattr("opensora_comfy.training.data.footage.clip_files.AT_ONCE", 5 * 48 * 64 * 3)
    whole = write_clip(row("day 1/film.mp4", 38), tmp_path / "out", film)
    assert numbers(media.read(whole, range(114))) == [number // 3 for number in range(114)]


def test_lengths(film, tmp_path):
    short = row("day 1/film.mp4", 19)
    assert write_clip(short, tmp_path / "out", film) is None and not (tmp_path / "out").exists()
    assert write_clip(row("day 1/film.mp4", 1, fps=120.0), tmp_path / "out", film, seconds=(0, 15)) is None
    path = write_clip(row("day 1/film.mp4", 38), tmp_path / "out", film, seconds=(1, 2.5), fps=10)
    assert numbers(media.read(path, range(media.probe(path).frames))) == list(range(25))


def test_times():
    assert shown_at(4, 24, 24, 15) == [0, 1, 2, 3]
    assert shown_at(6, 60, 30, 15) == [0, 2, 4]
    assert shown_at(30, 29.97, 29.97, 15) == list(range(30))
    assert len(shown_at(10**6, 23.976, 30, 15)) == 450
    for fps in (7.3, 12, 23.976, 24, 25, 29.97, 50, 59.94, 120):
        found = shown_at(100, fps, 30, 15)
        assert found == sorted(found) and found[0] == 0 and 97 - fps / 30 < found[-1] <= 99 or fps < 100 / 15


def test_names_do_not_collide(film, tmp_path):
    video(film / "film.mov", 30, fps=10)
    assert write_clip(row("film.mov", 30), tmp_path / "out", film).name == "film.mov_scene-0.mp4"
    path = write_clip(row(str(film / "film.mov"), 30, shot=1), tmp_path / "out", "elsewhere")
    assert path == tmp_path / "out" / "film.mov_scene-1.mp4"


@pytest.mark.parametrize("size, wanted", [((1080, 1920), (720, 1280)), ((1000, 601), (1000, 601)), ((999, 801), (898, 720)), ((720, 1280), (720, 1280))])  # fmt: skip
def test_sizes(size, wanted):
    assert brought_down(numpy.zeros((*size, 3), numpy.uint8), 720).shape[:2] == wanted


def test_sizes_of_the_file(film, tmp_path):
    path = write_clip(row("day 1/film.mp4", 30), tmp_path / "out", film, short_side=24)
    assert media.probe(path)[1:3] == (24, 32)


def test_what_is_wrong_is_said(film, tmp_path):
    with pytest.raises(ValueError, match="seconds are 5 … 2; the first must be 0 or more"):
        write_clip(row("day 1/film.mp4", 30), tmp_path, film, seconds=(5, 2))
    with pytest.raises(ValueError, match="short_side is 1; it must be 2 pixels or more"):
        write_clip(row("day 1/film.mp4", 30), tmp_path, film, short_side=1)
    with pytest.raises(ValueError, match="gone.mp4: there is no such file"):
        write_clip(row("gone.mp4", 30), tmp_path / "out", film)
    assert list((tmp_path / "out").iterdir()) == []


def test_what_cannot_be_read_any_more_is_left_out_and_the_rest_is_written(tmp_path):
    for name in ("a.mp4", "c.mp4"):
        video(tmp_path / name, 50, fps=25)
    rows = [
        shot("a.mp4"), shot("b.mp4"), shot("c.mp4", start=30), shot("c.mp4", 1, fps=None), shot("c.mp4", 2, height=None),
    ]  # fmt: skip
    table = manifest.write(tmp_path / "set.jsonl", rows)
    found = list(manifest.rows(write_clips(table, tmp_path / "out")))
    assert [(row["path"], row["kept"]) for row in found] == [
        ("a_scene-0.mp4", True), (str(tmp_path / "b.mp4"), False), (str(tmp_path / "c.mp4"), False),
        (str(tmp_path / "c.mp4"), False), ("c_scene-2.mp4", True),
    ]  # fmt: skip
    assert [row["reason"] for row in found] == [
        "", "there is no such file", "frame 79 is asked for, and it has 50; the last is 49",
        "its fps is missing; prepare it again", "",
    ]  # fmt: skip


def test_long_names_stay_names_of_files(tmp_path):
    names = ["\u00e9" * 125 + end for end in ("a.mp4", "b.mp4")]
    clips = [clip_name(name, 12) for name in names]
    assert len(set(clips)) == 2 and {len(clip.encode()) for clip in clips} <= {254, 255}
    assert all(clip.endswith("_scene-12.mp4") for clip in clips)
    video(tmp_path / names[0], 50, fps=25)
    table = manifest.write(tmp_path / "set.jsonl", [shot(names[0])])
    (row,) = manifest.rows(write_clips(table, tmp_path / "out"))
    assert row["kept"] and media.probe(tmp_path / "out" / row["path"]).frames == 60
