"""The nodes that prepare and filter footage: what their choices become, what is shown, what is refused in which words."""

import json
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from safetensors.torch import save_file
from small import pack
from tiny import node_class, run

FOOTAGE = "example footage (bundled)"
CAPTION = "a shape moves"


def rows_of(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def kept_of(path):
    """{file: the shots of it that are kept}, files by their last word."""
    found = {}
    for row in rows_of(path):
        found.setdefault(row["path"].split()[-1], []).extend([row["shot"]] * row["kept"])
    return found


def filtered(manifest, **values):
    """What Filter makes of a manifest, without limits of its own."""
    return run("OpenSoraFilterClips", manifest=manifest, **{"min_motion": 0.0} | values)


@pytest.fixture(scope="module")
def prepared():
    """The outputs of Prepare for the bundled footage."""
    return run("OpenSoraPrepareClips", captions=CAPTION)


@pytest.fixture
def table(tmp_path):
    """The path of a manifest of a picture, two clips of one file, one of them a repetition, and one of no shot."""
    rows = [
        {"path": "a.png", "num_frames": 1, "fps": 24.0, "shot": 0, "start": 0, "sharpness": 0.5, "kept": True},
        {"path": "b.mp4", "num_frames": 48, "fps": 24.0, "shot": 0, "start": 0, "sharpness": 0.5, "flow_dis": 3.0,
         "cmotion": "static", "kept": True},
        {"path": "b.mp4", "num_frames": 24, "fps": 24.0, "shot": 1, "start": 48, "sharpness": 0.5, "flow_dis": 9.0,
         "cmotion": "pan left", "duplicate_of": "b.mp4#0", "reason": "it repeats b.mp4#0", "kept": False},
        {"path": "c.mp4", "num_frames": 0, "shot": -1, "start": 0, "reason": "it has no frames", "kept": False},
    ]  # fmt: skip
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps({"text": CAPTION, "reason": ""} | row) + "\n" for row in rows), encoding="utf-8")
    return path


# --- prepare


def test_the_bundled_footage_has_its_shots_captions_and_repetition(prepared):
    path, picture, report = prepared
    rows = rows_of(path)
    shots = {row["path"].split()[-1]: row["shot"] + 1 for row in rows}
    assert shots == {"circles.mp4": 5, "squares.mp4": 4, "triangles.mp4": 4}  # the flash is no cut
    assert {row["text"] for row in rows} == {"a circle moves", "a square moves", "a triangle moves"}
    assert [row["shot"] for row in rows if row["reason"].startswith("it repeats")] == [4]
    assert all(row[name] is not None for row in rows for name in ("flow_dis", "cmotion", "sharpness", "phash"))
    assert picture.shape[0] == 1 and picture.shape[-1] == 3 and picture.std() > 0.05
    first, reason, *_, where = report.splitlines()
    assert (
        first.startswith("12 of 13 shots kept of 3 files")
        and reason == "1 left out: it repeats porcelain circles.mp4#0"
    )
    page = where.removeprefix("report: ")
    with open(page, encoding="utf-8") as file:
        assert "porcelain triangles.mp4" in file.read()


def test_bundled_footage_is_what_its_script_makes():
    rushes = pack("training.tiny.rushes")
    media = pack("training.data.media")
    for name, shots in rushes.FILMS.items():
        path = ROOT / "assets" / "footage" / f"{name}.mp4"
        frames, made = media.read(path, range(0, sum(shot.frames for shot in shots), 17)), rushes.film(shots)[::17]
        assert (frames.movedim(1, -1).float() - torch.from_numpy(made).float()).abs().mean() < 3
    assert sum(path.stat().st_size for path in (ROOT / "assets" / "footage").iterdir()) < 400_000


def test_prepared_again_nothing_is_done_twice_and_other_choices_keep_what_is_known(prepared, monkeypatch):
    assert run("OpenSoraPrepareClips", captions=CAPTION)[0] == prepared[0]
    survey = pack("training.data.footage.survey")
    monkeypatch.setattr(survey, "_cut", None)  # nothing is cut again
    other = run("OpenSoraPrepareClips", captions="", shortest=1.5, quality=False, duplicates=False)[0]
    assert other != prepared[0] and kept_of(other) == {"circles.mp4": [2], "squares.mp4": [1], "triangles.mp4": [2]}
    assert rows_of(other)[0]["sharpness"] is None and rows_of(prepared[0])[0]["sharpness"] is not None


def test_a_folder_by_its_path_and_a_changed_file_are_seen(tmp_path):
    node = node_class("OpenSoraPrepareClips")
    shutil.copy(ROOT / "assets" / "training_clips" / "ember 01.mp4", tmp_path / "one.mp4")
    before = node.fingerprint_inputs(folder=FOOTAGE, path=str(tmp_path))
    path = run("OpenSoraPrepareClips", path=f'"{tmp_path}"', cuts="none", captions=CAPTION)[0]
    assert kept_of(path) == {"one.mp4": [0]} or len(rows_of(path)) == 1
    assert before == node.fingerprint_inputs(folder=FOOTAGE, path=str(tmp_path))
    (tmp_path / "one.txt").write_text("a circle")
    assert before != node.fingerprint_inputs(folder=FOOTAGE, path=str(tmp_path))
    assert (
        rows_of(run("OpenSoraPrepareClips", path=str(tmp_path), cuts="none", captions=CAPTION)[0])[0]["text"]
        == "a circle"
    )


def test_a_change_behind_a_link_is_seen(tmp_path):
    (tmp_path / "films").mkdir()
    (tmp_path / "shelf").mkdir()
    try:
        (tmp_path / "shelf" / "films").symlink_to(tmp_path / "films", target_is_directory=True)
    except OSError:
        return  # a system that lets nobody make links has none
    states = set()
    for name in ("one.mp4", "one.txt"):
        shutil.copy(ROOT / "assets" / "training_clips" / "ember 01.mp4", tmp_path / "films" / name)
        states.add(node_class("OpenSoraPrepareClips").fingerprint_inputs(path=str(tmp_path / "shelf")))
    assert len(states) == 2


def test_the_aesthetic_score_is_of_comfyuis_clip_vision_and_a_head(tmp_path, monkeypatch):
    """The head sums the first feature; the features are those of a stand-in that sees the mean of red."""
    folders, seen = pack("nodes.comfy.training.folders"), []
    save_file({"weight": torch.eye(768)[:1], "bias": torch.tensor([5.0])}, tmp_path / "head.safetensors")
    monkeypatch.setattr(folders, "_folders_of_heads", lambda: [str(tmp_path)])
    assert folders.heads() == ["none", "head.safetensors"]

    def encode_image(image):
        seen.append(image.shape[0])
        assert image.ndim == 4 and image.dtype == torch.float32 and 0 <= image.min() and image.max() <= 1
        return {"image_embeds": torch.nn.functional.pad(image[..., 0].mean((1, 2))[:, None], (0, 767))}

    footage = pack("nodes.comfy.training.footage")
    monkeypatch.setattr(footage, "key_of", lambda patcher: patcher)
    model = SimpleNamespace(encode_image=encode_image, patcher="a stand-in")
    path = run("OpenSoraPrepareClips", clip_vision=model, aesthetic_head="head.safetensors")[0]
    assert {row["aes"] for row in rows_of(path)} == {6.0} and set(seen) == {1}  # of features of length 1
    assert len(rows_of(filtered(path, min_aesthetic=6.5)[0])) == 13
    assert sum(row["kept"] for row in rows_of(filtered(path, min_aesthetic=6.5)[0])) == 0


@pytest.mark.parametrize(
    "values, words",
    [
        (
            {"folder": "exampel footage"},
            "folder is 'exampel footage'; .* the nearest is 'example footage \\(bundled\\)'",
        ),
        ({"path": "/nowhere/at/all"}, "path is '/nowhere/at/all', and there is nothing"),
        ({"path": "x" * 5000}, "path is 'x+', and there is nothing"),
        ({"path": __file__}, "path is .*test_footage.py', a file; it must be a folder of footage; the nearest is "),
        ({"cuts": "1.4"}, "cuts are by '1.4'; it must be one of 1.1, 1.2, 1.3"),
        ({"cuts": "none", "transitions": 1.0}, "transition_seconds is 1.0, and cuts are by 'none'"),
        ({"aesthetic_head": "head.pth"}, "aesthetic_head is 'head.pth', and clip_vision is not connected"),
    ],
)
def test_what_cannot_be_prepared_is_told_before_a_run(values, words):
    inputs = {"folder": FOOTAGE, "path": "", "cuts": "1.2", "transitions": 0.0, "aesthetic_head": "none"} | values
    told = node_class("OpenSoraPrepareClips").validate_inputs(**inputs)
    with pytest.raises(ValueError, match=words) as raised:
        run("OpenSoraPrepareClips", **values)
    assert told == str(raised.value)


@pytest.mark.parametrize("missing, values", [("scenedetect", {}), ("cv2", {"cuts": "none", "camera": True})])
def test_a_missing_package_is_told_with_the_python_that_runs_comfyui(missing, values, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    inputs = {"folder": FOOTAGE, "path": "", "cuts": "1.2", "transitions": 0.0, "aesthetic_head": "none"} | values
    told = node_class("OpenSoraPrepareClips").validate_inputs(**inputs)
    assert f'"{sys.executable}" -m pip install ' in told and ("opencv" in told or "scenedetect" in told)


# --- filter


def test_the_flaws_of_the_bundled_footage_are_left_out_and_said(prepared):
    path, picture, report = filtered(prepared[0], min_motion=0.5, min_sharpness=0.3)
    assert kept_of(path) == {"circles.mp4": [0, 1, 2, 3], "squares.mp4": [0, 1, 3], "triangles.mp4": [0, 2, 3]}
    assert sum(row["kept"] for row in rows_of(prepared[0])) == 12  # that table stays
    assert report.splitlines()[0].startswith("10 of 13 shots kept of 3 files")
    assert {
        "1 left out: the filter asks for flow_dis >= 0.5",
        "1 left out: the filter asks for sharpness >= 0.3",
    } <= set(report.splitlines())
    assert picture.shape[0] == 1 and picture.std() > 0.05


@pytest.mark.parametrize(
    "values, kept",
    [
        ({}, [True, True, False]),
        ({"drop_duplicates": False}, [True, True, True]),
        ({"drop_duplicates": False, "min_motion": 4.0}, [True, False, True]),
        ({"drop_duplicates": False, "max_motion": 4.0}, [True, True, False]),
        ({"min_sharpness": 0.6}, [False, False, False]),
        ({"drop_duplicates": False, "min_seconds": 1.5}, [True, True, False]),
        ({"drop_duplicates": False, "max_seconds": 1.5}, [True, False, True]),
        ({"drop_duplicates": False, "camera": "static"}, [True, True, False]),
        ({"drop_duplicates": False, "camera": "moving"}, [True, False, True]),
        ({"expression": "num_frames > 1\nor sharpness > 0.6"}, [False, True, False]),
    ],
)
def test_limits_are_asked_of_what_they_can_be_asked_of(values, kept, table):
    """A picture neither moves nor lasts; what gave no shot stays out."""
    rows = rows_of(filtered(str(table), **values)[0])
    assert [row["kept"] for row in rows] == [*kept, False] and rows[3]["reason"] == "it has no frames"


def test_a_table_of_ones_own_is_filtered_into_the_output_folder(table):
    before = table.read_bytes()
    path = filtered(str(table))[0]
    assert (
        pack("nodes.comfy.training.folders").footage_folder() in pack("nodes.comfy.training.footage").Path(path).parents
    )
    assert [row["path"] for row in rows_of(path)] == [
        str(table.parent / name) for name in ("a.png", "b.mp4", "b.mp4", "c.mp4")
    ]
    assert rows_of(path)[2]["duplicate_of"] == f"{table.parent / 'b.mp4'}#0"
    assert table.read_bytes() == before and list(table.parent.iterdir()) == [table]
    assert filtered(path)[0] != path


@pytest.mark.parametrize(
    "values, words",
    [
        ({"manifest": " "}, "manifest is empty; connect that of Open-Sora Prepare Clips"),
        ({"manifest": "/nowhere.jsonl"}, "path is '/nowhere.jsonl', and there is nothing"),
        ({"manifest": "x" * 5000}, "path is 'x+', and there is nothing"),
        ({"manifest": str(ROOT)}, "a folder; it must be a table"),
        ({"min_motion": 3.0, "max_motion": 2.0}, "min_motion is 3 and max_motion is 2; the least must not be above"),
        ({"camera": "still"}, "camera is 'still'; it must be one of any, static, moving"),
        ({"expression": "sharpnes > 1"}, "expression: .*the nearest is sharpness"),
    ],
)
def test_what_cannot_be_filtered_is_told_before_a_run(values, words, table):
    inputs = {"manifest": str(table), "min_motion": 0.0, "max_motion": 0.0, "min_seconds": 0.0, "max_seconds": 0.0,
              "camera": "any", "expression": ""} | values  # fmt: skip
    told = node_class("OpenSoraFilterClips").validate_inputs(**inputs)
    with pytest.raises(ValueError, match=words) as raised:
        run("OpenSoraFilterClips", **{"min_motion": 0.0, "manifest": str(table)} | values)
    assert told == str(raised.value)


def test_a_limit_on_what_was_not_measured_is_refused(table):
    with pytest.raises(ValueError, match="min_aesthetic is 5.0, and no shot has aes; measure the aesthetic score"):
        filtered(str(table), min_aesthetic=5.0)
    table.write_text(table.read_text().replace('"cmotion"', '"other"'))
    with pytest.raises(ValueError, match="camera is static, and no shot has cmotion; measure camera .* to any"):
        filtered(str(table), camera="static")


def test_a_wired_manifest_is_for_the_run_to_judge():
    """Validation has None for what a wire feeds."""
    assert node_class("OpenSoraFilterClips").validate_inputs(manifest=None, expression=None) is True
    assert node_class("OpenSoraDataset").validate_inputs(path=None) is True
    assert node_class("OpenSoraFilterClips").fingerprint_inputs(manifest=None) == ""


# --- the data set


def test_the_data_set_is_of_the_shots_that_are_kept(prepared, tiny):
    path = filtered(prepared[0], min_motion=0.5, min_sharpness=0.3)[0]
    found, picture, report = run("OpenSoraDataset", vae=tiny.vae, clip=tiny.clip, model=tiny.model, path=path)
    assert [(clip.start, clip.frames) for clip in found.clips][:3] == [(0, 34), (34, 34), (68, 40)]
    assert "10 clips, 3 captions" in report and "porcelain circles.mp4#4: it repeats" in report
    assert "17 frames · 64x64" in report and picture.shape[-1] == 3
