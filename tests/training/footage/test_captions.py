"""Where captions come from, and the scores that they carry."""

import pytest
from opensora_comfy.training.data.dataset import read_folder
from opensora_comfy.training.data.footage.captions import Captions, with_scores
from videos import video

ROW = {"path": "a.mp4", "aes": 5.52, "flow_dis": 3.14, "flow_raft": 12.0, "cmotion": "pan left"}


def test_the_nearest_to_the_file_counts(tmp_path):
    rows = [
        {"path": "sunrise.mp4", "text": "from the table"},
        {"path": "deep/noon.mp4", "text": " noon "},
        {"path": "deep/noon.mp4", "text": "again"},
        {"path": "night.mp4", "text": None},
    ]
    captions = Captions("one for all", rows, folder=tmp_path)
    (tmp_path / "sunrise.txt").write_text("\ufeff A sunrise.\n", encoding="utf-8")
    assert captions(tmp_path / "sunrise.mp4") == "A sunrise."
    (tmp_path / "sunrise.mp4.txt").write_text("Nearer still.")
    assert captions(tmp_path / "sunrise.mp4") == "Nearer still."
    assert captions(tmp_path / "deep" / "noon.mp4") == "noon"
    assert captions(tmp_path / "night.mp4") == captions(tmp_path / "other.mp4") == "one for all"
    assert Captions()(tmp_path / "other.mp4") == ""


def test_folders_of_a_data_set_have_the_same_rule(tmp_path):
    for name in ("a", "b"):
        video(tmp_path / f"{name}.mp4", 3)
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "b.txt").write_text("not this one")
    (tmp_path / "b.mp4.txt").write_text("second")
    clips, _ = read_folder(tmp_path)
    assert [clip.caption for clip in clips] == [Captions()(clip.path) for clip in clips] == ["first", "second"]


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(ValueError, match="row 2 of the captions has no column 'prompt'; it has path, text"):
        Captions(rows=[{"path": "a", "prompt": ""}, {"path": "b", "text": ""}], column="prompt")
    (tmp_path / "a.txt").write_bytes("Café".encode("latin-1"))
    with pytest.raises(ValueError, match=r"its caption a.txt cannot be read; save it as a text file in UTF-8"):
        Captions("all")(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    "version, caption",
    [
        ("1.0", "A lion."),
        ("1.1", "A lion."),
        ("1.2", "A lion. aesthetic score: 5.5. motion score: 3.1. camera motion: pan left."),
        ("1.3", "A lion. The aesthetic score is good. The motion strength is fair. camera motion: pan left."),
    ],
)
def test_scores_of_each_generation(version, caption):
    assert with_scores("A lion.", ROW, version) == caption


def test_scores_that_are_missing_or_text():
    assert with_scores("A lion.", {**ROW, "aes": None, "cmotion": "dynamic"}, "1.2") == "A lion. motion score: 3.1."
    assert (
        with_scores("A lion.", {"aes": "6.0", "flow_dis": "", "cmotion": ""}, "1.2") == "A lion. aesthetic score: 6.0."
    )
    assert with_scores("A lion.", {**ROW, "cmotion": None}, "1.3", "flow_raft").endswith(
        "motion strength is very high."
    )
    assert with_scores("A lion.", {}, "1.3") == "A lion."
    with pytest.raises(ValueError, match="aes is 'fair'; it must be a number, or empty"):
        with_scores("A lion.", {"aes": "fair"}, "1.2")
    with pytest.raises(ValueError, match='version is "2.0"'):
        with_scores("A lion.", ROW, "2.0")


@pytest.mark.parametrize("score, word", [(0.4, "very low"), (0.5, "low"), (2, "fair"), (5, "high"), (10, "very high"), (20, "extremely high")])  # fmt: skip
def test_motion_words_of_1_3(score, word):
    assert with_scores("", {"flow_dis": score}, "1.3").strip() == f"The motion strength is {word}."
