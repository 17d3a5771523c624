"""What a manifest holds: counts, minutes, scores, and reasons without what differs from row to row."""

import math

import pytest
from manifests import left_out, many, shot
from opensora_comfy.training.data.footage.report.account import account, by_file, kind_of, lasting, name_of, scores


def test_counts_and_seconds():
    rows = [
        shot(frames=50), shot(number=1, start=50, frames=100, kept=False, reason="too dark"), left_out(),
        shot("picture.jpg", frames=1, fps=120.0),
    ]  # fmt: skip
    held = account(rows)
    assert held[:5] == (3, 3, 2, 6.0, 2.0)
    assert [(group.reason, group.rows, group.seconds) for group in held.groups] == [
        ("too dark", [1], 4.0),
        ("it breaks off after 12 of 30 frames; export it again", [2], 0.0),
    ]
    assert [name_of(row) for row in rows] == ["clip.mp4#0", "clip.mp4#1", "broken.mp4", "picture.jpg#0"]
    assert account([])[:5] == (0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    "reason, kind",
    [
        ("flow_dis is 0.31; the filter asks for >= 2", "the filter asks for flow_dis >= 2"),
        ('text is "A dog; a cat is"; the filter asks for "beach" in it', 'the filter asks for "beach" in text'),
        ("fps is 2 and aes is 3; the filter asks for fps > 3 or aes > 4", "the filter asks for fps > 3 or aes > 4"),
        (
            "flow_dis is missing; the measure flow_dis fills it in",
            "flow_dis is missing; the measure flow_dis fills it in",
        ),
        ("it lasts 1.53 s; the least is 2 s", "it lasts … s; the least is … s"),
        ("clip.mp4: it breaks off after 3 of 12 frames", "it breaks off after … of … frames"),
        ("it is a copy of a/b.mp4#12", "it is a copy of …"),
        ("mp4 and x264 stay", "mp4 and x264 stay"),
        ("", "no reason is given"),
    ],
)
def test_kinds_of_reasons(reason, kind):
    assert kind_of(shot(kept=False, reason=reason)) == kind


def test_a_group_says_what_is_the_same_in_all_its_reasons():
    rows = [shot(kept=False, reason=f"it lasts {length} s; the least is 2 s") for length in (0.5, 1.25, 1.25)]
    (group,) = account(rows).groups
    assert group.reason == "it lasts … s; the least is 2 s" and group.rows == [0, 1, 2]


def test_scores_are_the_columns_of_numbers_that_differ():
    rows = [
        shot(frames=50, flow_dis=1.0, aes=None, mood=3, same=1, note="x", **{"not a name": 1, "class": 1}),
        shot(frames=100, flow_dis=math.nan, aes=5, mood=True, same=1, note="y", **{"not a name": 2, "class": 2}),
        shot(frames=1, fps=120.0, flow_dis=2.5, aes=6, mood=4, same=1),
        left_out(),
    ]
    found = {score.expression: score.values for score in scores(rows)}
    assert found == {
        "num_frames / fps": [2.0, 4.0, None, None],
        "flow_dis": [1.0, None, 2.5, None],
        "aes": [None, 5, 6, None],
        "mood": [3, None, 4, None],
    }


def test_rows_by_file_in_their_order():
    rows = [shot(start=30), shot("other.mp4"), shot(start=0), left_out()]
    assert by_file(rows) == {"clip.mp4": [2, 0], "other.mp4": [1], "broken.mp4": [3]}
    assert sum(map(len, by_file(many(100)).values())) == 100


@pytest.mark.parametrize("length, said", [(0, "0.0 s"), (99.9, "99.9 s"), (120, "2.0 min"), (36000, "10.0 h")])
def test_lengths(length, said):
    assert lasting(length) == said
