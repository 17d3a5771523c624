"""The strip of samples: rows by step, columns by prompt, and a gap where a clip is missing or broken."""

import numpy
import pytest
from opensora_comfy.training.data.h264 import write
from opensora_comfy.training.filmstrip import MOST_ROWS, samples_in, strip

COLORS = {(0, 0): (200, 40, 40), (0, 1): (40, 200, 40), (50, 0): (40, 40, 200)}


@pytest.fixture
def folder(tmp_path):
    for (step, prompt), color in COLORS.items():
        frames = numpy.empty((5, 32, 32, 3), numpy.uint8)
        frames[:] = color
        write(tmp_path / f"step-{step:06d}-{prompt}.mp4", frames, 24)
    (tmp_path / "step-000050-1.mp4").write_bytes(b"half a file")
    (tmp_path / "notes.mp4").write_bytes(b"")
    return tmp_path


def test_clips_stand_where_their_step_and_prompt_are(folder):
    samples = samples_in(folder)
    assert [(sample.step, sample.prompt) for sample in samples] == [(0, 0), (0, 1), (50, 0), (50, 1)]
    pixels = numpy.asarray(strip(samples, ["red, then blue", "green"], 960)).astype(int)

    def middle(color):
        rows, columns = numpy.nonzero(numpy.abs(pixels - color).sum(-1) < 40)
        return rows.mean(), columns.mean()

    red, green, blue = (middle(COLORS[place]) for place in COLORS)
    assert red[0] == pytest.approx(green[0], abs=3) and green[1] > red[1] + 200
    assert blue[1] == pytest.approx(red[1], abs=3) and blue[0] > red[0] + 50
    assert (numpy.abs(pixels - (228, 226, 220)).sum(-1) < 3).sum() > 5000  # what cannot be read is a gap


def test_of_many_steps_the_first_the_last_and_some_between_are_shown(folder):
    sample = samples_in(folder)[0]
    many = [sample._replace(step=step) for step in range(0, 5000, 10)]
    few = [sample._replace(step=step) for step in range(MOST_ROWS)]
    assert strip(many).height == strip(few).height > strip(few[:2]).height
    assert strip([]).height == 1
