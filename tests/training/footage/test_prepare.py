"""A folder of footage becomes a manifest: all of it, once, and through kills and changes."""

import json
import os
import sys

import numpy
import pytest
import torch
from opensora_comfy.training.data.footage import manifest
from opensora_comfy.training.data.footage.captions import Captions
from opensora_comfy.training.data.footage.prepare import Settings, notes_folder, prepare
from PIL import Image
from videos import numbers, video


class Halves:
    """Cuts every file in the middle, and counts the files that it was asked for."""

    def __init__(self, key="halves"):
        self.key, self.asked = key, 0

    def shots(self, frames, fps):
        self.asked += 1
        total = sum(1 for _ in frames)
        return [(0, total // 2), (total // 2, total)] if total > 1 else [(0, total)]


class FirstFrame:
    """The number that is drawn on a shot's first frame; what was scored is remembered."""

    name, columns = "first", ("flow_dis",)

    def __init__(self, key="first"):
        self.key, self.scored = key, []

    def frames(self, total, fps):
        return [0]

    def reduce(self, frame):
        return frame

    def score(self, frames, fps):
        shown = torch.from_numpy(numpy.stack(frames)).movedim(-1, 1)
        (number,) = numbers(shown) if shown.shape[-1] == 64 else (-1,)
        self.scored.append(number)
        return {"flow_dis": float(number)}


def footage(folder):
    """Two films and a picture, one of them in a folder below."""
    (folder / "more").mkdir(parents=True)
    video(folder / "a.mp4", 30)
    video(folder / "more" / "b.mp4", 40)
    (folder / "a.txt").write_text("A film.")
    Image.new("RGB", (30, 20), "red").save(folder / "more" / "still.png")
    return folder


def prepared(folder, path, measure=None, cutter=None, **settings):
    measure, cutter = measure or FirstFrame(), cutter or Halves()
    prepare(folder, path, Settings(cutter, (measure,), **settings), workers=1)
    return list(manifest.rows(path)), measure, cutter


def test_every_shot_is_a_row_with_its_scores(tmp_path):
    folder, path = footage(tmp_path / "raw"), tmp_path / "set.jsonl"
    rows, _, _ = prepared(folder, path)
    assert [(row["path"], row["shot"], row["start"], row["num_frames"]) for row in rows] == [
        ("raw/a.mp4", 0, 0, 15),
        ("raw/a.mp4", 1, 15, 15),
        ("raw/more/b.mp4", 0, 0, 20),
        ("raw/more/b.mp4", 1, 20, 20),
        ("raw/more/still.png", 0, 0, 1),
    ]
    assert [row["flow_dis"] for row in rows] == [0, 15, 0, 20, -1]
    first = rows[0]
    assert (first["height"], first["width"], first["fps"], first["text"], first["text_len"]) == (
        48,
        64,
        24,
        "A film.",
        2,
    )
    assert first["resolution"] == 48 * 64 and first["aspect_ratio"] == 48 / 64 and all(row["kept"] for row in rows)


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv"])
def test_kinds_of_tables_hold_the_same(tmp_path, kind):
    folder = footage(tmp_path / "raw")
    rows, _, _ = prepared(folder, tmp_path / f"set.{kind}")
    assert rows == prepared(folder, tmp_path / "other.jsonl")[0]


def test_nothing_is_done_twice_and_what_changed_is_done_again(tmp_path):
    folder, path = footage(tmp_path / "raw"), tmp_path / "set.jsonl"
    before, _, _ = prepared(folder, path)
    rows, measure, cutter = prepared(folder, path)
    assert rows == before and measure.scored == [] and cutter.asked == 0

    os.utime(folder / "a.mp4")  # touched, not changed
    rows, measure, cutter = prepared(folder, path)
    assert rows == before and measure.scored == [] and cutter.asked == 0

    video(folder / "a.mp4", 36)
    rows, measure, cutter = prepared(folder, path)
    assert measure.scored == [0, 18] and cutter.asked == 1 and rows[2:] == before[2:]
    assert [row["num_frames"] for row in rows[:2]] == [18, 18]

    rows, measure, cutter = prepared(folder, path, FirstFrame("other settings"))
    assert len(measure.scored) == 5 and cutter.asked == 0
    rows, measure, cutter = prepared(folder, path, cutter=Halves("other cuts"))
    assert len(measure.scored) == 5 and cutter.asked == 3

    (folder / "more" / "b.mp4").unlink()
    rows, measure, cutter = prepared(folder, path, cutter=Halves("other cuts"))
    assert [row["path"] for row in rows] == ["raw/a.mp4", "raw/a.mp4", "raw/more/still.png"] and cutter.asked == 0


def test_half_a_line_of_notes_is_one_shot_again(tmp_path):
    folder, path = footage(tmp_path / "raw"), tmp_path / "set.jsonl"
    before, _, _ = prepared(folder, path)
    for notes in notes_folder(path).rglob("*.jsonl"):
        notes.write_bytes(notes.read_bytes()[:-9])
    rows, measure, cutter = prepared(folder, path)
    assert rows == before and sorted(measure.scored) == [-1, 15, 20] and cutter.asked == 0
    rows, measure, cutter = prepared(folder, path)
    assert rows == before and measure.scored == [] and cutter.asked == 0


def test_an_interrupt_keeps_what_is_done(tmp_path):
    folder, path = footage(tmp_path / "raw"), tmp_path / "set.jsonl"

    def tell(done, total, name):
        assert total == 3
        if done == 2:
            raise KeyboardInterrupt

    cutter = Halves()
    with pytest.raises(KeyboardInterrupt):
        prepare(folder, path, Settings(cutter), tell, workers=1)
    assert not path.exists()
    prepare(folder, path, Settings(cutter), workers=1)
    assert cutter.asked <= 4  # the third may have been under way
    assert len(list(manifest.rows(path))) == 5


def test_every_file_is_answered_for(tmp_path):
    folder, path = footage(tmp_path / "raw"), tmp_path / "set.jsonl"
    whole = (folder / "a.mp4").read_bytes()
    (folder / "broken.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.mp4").touch()
    (folder / "words.mp4").write_text("not a video")
    (folder / "words.png").write_text("not a picture")
    (folder / "photo.heic").write_bytes(b"x")
    (folder / "program.exe").write_bytes(b"x")
    (folder / ".hidden.mp4").write_bytes(b"x")
    with open(os.fsencode(folder) + b"/\xff\xfe.mp4", "wb") as file:
        file.write(whole)
    rows, _, _ = prepared(folder, path, shortest=0.7)
    reasons = {row["path"]: row["reason"] for row in rows if not row["kept"]}
    assert reasons.pop("raw/a.mp4") == "it lasts 0.62 s, less than 0.7 s"
    assert set(reasons) == {
        "raw/broken.mp4", "raw/empty.mp4", "raw/words.mp4", "raw/words.png", "raw/photo.heic", "raw/program.exe", r"raw/\udcff\udcfe.mp4"
    }  # fmt: skip
    assert all(reasons.values()) and str(tmp_path) not in "".join(reasons.values())
    assert [row["path"] for row in rows if row["kept"]] == ["raw/more/b.mp4", "raw/more/b.mp4", "raw/more/still.png"]
    broken = next(row for row in rows if row["path"] == "raw/broken.mp4")
    assert (broken["shot"], broken["num_frames"], broken["height"]) == (-1, 0, None)


def test_links_are_followed_but_in_circles(tmp_path):
    folder, path = footage(tmp_path / "raw"), tmp_path / "set.jsonl"
    elsewhere = video(tmp_path / "elsewhere.mp4", 24)
    try:
        (folder / "more" / "around").symlink_to(folder, target_is_directory=True)
        (folder / "c.mp4").symlink_to(elsewhere)
        (folder / "d.mp4").symlink_to(tmp_path / "gone.mp4")
    except OSError:
        return  # a system that lets nobody make links has none
    rows, _, _ = prepared(folder, path)
    assert [row["path"] for row in rows if row["kept"]] == [
        "raw/a.mp4", "raw/a.mp4", "raw/c.mp4", "raw/c.mp4", "raw/more/b.mp4", "raw/more/b.mp4", "raw/more/still.png"
    ]  # fmt: skip
    assert [(row["path"], bool(row["reason"])) for row in rows if not row["kept"]] == [("raw/d.mp4", True)]


def test_files_elsewhere_have_their_whole_path_and_captions_may_be_one_for_all(tmp_path):
    folder = footage(tmp_path / "raw")
    rows, _, _ = prepared(folder, tmp_path / "sets" / "set.jsonl", captions=Captions("Anything."))
    assert rows[0]["path"] == (folder / "a.mp4").as_posix()
    assert [row["text"] for row in rows] == ["A film."] * 2 + ["Anything."] * 3


def test_a_file_that_vanishes_is_a_row_with_the_reason(tmp_path):
    folder, path = footage(tmp_path / "raw"), tmp_path / "set.jsonl"

    class Removes(Halves):
        def shots(self, frames, fps):
            found = super().shots(frames, fps)
            (folder / "a.mp4").unlink(missing_ok=True)
            return found

    rows, _, _ = prepared(folder, path, cutter=Removes())
    assert [(row["path"], row["kept"]) for row in rows][:2] == [("raw/a.mp4", False), ("raw/more/b.mp4", True)]
    assert rows[0]["reason"] and str(tmp_path) not in rows[0]["reason"]


def test_a_name_as_long_as_names_can_be(tmp_path):
    (tmp_path / "raw").mkdir()
    video(tmp_path / "raw" / ("x" * 251 + ".mp4"), 24)
    rows, _, _ = prepared(tmp_path / "raw", tmp_path / "set.jsonl")
    assert [row["kept"] for row in rows] == [True, True]


def test_parquet_without_its_package_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match="set.parquet is Parquet, which needs the package pyarrow: pip install"):
        prepare(footage(tmp_path / "raw"), tmp_path / "set.parquet", Settings(Halves()))
    assert not notes_folder(tmp_path / "set.parquet").exists()


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv"])
def test_half_an_emoji_in_a_caption_is_written_as_a_question_mark(kind, tmp_path):
    table = manifest.write(
        tmp_path / f"set.{kind}", [{"path": "a.mp4", "text": "A dog \ud83d", "num_frames": 1, "kept": False}]
    )
    assert [row["text"] for row in manifest.rows(table)] == ["A dog ?"]


def test_folders_and_manifests_that_are_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match="folder is '.*nothing', and there is no such folder"):
        prepare(tmp_path / "nothing", tmp_path / "set.jsonl", Settings(Halves()))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="folder is '.*empty', and it has no videos or pictures"):
        prepare(tmp_path / "empty", tmp_path / "set.jsonl", Settings(Halves()))
    folder = footage(tmp_path / "raw")
    with pytest.raises(ValueError, match="manifest is '.*set.xlsx'; it must be one of .csv, .jsonl, .parquet"):
        prepare(folder, tmp_path / "set.xlsx", Settings(Halves()))
    with pytest.raises(ValueError, match="row 1: it has no column 'num_frames'; a manifest is what `prepare` writes"):
        other = tmp_path / "other.jsonl"
        other.write_text(json.dumps({"path": "a.mp4"}))
        list(manifest.rows(other))
