"""Filter expressions: what they keep, what they say of the rest, and that nothing but a filter gets in."""

import itertools
import math

import pytest
from opensora_comfy.training.data.footage.filters import keep, parse

ROW = {
    "path": "bikes.mp4", "shot": 1, "text": "A man rides a bike on the beach.", "num_frames": 45, "fps": 25.0,
    "height": 272, "width": 640, "flow_dis": 0.3125, "sharpness": 0.5, "cmotion": "pan left", "duplicate_of": "",
    "start": 30, "kept": True, "reason": "",
}  # fmt: skip


def why(expression, **values):
    return parse(expression).why_not({**ROW, **values})


@pytest.mark.parametrize(
    "expression",
    ["", "  \n", "flow_dis >= 0.3", "flow_dis < 0.3 or sharpness > 0.4", "not flow_dis < 0.3", "0.3 <= flow_dis < 0.4",
     "num_frames / fps >= 1.8", "num_frames * 2 - 10 == 80 and -start + 30 == 0", '"beach" in text', "'dog' not in text",
     'cmotion != "static"', 'duplicate_of == ""', "(flow_dis > 9 or (sharpness > 0.4)) and not (start < 30 or fps != 25)",
     "flow_dis >= 0.3\nand sharpness > 0.4", "2 > flow_dis", "width > height", '"ä" not in text and fps > 1e1'],
)  # fmt: skip
def test_what_passes(expression):
    assert why(expression) == ""


@pytest.mark.parametrize(
    "expression, reason",
    [
        ("flow_dis >= 2", "flow_dis is 0.3125; the filter asks for >= 2"),
        ("sharpness > 0.3 and flow_dis >= 2 and fps > 30", "flow_dis is 0.3125; the filter asks for >= 2"),
        ("2 <= flow_dis", "flow_dis is 0.3125; the filter asks for >= 2"),
        ("0.1 < flow_dis < 0.2", "flow_dis is 0.3125; the filter asks for < 0.2"),
        ("not flow_dis < 2", "flow_dis is 0.3125; the filter asks for >= 2"),
        ("num_frames / fps >= 2", "num_frames / fps is 1.8; the filter asks for >= 2"),
        ('"dog" in text', 'text is "A man rides a bike on the beach."; the filter asks for "dog" in it'),
        ('"bike" not in text', 'text is "A man rides a bike on the beach."; the filter asks for no "bike" in it'),
        ('cmotion == "static"', 'cmotion is "pan left"; the filter asks for == "static"'),
        ("height > width", "height is 272 and width is 640; the filter asks for height > width"),
        ("flow_dis > 2 or sharpness > 1",
         "flow_dis is 0.3125 and sharpness is 0.5; the filter asks for flow_dis > 2 or sharpness > 1"),
        ("not (flow_dis < 2 and sharpness < 1)",
         "flow_dis is 0.3125 and sharpness is 0.5; the filter asks for flow_dis >= 2 or sharpness >= 1"),
    ],
)  # fmt: skip
def test_what_fails_says_where(expression, reason):
    assert why(expression) == reason


@pytest.mark.parametrize("value", [None, math.nan])
@pytest.mark.parametrize("expression", ["flow_dis >= 0", "not flow_dis >= 0", "flow_dis * 2 < 1", "-flow_dis != 3"])
def test_a_missing_value_passes_nothing_and_says_who_fills_it_in(expression, value):
    assert why(expression, flow_dis=value) == "flow_dis is missing; the measure flow_dis fills it in"


def test_missing_in_all_its_ways():
    assert why("flow_dis >= 0 or sharpness > 0.4", flow_dis=None) == ""
    missing = why("flow_dis >= 0 or sharpness > 0.9", flow_dis=None)
    assert missing.startswith("flow_dis is missing and sharpness is 0.5; the filter asks for")
    assert "the measure quality" in parse("sharpness > 0").why_not({})
    assert "the measure phash" in why('duplicate_of == ""', duplicate_of=None)
    assert "a picture has no motion; num_frames == 1 or" in why("flow_dis > 0", flow_dis=None, num_frames=1)
    assert why("num_frames / fps >= 2", fps=0.0) == "num_frames / fps is missing; the filter asks for >= 2"


@pytest.mark.parametrize(
    "expression, said",
    [
        ("flo_dis >= 2", ["at character 1", '"flo_dis" is no column', "the nearest is flow_dis", "sharpness"]),
        ("fps > 2 and kept", ["at character 13", '"kept" is no column']),
        ('"ä" in text and sharpnes > 1', ["at character 17", "nearest is sharpness"]),
        ("flow_dis", ["is a value and no condition", "flow_dis >= 2"]),
        ("flow_dis >= 2 and 1", ['"1" is a value and no condition']),
        ("flow_dis = 2", ["at character", "write == for ="]),
        ("flow_dis > 2 && fps > 3", ["write and for &&"]),
        ('text == "a = b" | fps > 2', ["not allowed here"]),
        ("flow_dis >", ["at its end"]),
        ("flow_dis > 2)", ["at character 13"]),
        ('flow_dis > "2"', ["is a number and '2' a text"]),
        ("text > 2", ["is a text and 2 a number"]),
        ('text > "a"', ["is a text, and > orders numbers"]),
        ("2 in num_frames", ["in looks for a text"]),
        ('text * 2 == "a"', ["only numbers can be calculated with"]),
        ("fps is 2", ["compared by is"]),
        ("fps ** 2 > 3", ['"fps ** 2" is not allowed here', "+ - * /"]),
        *((f"{bad} > 1", ["is not allowed here"]) for bad in (
            "len(text)", "text.real", "text[0]", "(lambda: 1)", "[fps]", "{1}", "(1, 2)", "fps % 2", "fps // 2", "~fps",
            "(fps if 1 else 2)", "True", "None", "b'a'", "2j", "f'{fps}'", "(a := 1)", "+fps", "(fps > 1)", "...")),
        ("__import__('os').system('true')", ["is not allowed here"]),
        ("(" * 300 + "fps" + ")" * 300 + " > 1", ["filter"]),
        ("fps > 1 and " * 400 + "fps > 1", ["at most 4000"]),
        ("fps * " + "9" * 3900 + " > 1", ["at character 7", "is too large; at most 9007199254740992"]),
        ("\ud800 > 1", ['filter "? > 1": it cannot be read']),
    ],
)  # fmt: skip
def test_what_is_no_filter(expression, said):
    with pytest.raises(ValueError) as refused:
        parse(expression)
    assert [part for part in said if part not in str(refused.value)] == []


@pytest.mark.parametrize(
    "expression",
    ["not " * 900 + "fps > 1", "-" * 3900 + "fps > 1", "fps > 1\0", "9007199254740992 * " * 30 + "fps > 1"],
)
def test_what_is_odd_is_read_or_refused(expression):
    try:
        assert parse(expression).why_not(ROW) in ("", why(expression))
    except ValueError as error:
        assert "nested too deeply" in str(error)


def test_keep_judges_row_by_row_and_leaves_the_left_out_alone():
    out = {**ROW, "kept": False, "reason": "it is shorter than 2 s"}
    endless = itertools.chain([ROW, out, {**ROW, "flow_dis": 3.0}], itertools.repeat(ROW))
    judged = list(itertools.islice(keep(endless, "flow_dis >= 2"), 3))
    assert [row["kept"] for row in judged] == [False, False, True]
    reasons = ["flow_dis is 0.3125; the filter asks for >= 2", "it is shorter than 2 s", ""]
    assert [row["reason"] for row in judged] == reasons
    assert ROW["kept"] and {**judged[2], "flow_dis": 0.3125} == ROW
    with pytest.raises(ValueError, match="is no column"):  # before the first row is asked for
        keep([], "flaw > 2")


def test_columns_of_ones_own():
    columns = [*ROW, "mood"]
    assert parse('mood == "calm" and flow_dis > 0', columns).why_not({**ROW, "mood": "calm"}) == ""
    with pytest.raises(ValueError, match=r'bikes.mp4#1: mood is "calm".*numbers and texts'):
        parse("mood > 2", columns).why_not({**ROW, "mood": "calm"})
    with pytest.raises(ValueError, match=r"numbers and texts"):
        parse("mood * 2 > 2", columns).why_not({**ROW, "mood": "calm"})
