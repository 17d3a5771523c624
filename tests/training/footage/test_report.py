"""The report as a file: all in one, nothing from elsewhere, small enough to mail, and whole whatever rows say."""

import base64
import io
import json
import re

import pytest
from manifests import footage, left_out, many, shot, told
from opensora_comfy.training.data.footage.report import page as report
from opensora_comfy.training.data.footage.report.page import page, pictured, write
from opensora_comfy.training.data.footage.report.thumbnails import spread
from PIL import Image

DATA = re.compile(r'<script id="data" type="application/json">(.*?)</script>', re.DOTALL)


def data_of(html):
    (found,) = DATA.findall(html)
    return json.loads(found)


def test_one_file_with_all_in_it(tmp_path):
    rows = footage(tmp_path)
    asked = []
    path = write(
        tmp_path / "new" / "report.html", iter(rows), tmp_path, "My clips", progress=lambda *at: asked.append(at)
    )
    html = path.read_text(encoding="utf-8")
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    assert not re.search(r"(src|href)\s*=|@import|https?://(?!www\.w3\.org/2000/svg)|fetch\(|XMLHttp", html)
    assert "default-src 'none'" in html and "/* script */" not in html and "{ data }" not in html
    found = data_of(html)
    assert found["name"] == "My clips" and found["files"] == ["long.mp4", "short.mp4", "broken.mp4"]
    assert len(found["rows"]) == 5 and found["rows"][4][1] == -1
    assert {score["expression"] for score in found["scores"]} >= {"flow_dis", "sharpness", "num_frames / fps"}
    assert asked[0] == (0, 4) and asked[-1] == (4, 4)


def test_films_show_the_shots_frames(tmp_path):
    rows = footage(tmp_path)
    films = data_of(page(rows, tmp_path))["films"]
    assert sorted(films) == ["0", "1", "2", "3"]
    for number, (count, width, height, content) in films.items():
        film = Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")
        assert film.format or film.size == (count * width, height)
        frames = [film.crop((place * width, 0, (place + 1) * width, height)) for place in range(count)]
        assert list(map(told, frames)) == spread(rows[int(number)], report.FRAMES)


EVIL = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "/* script */ { data }",
    '"\\\u2028\u0000é中🎬',
    "<img src=x>",
]


@pytest.mark.parametrize("text", EVIL)
def test_no_text_leaves_its_place(text, tmp_path):
    rows = [shot(text, text=text, cmotion=text, duplicate_of=text), left_out(text, text)]
    html = page(rows, tmp_path, text)
    found = data_of(html)
    fields = dict(zip(found["fields"], found["rows"][0]))
    assert found["name"] == found["files"][0] == fields["text"] == fields["motion"] == fields["copy"] == text
    assert html.count("<script") == 2 and html.count("</script>") == 2


def test_values_that_json_does_not_know(tmp_path):
    rows = [shot(aes=float("nan"), fps=float("inf")), shot(number=1, aes=1.5), shot(number=2, aes=2.5), left_out()]
    (score,) = [score for score in data_of(page(rows, tmp_path))["scores"] if score["expression"] == "aes"]
    assert score["values"] == [None, 1.5, 2.5, None]
    assert data_of(page([], tmp_path))["rows"] == []


def test_of_many_shots_some_are_drawn_the_ends_of_each_score_among_them():
    rows = many(1000)
    drawn = pictured(rows, 100)
    assert len(drawn) == len(set(drawn)) == 100 and drawn == sorted(drawn)
    best = sorted((row["aes"], number) for number, row in enumerate(rows))
    assert {number for _, number in best[: report.EXTREMES] + best[-report.EXTREMES :]} <= set(drawn)
    assert min(drawn) < 50 and max(drawn) > 950
    assert pictured(rows[:50], 100) == list(range(50))
    assert len(pictured(rows, 7)) == 7 and pictured([left_out()], 7) == []


def test_films_stay_within_their_share(tmp_path, monkeypatch):
    rows = footage(tmp_path)
    monkeypatch.setattr(report, "MOST_BYTES", 2400)
    films = data_of(page(rows, tmp_path))["films"]
    assert 0 < sum(len(base64.b64decode(film[3])) for film in films.values()) <= 2400


def test_ten_thousand_rows_can_be_mailed(tmp_path):
    assert len(page(many(10_000), tmp_path, most=0).encode()) < 5_000_000


def test_a_file_that_is_there_stays_whole_when_writing_fails(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("before")
    with pytest.raises(KeyError):
        write(path, [{"shot": 0}], tmp_path)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]
