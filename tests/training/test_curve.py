"""The curve of a run: what it says in words, where it draws the best step, and that all of it is within the picture."""

import math

import numpy
import pytest
from opensora_comfy.training import report
from opensora_comfy.training.objective import BANDS
from opensora_comfy.training.report import Panel, apart, changes, curve, smoothed, ticks, verdict
from PIL import ImageColor


def log(validations=(1.0, 0.9, 0.95), every=20, loss=lambda step: 0.5):
    """The lines of a run that was judged at its beginning and each time `every` steps were done."""
    lines = []
    for number, value in enumerate(validations):
        lines.append({"step": every * number, "validation": value, **dict.fromkeys(BANDS, value)})
        steps = range(every * number + 1, every * (number + 1) + 1) if number + 1 < len(validations) else ()
        lines += [{"step": step, "loss": loss(step)} for step in steps]
    return lines


@pytest.mark.parametrize(
    "lines, words",
    [
        ([], "no step yet"),
        (log()[:1], "no step yet"),
        (log()[1:5], "step 4; nothing is held back to judge by, so look at samples"),
        (log()[:5], "step 4; not judged yet since the beginning"),
        (log((1.0, 0.999)), "step 20; validation is 0.9990 at best, hardly below the beginning: little is learned yet"),
        (log((1.0, 1.5)), "step 20; validation is 1.0000 at best, hardly below the beginning: little is learned yet"),
        (
            log((1.0, 0.9)),
            "step 20; best at step 20: validation 0.9000, 10.0 % below the beginning; still falling, more steps may help",
        ),
        (log(), "step 40; best at step 20: validation 0.9000, 10.0 % below the beginning; no better since then"),
    ],
)
def test_what_it_says(lines, words):
    assert verdict(lines) == words


def test_changes_are_per_cent_of_the_first():
    assert changes([(0, 0.5), (20, 0.4), (40, 0.6)]) == [(0, 0), (20, pytest.approx(-20)), (40, pytest.approx(20))]
    assert changes([(0, 0.0), (20, 0.1)])[0] == (0, -100)  # a loss of zero has no share


def test_the_running_mean_follows_and_begins_at_what_there_is():
    assert smoothed([(1, 2.0), (2, 4.0)], 1)[0] == (1, 2.0)
    flat = smoothed([(step, 1 + (-1) ** step) for step in range(200)])
    assert flat[-1][1] == pytest.approx(1, abs=0.1)
    assert smoothed([]) == []


@pytest.mark.parametrize("low, high", [(0, 1), (-13.2, 9.9), (-1, 1), (0, 0.0031), (0, 288), (0, 1.0), (-0.4, 37)])
def test_ticks_are_few_round_and_inside(low, high):
    found = ticks(low, high)
    assert 2 <= len(found) <= 5 and low - 1e-9 <= found[0] and found[-1] <= high + 1e-9
    step = found[1] - found[0]
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-9)) in (1, 2, 5)
    assert not (low <= 0 <= high) or 0 in found


def test_labels_keep_their_order_and_their_distance():
    found = apart({"a": 100, "b": 103, "c": 90, "d": 300}, 19)
    assert sorted(found, key=found.get) == ["c", "a", "b", "d"] and found["d"] == 300
    places = sorted(found.values())
    assert min(b - a for a, b in zip(places, places[1:])) > 18


def colored(image, color):
    """(rows, columns) of the pixels of about a colour."""
    return numpy.nonzero(abs(numpy.asarray(image, int) - ImageColor.getrgb(color)).sum(-1) < 30)


def marked(validations):
    """(height of the line's beginning, column and row of the ring) in the curve of these validations."""
    rows, columns = colored(curve(log(validations)), report.JUDGED)
    inside = columns < 960 - report.RIGHT + 8
    rows, columns = rows[inside], columns[inside]
    row, column = max(zip(rows, columns), key=lambda at: sum((abs(rows - at[0]) <= 6) & (abs(columns - at[1]) <= 6)))
    return rows[columns == report.LEFT + 2].mean(), column, row


@pytest.mark.parametrize("best", [1, 2, 3, 4])
def test_the_best_step_is_marked(best):
    """With a ring: nowhere else has the line so many pixels together."""
    _, column, _ = marked([0.7 if number == best else 1 - 0.01 * number for number in range(5)])
    assert abs(column - report.LEFT - (960 - report.LEFT - report.RIGHT) * best / 4) < 8


def test_a_run_that_falls_apart_does_not_hide_what_was_better():
    beginning, _, row = marked((1.0, 0.8, 50.0))
    assert row - beginning > 15


def test_one_outlier_does_not_stretch_the_scale():
    calm, wild = (
        colored(curve(log(loss=lambda step, peak=peak: peak if step == 7 else 0.5)), report.SMOOTH)[0]
        for peak in (0.5, 60)
    )
    assert abs(calm.max() - wild.max()) < 20 < wild.max() - wild.min()


def test_what_is_beyond_the_scale_is_at_its_edge():
    panel = Panel(10, 20, 110, 70, 50, -1, 1)
    assert panel.place(25, 0) == (60, 45) and panel.place(50, 9) == (110, 20) and panel.place(0, -9) == (10, 70)


@pytest.mark.parametrize("lines", [[], log()[:1], log()[1:5], log(), log((1e-9, 1e9, 3e4)), log((math.nan, 0.5))])
@pytest.mark.parametrize("size", [(960, 540), (960, 400), (1400, 700)])
def test_nothing_is_written_beyond_the_picture(lines, size):
    image = curve(lines, *size)
    pixels = numpy.asarray(image)
    edge = numpy.concatenate(
        [
            pixels[:2].reshape(-1, 3),
            pixels[-2:].reshape(-1, 3),
            pixels[:, -2:].reshape(-1, 3),
            pixels[:, :2].reshape(-1, 3),
        ]
    )
    assert image.size == size and (edge == ImageColor.getrgb(report.PAPER)).all()
