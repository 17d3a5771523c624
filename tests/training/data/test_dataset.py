"""Clips and captions from folders and tables, and what has to be left out."""

import csv
import hashlib
import json
import math
import shutil
import sys
from pathlib import Path

import numpy
import pytest
import torch
from opensora_comfy.training.data.dataset import Clip, clip_of_images, read_folder, read_manifest, with_trigger
from opensora_comfy.training.data.footage import table_files
from PIL import Image
from videos import numbered, numbers, video


def picture(path, height=30, width=40):
    Image.new("RGB", (width, height), "red").save(path)
    return path


def test_a_folder_with_all_that_goes_wrong(tmp_path):
    folder = tmp_path / "Aufnahmen"
    (folder / "夜").mkdir(parents=True)
    (folder / ".cache").mkdir()
    first = video(folder / "sunrise.mp4", 20, fps=25)
    (folder / "sunrise.txt").write_text("\ufeff A sunrise.\n", encoding="utf-8")
    picture(folder / "夜" / "über Nacht.JPG")
    (folder / "夜" / "über Nacht.JPG.txt").write_text("Night.", encoding="utf-8")
    (folder / "夜" / "über Nacht.txt").write_text("of another file", encoding="utf-8")
    video(folder / "bare.mp4", 3)
    (folder / "broken.mp4").write_bytes(first.read_bytes()[:-300])
    (folder / "broken.txt").write_text("A broken file.")
    picture(folder / "empty.png")
    (folder / "empty.txt").write_text(" \n")
    picture(folder / "latin.png")
    (folder / "latin.txt").write_bytes("Café".encode("latin-1"))
    (folder / "photo.heic").write_bytes(b"x")
    (folder / "notes.json").write_text("{}")
    for hidden in ("._sunrise.mp4", ".cache/old.mp4"):
        (folder / hidden).write_bytes(b"x")

    clips, left_out = read_folder(folder)
    assert [(Path(clip.path).name, clip.caption) for clip in clips] == [
        ("sunrise.mp4", "A sunrise."),
        ("über Nacht.JPG", "Night."),
    ]
    clip, still = clips
    assert (clip.frames, clip.height, clip.width, clip.fps, clip.start) == (20, 48, 64, 25.0, 0)
    assert clip.key == hashlib.sha256(first.read_bytes()).hexdigest() and clip.source == str(first)
    assert (still.frames, still.height, still.width, still.fps) == (1, 30, 40, 120.0)
    reasons = dict(left_out)
    assert list(reasons) == ["bare.mp4", "broken.mp4", "empty.png", "latin.png", "photo.heic"]
    assert reasons["bare.mp4"].startswith("it has no caption; write one into bare.txt beside it")
    assert reasons["broken.mp4"].startswith("it breaks off after ") and str(folder) not in reasons["broken.mp4"]
    assert reasons["empty.png"].startswith("its caption empty.txt is empty")
    assert reasons["latin.png"] == "its caption latin.txt cannot be read; save it as a text file in UTF-8"
    assert reasons["photo.heic"] == ".heic is not read; save it as .mp4 or .png"


def test_the_trigger_stands_in_front_and_for_missing_captions(tmp_path):
    for name, caption in (("a", "A cat."), ("b", "Here a ZWX cat."), ("c", None), ("d", "")):
        picture(tmp_path / f"{name}.png")
        if caption is not None:
            (tmp_path / f"{name}.txt").write_text(caption)
    clips, left_out = read_folder(tmp_path, trigger="zwx cat")
    assert [clip.caption for clip in clips] == ["zwx cat, A cat.", "Here a ZWX cat.", "zwx cat", "zwx cat"]
    assert left_out == []


@pytest.mark.parametrize(
    ("caption", "trigger", "wanted"),
    [
        ("A party at night.", "art", "art, A party at night."),
        ("A cold November day.", "ember", "ember, A cold November day."),
        ("Ember: a fire.", "ember", "Ember: a fire."),
        ("Eine Größe.", "größ", "größ, Eine Größe."),
        ("小明在跑", "小明", "小明在跑"),
        ("A (zwx) cat.", "(zwx)", "A (zwx) cat."),
    ],
)
def test_the_trigger_is_looked_for_in_whole_words(caption, trigger, wanted):
    assert with_trigger(caption, trigger) == wanted


def test_folders_with_nothing_in_them_are_refused(tmp_path):
    (tmp_path / "clips").mkdir()
    with pytest.raises(ValueError, match="folder is '.*clips', and it has no videos or pictures .*mp4.*; put them"):
        read_folder(tmp_path / "clips")
    with pytest.raises(ValueError, match="folder is '.*clipz', and there is no such folder; the nearest is 'clips'"):
        read_folder(tmp_path / "clipz")


def write_csv(path, rows, columns=("path", "text", "num_frames")):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def test_tables_are_read_and_files_are_believed(tmp_path):
    (tmp_path / "media").mkdir()
    video(tmp_path / "media" / "a.mp4", 20)
    picture(tmp_path / "media" / "日.png")
    (tmp_path / "media" / "film.raw").write_bytes(b"x")
    rows = [
        ("media/a.mp4", 'A "quoted", long\ncaption', 999),
        ("media/日.png", "Sun.", 1),
        ("media/b.mp4", "Gone.", 3),
        (str(tmp_path / "media" / "a.mp4"), "Once more.", 3),
        ("media/a.mp4", "", 3),
        ("", "No file.", 3),
        ("media/film.raw", "Raw.", 3),
    ]
    from_csv = read_manifest(write_csv(tmp_path / "set.csv", rows))
    with open(tmp_path / "set.jsonl", "w", encoding="utf-8") as file:
        for path, text, frames in rows:
            file.write(json.dumps({"path": path or None, "text": text, "num_frames": frames}) + "\n\n")
    clips, left_out = read_manifest(tmp_path / "set.jsonl")
    assert (clips, left_out) == from_csv
    assert [clip.caption for clip in clips] == ['A "quoted", long\ncaption', "Sun.", "Once more."]
    assert clips[0].frames == 20 and clips[0].key == clips[2].key
    assert left_out == [
        ("media/b.mp4", "there is no such file; the nearest is 'a.mp4'"),
        ("media/a.mp4", "row 5 has no caption; fill in its text, or give a trigger word for all"),
        ("row 6", "it names no file; fill in its path"),
        ("media/film.raw", ".raw is not read; save it as .mp4 or .png"),
    ]


def test_tables_that_cannot_be_used_are_refused(tmp_path):
    table = write_csv(tmp_path / "set.csv", [("a.mp4", "A.", 1)], ("path", "caption", "aes"))
    with pytest.raises(ValueError, match="has the columns path, caption, aes; .*; rename 'caption' to 'text'"):
        read_manifest(table)
    with pytest.raises(ValueError, match="has the columns text, aes; it needs path, text; add a column 'path'"):
        read_manifest(write_csv(table, [("A.", 1)], ("text", "aes")))
    with pytest.raises(ValueError, match="set.csv has no rows"):
        read_manifest(write_csv(table, []))
    for mark, called in ((";", "semicolons"), ("\t", "tabs")):
        table.write_text(f"path{mark}text\na.mp4{mark}A.\n")
        with pytest.raises(ValueError, match=f"set.csv separates its cells by {called}; save it again with commas"):
            read_manifest(table)
    table.write_text("path,text\na.mp4,a cat, running\n")
    with pytest.raises(ValueError, match="set.csv, line 2: ' running' is behind the last column; .* in quotes"):
        read_manifest(table)
    table.write_text('path,text\na.mp4,"A cat.\nb.mp4,A dog.\n')
    with pytest.raises(ValueError, match="set.csv is not readable CSV .*unexpected end"):
        read_manifest(table)
    table.write_bytes("path,text\na.mp4,Café\n".encode("latin-1"))
    with pytest.raises(ValueError, match="set.csv is not readable CSV in UTF-8"):
        read_manifest(table)
    with pytest.raises(ValueError, match=r"sets.csv', and there is no such file; the nearest is 'set.csv'"):
        read_manifest(tmp_path / "sets.csv")
    with pytest.raises(ValueError, match="x', and there is no such file"):
        read_manifest(tmp_path / ("x" * 5000))
    (tmp_path / "clips").mkdir()
    with pytest.raises(ValueError, match=r"clisp', and there is no such file; the nearest is 'clips'"):
        read_manifest(tmp_path / "clisp")
    (tmp_path / "set.xlsx").touch()
    with pytest.raises(ValueError, match="it must be one of .csv, .jsonl, .parquet"):
        read_manifest(tmp_path / "set.xlsx")
    lines = tmp_path / "set.jsonl"
    for text in ('{"path": "a"}\n{"path": ', '{"path": "a"}\n[1]'):
        lines.write_text(text)
        with pytest.raises(ValueError, match='set.jsonl, line 2: .*; each line is one object: {"path": "…"'):
            read_manifest(lines)


def test_parquet_names_its_package_and_is_read_by_it(tmp_path, monkeypatch):
    table = tmp_path / "set.parquet"
    table.write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        ValueError, match="set.parquet is Parquet, which needs the package pyarrow: pip install pyarrow"
    ):
        read_manifest(table)

    monkeypatch.undo()
    picture(tmp_path / "a.png")
    rows = [{"path": "a.png", "text": "A.", "flow": 1.5}, {"path": "a.png", "text": None, "flow": None}]
    table_files.write(table, rows, {"path": str, "text": str, "flow": float})
    clips, left_out = read_manifest(table)
    assert [clip.caption for clip in clips] == ["A."]
    assert left_out == [("a.png", "row 2 has no caption; fill in its text, or give a trigger word for all")]
    table.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="set.parquet is not readable Parquet"):
        read_manifest(table)


def test_a_number_that_is_none_is_no_text(tmp_path):
    """pandas writes it for an empty cell."""
    picture(tmp_path / "a.png")
    rows = [
        {"path": "a.png", "text": math.nan},
        {"path": math.nan, "text": "A."},
        {"path": "a.png", "text": "A.", "kept": False, "reason": math.nan},
        {"path": "a.png", "text": "A."},
    ]
    (tmp_path / "set.jsonl").write_text("\n".join(map(json.dumps, rows)))
    clips, left_out = read_manifest(tmp_path / "set.jsonl")
    assert [clip.caption for clip in clips] == ["A."]
    assert left_out == [
        ("a.png", "row 1 has no caption; fill in its text, or give a trigger word for all"),
        ("row 2", "it names no file; fill in its path"),
        ("a.png", "it is not kept in the table"),
    ]


def test_shots_are_ranges_of_their_file(tmp_path):
    video(tmp_path / "film.mp4", 30)
    table = tmp_path / "set.jsonl"
    shot = {"path": "film.mp4", "text": "A scene.", "num_frames": 8, "kept": True, "reason": ""}
    rows = [
        {**shot, "shot": 0, "start": 0},
        {**shot, "shot": 1, "start": 8, "kept": False, "reason": "it is too short"},
        {**shot, "shot": 2, "start": 11, "text": ""},
        {**shot, "shot": 3, "start": 25},
        {"path": "film.mp4", "text": "All of it.", "num_frames": 5},
        {**shot, "shot": 5, "start": 9, "num_frames": None},
    ]
    table.write_text("\n".join(map(json.dumps, rows)))
    clips, left_out = read_manifest(table, trigger="zwx")
    assert [(clip.caption, clip.start, clip.frames) for clip in clips] == [
        ("zwx, A scene.", 0, 8),
        ("zwx", 11, 8),
        ("zwx, All of it.", 0, 30),
    ]
    assert numbers(clips[1].read([0, 7])) == [11, 18] and len({clip.key for clip in clips}) == 1
    assert left_out == [
        ("film.mp4#1", "it is too short"),
        ("film.mp4#3", "its frames 25 to 32 are not in the file, which has 30; prepare it again"),
        ("film.mp4#5", "row 6: start is 9 and num_frames is None; both must be whole numbers"),
    ]


@pytest.mark.parametrize(
    "cells, words",
    [
        ({"start": 8.0, "num_frames": "8.0"}, None),
        ({"start": math.nan}, None),
        ({"kept": "True "}, None),
        ({"kept": "0.0", "reason": "it is dark"}, "it is dark"),
        ({"kept": "maybe"}, "row 1: kept is 'maybe'; it must be true or false"),
        ({"start": math.inf}, "row 1: start is inf and num_frames is 8; both must be whole numbers"),
        ({"start": 0, "num_frames": 7.5}, "row 1: start is 0 and num_frames is 7.5; both must be whole numbers"),
        ({"start": -3}, "its frames -3 to 4 are not in the file, which has 30; prepare it again"),
        ({"path": "x" * 5000}, "there is no such file"),
        ({"path": "film.mp4\0"}, "there is no such file; the nearest is 'film.mp4'"),
    ],
)
def test_cells_as_programs_and_people_write_them(cells, words, tmp_path):
    video(tmp_path / "film.mp4", 30)
    row = {"path": "film.mp4", "text": "A scene.", "num_frames": 8, "kept": True, "reason": "", **cells}
    (tmp_path / "set.jsonl").write_text(json.dumps(row))
    clips, left_out = read_manifest(tmp_path / "set.jsonl")
    assert [out.reason for out in left_out] == ([words] if words else [])
    assert [clip.caption for clip in clips] == ([] if words else ["A scene."])


def test_names_may_begin_with_a_space_and_be_as_long_as_names_can_be(tmp_path):
    folder = tmp_path / "clips"
    (folder / " day 1").mkdir(parents=True)
    video(folder / " day 1" / "a.mp4", 20)
    long = folder / ("x" * 251 + ".mp4")
    shutil.copy(folder / " day 1" / "a.mp4", long)
    clips, left_out = read_folder(folder, "zwx")
    assert len(clips) == 2 and not left_out
    with open(folder / "set.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", "text"), (" day 1/a.mp4", "One."), (f" {long.name}", "Two.")])
    clips, left_out = read_manifest(folder / "set.csv")
    assert [clip.caption for clip in clips] == ["One.", "Two."] and not left_out


def test_a_range_of_a_file_counts_from_its_own_first_frame(tmp_path):
    path = video(tmp_path / "film.mp4", 30)
    clip = Clip(str(path), "A scene.", 8, 48, 64, 24.0, "key", start=11)
    assert numbers(clip.read([0, 7, 3])) == [11, 18, 14]
    with pytest.raises(ValueError, match="film.mp4: frame 8 is asked for, and the clip has 8; the nearest is 7"):
        clip.read([0, 8])
    with pytest.raises(ValueError, match="frame -1 is asked for, .*; the nearest is 0"):
        clip.read([-1])


def test_images_in_memory_are_a_clip():
    frames = torch.from_numpy(numbered(5))
    images = frames.float() / 255
    clip = clip_of_images(images, " A clip. ", fps=12)
    assert (clip.frames, clip.height, clip.width, clip.fps, clip.caption) == (5, 48, 64, 12.0, "A clip.")
    assert torch.equal(clip.read([4, 0]), frames[[4, 0]].movedim(-1, 1))
    assert clip_of_images(images[:1], "").fps == 120.0
    keys = {clip.key, clip_of_images(images[:4], "").key, clip_of_images(images.flip(0), "").key}
    keys |= {clip_of_images(images.reshape(5, 64, 48, 3), "").key}
    assert len(keys) == 4 and clip_of_images(images, "", name="b").key == clip.key
    glass = torch.cat([images, torch.full((5, 48, 64, 1), 0.5)], dim=-1)
    assert clip_of_images(glass, "").read([0])[0, 0, 0, 0] == 128
    with pytest.raises(ValueError, match=r"shots: images are \[48, 64, 3\]; they must be \[T, H, W, 3\]"):
        clip_of_images(images[0], "", name="shots")
    assert isinstance(hash(clip), int) and clip == clip_of_images(images, "A clip.", fps=12)
    assert numpy.asarray(clip.pixels).dtype == numpy.uint8
