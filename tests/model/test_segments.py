"""How a long video is cut into runs: windows, jumps of a loop."""

import pytest
from opensora_comfy.model import segments
from opensora_comfy.model.frames import CHUNKS, EACH_FRAME, OVERLAPPING


def test_forward_makes_every_latent_once_with_whole_chunks_in_front():
    """12 latents are there: two chunks and a begun one, which the first run finishes."""
    first, second = segments.forward(12, 25, CHUNKS, 2, 1)
    assert first == segments.Segment(range(12, 20), tuple(range(5, 20)), range(20))
    assert second == segments.Segment(range(20, 25), tuple(range(15, 25)), range(25))
    assert (first.made, second.made) == (slice(7, 15), slice(5, 10))


def test_context_is_what_there_is():
    (only,) = segments.forward(1, 5, CHUNKS, 1, 3)
    assert only.window == (0, 1, 2, 3, 4) and only.made == slice(1, 5)
    first, second = segments.forward(2, 8, EACH_FRAME, 3, 4)
    assert (first.window, second.window) == ((0, 1, 2, 3, 4), (1, 2, 3, 4, 5, 6, 7))


def test_only_the_last_run_sees_what_comes_after():
    first, last = segments.forward(5, 15, CHUNKS, 1, 1, after=range(15, 20))
    assert (first.window, last.window) == (tuple(range(10)), tuple(range(5, 20)))
    assert last.done == range(15)


def test_backward_goes_from_the_clip_to_the_front():
    first, second = segments.backward(10, 18, CHUNKS, 1, 2)
    assert first == segments.Segment(range(5, 10), tuple(range(5, 18)), range(5, 18))
    assert second == segments.Segment(range(5), tuple(range(15)), range(18))


@pytest.mark.parametrize(
    ("latents", "of_1_2", "of_1_3"),
    [
        (range(5), 17, 17),
        (range(5, 15), 34, 33),
        ([*range(5, 10), *range(5)], 34, 33),  # a loop: from the end to the beginning
        (range(5, 8), 9, 9),
    ],
)
def test_frames_of_a_window(latents, of_1_2, of_1_3):
    assert segments.frames_of(tuple(latents), CHUNKS.groups(51), CHUNKS) == of_1_2
    assert segments.frames_of(tuple(latents), OVERLAPPING.groups(49), OVERLAPPING) == of_1_3
