"""Which shape each clip gets, so that none is lost."""

import random
from collections import Counter

import pytest
from opensora_comfy.model.frames import CHUNKS, EACH_FRAME, OVERLAPPING
from opensora_comfy.training.data.batches import WAYS, Shapes, epoch

BUCKETS = {"480p": {17: (0.5, 2), 51: (0.25, 1)}, "240p": {1: 8, 17: 4, 51: 2}}


def assigned(frames, height, width, draw=0.0, buckets=BUCKETS, counting=CHUNKS, **options):
    return Shapes(buckets, counting, **options).assign(frames, height, width, lambda index: draw)


@pytest.mark.parametrize(
    "frames, length, note",
    [
        (51, 51, ""),
        (60, 51, ""),
        (50, 17, ""),
        (17, 17, ""),
        (16, 1, "too short for motion: a still"),
        (2, 1, "too short for motion: a still"),
    ],
)
def test_lengths(frames, length, note):
    found = assigned(frames, 240, 426)
    assert (found.frames, found.resolution, found.note) == (length, "240p", note)


def test_what_is_shorter_than_all_lengths_takes_the_longest_it_has():
    buckets = {"240p": {1: 100, 51: 2, 102: 1}}
    for frames, length in ((50, 50), (48, 46), (21, 21), (20, 17), (17, 17)):
        found = assigned(frames, 240, 426, buckets=buckets)
        # As many as of the shortest videos, not as of pictures.
        assert (found.frames, found.batch_size, found.note) == (length, 2, f"short: {length} of its {frames} frames")
    assert assigned(40, 240, 426, buckets={"240p": {49: 1}}, counting=OVERLAPPING, version="1.3").frames == 33
    assert assigned(40, 240, 426, buckets={"240p": {64: 1}}, counting=EACH_FRAME, version="1.1").frames == 40


def test_keep_probabilities_hold_for_short_clips_too():
    buckets = {"480p": {51: (0.25, 1)}, "240p": {51: 2}}
    assert assigned(20, 480, 854, draw=0.2, buckets=buckets).resolution == "480p"
    assert assigned(20, 480, 854, draw=0.3, buckets=buckets).resolution == "240p"


def test_pictures_among_videos_and_videos_among_pictures():
    picture = assigned(1, 240, 426, buckets={"240p": {17: 4, 51: 1}})
    assert (picture.frames, picture.batch_size, picture.note) == (1, 4, "")
    video = assigned(51, 240, 426, buckets={"240p": {1: 8}})
    assert (video.frames, video.batch_size, video.note) == (1, 8, "only images are asked for: one of its 51 frames")


def test_what_is_small_is_enlarged_and_says_so():
    found = assigned(51, 60, 106)
    assert found.resolution == "240p" and found.note == "small: enlarged 4.0 times"
    assert (
        assigned(20, 60, 106, buckets={"240p": {51: 1}}).note == "short: 17 of its 20 frames; small: enlarged 4.0 times"
    )


def test_resolutions_are_drawn_by_their_probability():
    rng = random.Random(0)
    shapes = Shapes(BUCKETS, CHUNKS)
    found = Counter(shapes.assign(51, 480, 854, lambda index: rng.random()).resolution for _ in range(2000))
    assert abs(found["480p"] / 2000 - 0.25) < 0.03 and found["240p"] + found["480p"] == 2000
    assert [shape.resolution for shape in shapes.shapes(51, 480, 854)] == ["480p", "240p"]
    sure = Shapes({"480p": {51: 1}, "240p": {51: 2}}, CHUNKS)  # 240p is for what is smaller, and need not be encoded
    assert [shape.resolution for shape in sure.shapes(51, 480, 854)] == ["480p"]
    never = Shapes({"480p": {51: (0, 1)}, "240p": {51: (0.0, None)}}, CHUNKS)
    assert [shape.resolution for shape in never.shapes(51, 480, 854)] == ["240p"]
    assert never.assign(51, 480, 854, lambda index: 0.0).resolution == "240p"


@pytest.mark.parametrize("way", ["padding", "packing"])
def test_other_ways_keep_the_ratio(way):
    found = assigned(40, 100, 380, buckets={"64x64": {17: 2, 51: 1}}, way=way)
    assert found.frames == 38 and found.height * found.width <= 1.3 * 64 * 64 and found.width / found.height == 4
    assert assigned(40, 32, 48, buckets={"64x64": {17: 2, 51: 1}}, way=way).note == ""


@pytest.mark.parametrize(
    "buckets, words",
    [
        ({}, "buckets is empty"),
        ({"240p": {}}, "buckets is empty"),
        ({"240p": 17}, "240p has 17; it must have lengths in frames, such as {17: 1}"),
        ({"241p": {17: 1}}, "241p.*240p"),
        ({"8x64": {17: 1}}, "the size is 8x64; a side must have 16 pixels, the nearest is 16x64"),
        ({"240p": {18: 1}}, "240p asks for 18 frames.*the nearest are 17 or 21"),
        ({"240p": {"many": 1}}, "a length is 'many'; it must be a whole number of frames"),
        ({"240p": {0: 1}}, "a length is 0; it must be a whole number of frames, the nearest is 1"),
        ({"240p": {17: 0}}, "batch size of 240p, 17 frames, is 0; it must be 1 at least"),
        ({"240p": {17: 1.5}}, "batch size of 240p, 17 frames, is 1.5"),
        ({"240p": {17: [1.5, 1]}}, "keep probability of 240p, 17 frames, is 1.5; it must be within 0 … 1, the nearest is 1"),
        ({"240p": {17: [-0.5, 1]}}, "is -0.5; it must be within 0 … 1, the nearest is 0"),
        ({"240p": {17: [0.5]}}, r"240p, 17 frames, has \[0.5\]; it must be a batch size, or \[keep probability, batch size\]"),
        ({"240p": {17: ["x", 1]}}, r"has \['x', 1\]; it must be a batch size, or"),
    ],
)  # fmt: skip
def test_what_is_refused(buckets, words):
    with pytest.raises(ValueError, match=words):
        Shapes(buckets, CHUNKS)


def test_an_unknown_way_is_refused():
    with pytest.raises(ValueError, match="way is 'pack'; it must be one of buckets, padding, packing"):
        Shapes(BUCKETS, CHUNKS, "pack")


def test_epochs_hold_every_sample_once():
    """A property of all settings; in buckets those of a batch are alike, and no larger than it may be."""
    rng = random.Random(1)
    for number in range(150):
        way = rng.choice(WAYS)
        plan = Shapes({"64x64": {1: rng.randint(1, 5), 17: rng.randint(1, 3), 34: 1}, "32x32": {17: 2}}, CHUNKS, way)
        sizes = [
            (rng.choice([1, 5, 17, 30, 40]), rng.choice([24, 64, 90]), rng.choice([32, 64, 120]))
            for _ in range(rng.randint(1, 30))
        ]
        shapes = [plan.assign(*size, draw=lambda index: rng.random()) for size in sizes]
        options = {
            "way": way,
            "ranks": rng.randint(1, 4),
            "accumulate": rng.randint(1, 4),
            "budget": rng.choice([0, 100]),
        }
        steps = epoch(shapes, CHUNKS, seed=3, number=number, **options)
        batches = [batch for step in steps for batch in step]
        assert sorted(n for batch in batches for part in batch for n in part) == list(range(len(shapes)))
        assert all(len(batch) == options["ranks"] and any(batch) for batch in batches)
        assert (
            all(len(step) == options["accumulate"] for step in steps[:-1])
            and 1 <= len(steps[-1]) <= options["accumulate"]
        )
        assert steps == epoch(shapes, CHUNKS, seed=3, number=number, **options)
        for batch in batches if way == "buckets" else ():
            alike = {(shapes[n].frames, shapes[n].height, shapes[n].width) for part in batch for n in part}
            assert len(alike) == 1 and all(
                len(part) <= max(shapes[n].batch_size for n in part) for part in batch if part
            )
            assert max(map(len, batch)) - min(map(len, batch)) <= 1


def test_epochs_differ():
    shapes = [Shapes(BUCKETS, CHUNKS).assign(17, 240, 426)] * 30
    orders = {str(epoch(shapes, CHUNKS, seed=seed, number=number)) for seed in (0, 1) for number in (0, 1, 2)}
    assert len(orders) == 6


def test_a_resolution_may_be_a_number():
    """YAML reads 256 as one."""
    number, text = (Shapes({name: {17: 2}}, CHUNKS).assign(17, 256, 256) for name in (256, "256"))
    assert number == text and number.resolution == "256"
