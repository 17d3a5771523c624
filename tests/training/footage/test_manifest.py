"""The cells of a manifest, as programs and people write them, and rows that cannot be."""

import json
import math

import pytest
from manifests import shot
from opensora_comfy.training.data.footage import clip_files, filters, manifest
from opensora_comfy.training.data.footage.report import page, strips
from opensora_comfy.training.data.footage.report.account import account
from opensora_comfy.training.data.footage.thresholds import Thresholds, filtered

USES = {
    "summary": manifest.summary,
    "export": lambda path: manifest.export_csv(path.with_name("export.csv"), path),
    "parquet": lambda path: manifest.write(path.with_name("copy.parquet"), manifest.rows(path)),
    "clips": lambda path: clip_files.write_clips(path, path.with_name("clips")),
    "keep": lambda path: list(filters.keep(manifest.rows(path), "num_frames / fps >= 1 and resolution > 2")),
    "measured": lambda path: Thresholds(min_motion=1).check_measured(list(manifest.rows(path))),
    "filtered": lambda path: list(filtered(manifest.rows(path), Thresholds(min_seconds=0.1), path, path)),
    "account": lambda path: account(list(manifest.rows(path))),
    "page": lambda path: page.page(list(manifest.rows(path)), path.parent),
    "strips": lambda path: strips.strips(list(manifest.rows(path)), path.parent, 900),
    "heart": lambda path: strips.heart(list(manifest.rows(path)), path.parent, 900),
}


def table(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    "column, value, read",
    [
        ("num_frames", "50.0", 50), ("num_frames", 50.0, 50), ("num_frames", " 50 ", 50), ("ocr", math.nan, None),
        ("fps", "24", 24.0), ("aes", math.nan, None), ("aes", "", None), ("kept", "1.0", True), ("kept", " false", False),
        ("kept", 1.0, True), ("text", None, ""), ("text", 7, "7"),
    ],
)  # fmt: skip
def test_cells_as_other_programs_write_them(column, value, read, tmp_path):
    (row,) = manifest.rows(table(tmp_path / "set.jsonl", shot() | {column: value}))
    assert row[column] == read and type(row[column]) is type(read)


@pytest.mark.parametrize(
    "column, value",
    [
        ("num_frames", 1.5), ("num_frames", math.inf), ("num_frames", 10**30), ("num_frames", "many"), ("fps", math.inf),
        ("ocr", [1]), ("kept", "no"), ("kept", 2), ("aes", {}), ("start", "first"),
    ],
)  # fmt: skip
def test_cells_of_another_kind_are_refused(column, value, tmp_path):
    with pytest.raises(ValueError, match=rf"set.jsonl, row 2: {column} is .*, which is no \w+; prepare it again"):
        list(manifest.rows(table(tmp_path / "set.jsonl", shot(), shot() | {column: value})))


@pytest.mark.parametrize(
    "column, value, least",
    [
        ("num_frames", 0, 1), ("num_frames", None, 1), ("num_frames", -5, 1), ("fps", 0, 0.001), ("fps", -24.0, 0.001),
        ("start", -1, 0), ("shot", -1, 0), ("height", 0, 1), ("width", -1, 1),
    ],
)  # fmt: skip
def test_a_row_that_is_kept_must_be_of_frames(column, value, least, tmp_path):
    row = shot() | {column: value}
    list(manifest.rows(table(tmp_path / "set.jsonl", row | {"kept": False})))
    with pytest.raises(ValueError, match=rf"row 1: it is kept, and {column} is .*; it must be {least} or more"):
        list(manifest.rows(table(tmp_path / "set.jsonl", row)))


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("kept", [True, False])
def test_whatever_a_row_lacks_it_is_of_use_or_refused(use, kept, tmp_path):
    for column in ("height", "width", "fps", "shot", "start", "text", "reason", "cmotion", "phash", "num_frames"):
        row = shot("gone.mp4", kept=kept, flow_dis=1.0) | {column: None}
        path = table(tmp_path / "set.jsonl", row, shot("other.mp4", flow_dis=2.0))
        if column == "num_frames" and kept:
            with pytest.raises(ValueError, match="row 1: it is kept, and num_frames is None"):
                USES[use](path)
        else:
            USES[use](path)
