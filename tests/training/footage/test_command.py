"""The whole way by the command: a folder with all that footage may be, and what comes of it."""

import csv
import os
import re
import shutil

import made_clips
import pytest
from opensora_comfy.training.data.dataset import read_manifest
from opensora_comfy.training.data.footage import manifest
from opensora_comfy.training.data.footage.__main__ import main


@pytest.fixture(scope="module")
def made(tmp_path_factory, footage):
    """The folder, and the rows of its manifest."""
    folder = tmp_path_factory.mktemp("raw") / "raw"
    made_clips.every_kind(folder)
    for name in ("bikes.mp4", "b.mp4", "b.avi"):
        shutil.copy(footage / name, folder)
    (folder / "bikes.txt").write_text("A street in a town.")
    path = folder.parent / "set.jsonl"
    report, clips, table = (str(folder.parent / name) for name in ("report.html", "clips", "clips.csv"))
    measures = "flow_dis,quality,cmotion,phash"
    assert main([
        str(folder), "--manifest", str(path), "--measures", measures, "--filter", "flow_dis > 1", "--report", report,
        "--clips", clips, "--csv", table, "--caption", "Made by a test.",
    ]) == 0  # fmt: skip
    return folder, path, list(manifest.rows(path))


def test_every_file_is_answered_for(made):
    folder, _, rows = made
    names = {file.name.encode(errors="backslashreplace").decode() for file in folder.iterdir()} - {"bikes.txt"}
    by_file = {name: [row for row in rows if row["path"] == f"raw/{name}"] for name in names}
    assert sum(map(len, by_file.values())) == len(rows) and all(by_file.values()) and len(names) == 18
    assert all(bool(row["reason"]) is not row["kept"] for row in rows)
    broken = {f"{make.__name__}.mp4" for make in made_clips.BROKEN}
    whole = {name for name, found in by_file.items() if found[0]["shot"] == -1}
    assert broken < whole and len(whole) - len(broken) == (os.name == "posix")  # a name that is no text
    assert [row["start"] for row in by_file["bikes.mp4"]] == pytest.approx([0, 30, 76, 137, 187, 242], abs=1)
    assert [row["start"] for row in by_file["hard_cuts.mp4"]] == [0, *made_clips.CUTS]
    assert len(by_file["flash.mp4"]) == 1 == by_file["one_frame.mp4"][0]["num_frames"]
    assert by_file["b.avi"][0]["num_frames"] == 150 and by_file["b.avi"][0]["duplicate_of"] == "raw/b.mp4#0"
    tall = by_file["portrait.mp4"][0], by_file["rotated.mp4"][0]
    assert all(row["height"] > row["width"] and row["aspect_ratio"] > 1 for row in tall)
    assert by_file["bikes.mp4"][0]["text"] == "A street in a town." and tall[0]["text"] == "Made by a test."


def test_the_manifest_is_a_data_set_as_it_is(made):
    _, path, rows = made
    clips, left_out = read_manifest(path)
    assert len(clips) == sum(row["kept"] for row in rows) > 5 and len(left_out) == len(rows) - len(clips)
    assert dict(left_out)["raw/b.avi#0"] == "it repeats raw/b.mp4#0"


def test_what_is_kept_can_be_written_out_as_files_and_as_the_originals_table(made):
    folder, path, rows = made
    with open(folder.parent / "clips.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    long = [row for row in rows if row["kept"] and row["num_frames"] / row["fps"] >= 2]
    assert len(table) == len(long) > 2 and {row["fps"] for row in table} == {"30.0"}
    assert [float(row["flow"]) for row in table] == [row["flow_dis"] for row in long]
    assert (folder.parent / "report.html").stat().st_size > 50_000


def test_again_with_another_filter_nothing_is_measured_anew(made, capsys, monkeypatch):
    folder, path, rows = made
    monkeypatch.setattr("opensora_comfy.training.data.media.frames", None)
    monkeypatch.setattr("opensora_comfy.training.data.media.chosen", None)
    again = path.with_name("again.jsonl")
    shutil.copytree(f"{path}.notes", f"{again}.notes")
    command = [str(folder), "--manifest", str(again), "--measures", "flow_dis,quality,cmotion,phash"]
    status, said = main([*command, "--filter", "sharpness > 0.99"]), capsys.readouterr()
    assert status == 0 and "0 of" in said.out, said.err
    assert [row["sharpness"] for row in manifest.rows(again)] == [row["sharpness"] for row in rows]


def test_a_report_that_cannot_be_written_is_said_and_the_manifest_stays(tmp_path, capsys):
    made_clips.one_frame(tmp_path / "a.mp4")
    (tmp_path / "look.html").mkdir()
    table, report = str(tmp_path / "set.jsonl"), str(tmp_path / "look.html")
    assert main([str(tmp_path), "--cuts", "none", "--measures", "", "--manifest", table, "--report", report]) == 1
    assert re.search("report: .*look.html cannot be written .*; free space there, or", capsys.readouterr().err)
    assert [row["path"] for row in manifest.rows(table)] == ["a.mp4"]
    assert [file.name for file in tmp_path.iterdir() if file.suffix == ".tmp"] == []


def test_a_folder_above_gives_its_name_to_the_manifest(tmp_path, monkeypatch):
    (tmp_path / "films" / "later").mkdir(parents=True)
    made_clips.one_frame(tmp_path / "films" / "a.mp4")
    monkeypatch.chdir(tmp_path / "films" / "later")
    assert main(["..", "--cuts", "none", "--measures", ""]) == 0
    assert sorted(file.name for file in tmp_path.glob("*.*")) == ["films.parquet", "films.parquet.notes"]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("nothing",), "folder is 'nothing', and there is no such folder"),
        ((".", "--measures", "flow"), "measures has 'flow'; it must be of .*; the nearest is 'flow_dis'"),
        ((".", "--measures", "flow_raft"), "weights has no 'raft', and it is asked for; give raft=FILE"),
        ((".", "--weights", "raft=x.pth"), "weights has 'raft'; none that is asked for needs a file"),
        ((".", "--filter", "flow > 1"), "flow.*nearest.*flow_dis"),
        ((".", "--captions", "none.csv"), "captions: manifest none.csv is not readable"),
        ((".", "--captions", "."), "captions: manifest is '.'; it must be one of"),
        ((".", "--weights", "x.pth"), "weights is 'x.pth'; it must be NAME=FILE"),
        ((".", "--shortest", "nan"), "shortest is nan; it must be 0 seconds"),
        ((".", "--shortest", "-1"), "shortest is -1.0; it must be 0 seconds"),
        ((".", "--workers", "-1"), "workers is -1; it must be 1 or more"),
        ((".", "--manifest", "set.xlsx"), "it must be one of .csv, .jsonl, .parquet"),
    ],
)
def test_errors_are_said_in_a_line_before_the_work(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made_clips.one_frame(tmp_path / "a.mp4")
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert re.search(words, said.err) and said.out == ""
