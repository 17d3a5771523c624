"""Which shots repeat which: copies do, other shots and black ones do not."""

import itertools

import numpy
import pytest
from moved import frame_of, frames_of, looked_at
from opensora_comfy.training.data import h264, media
from opensora_comfy.training.data.footage.measures.likeness import (
    DIGITS,
    PLAIN_HASH,
    PerceptualHash,
    duplicates,
    hashed,
)
from PIL import Image

SHOTS = (0, 30, 76, 137, 187, 242, 250)  # where those of bikes.mp4 begin, and its end


def row(path, frames, shot=0, **more):
    height, width = frames[0].shape[:2]
    return {"path": path, "shot": shot, "height": height, "width": width, **looked_at(PerceptualHash(), frames), **more}


def whole(path):
    return frames_of(path, range(media.probe(path).frames))


@pytest.fixture(scope="module")
def bikes(footage):
    return whole(footage / "bikes.mp4")


def shots_of(frames):
    return [frames[start:end] for start, end in itertools.pairwise(SHOTS)]


def test_shots_of_a_film_are_not_alike(bikes):
    assert list(duplicates(row("bikes.mp4", shot, number) for number, shot in enumerate(shots_of(bikes)))) == []


def test_copies_are(bikes, footage, tmp_path, monkeypatch):
    """Compressed hard, and made half as large; the original stays wherever it stands."""
    monkeypatch.setitem(h264.QUALITY, "crf", "34")
    rows = []
    for number, shot in enumerate(shots_of(bikes)):
        small = [numpy.asarray(Image.fromarray(frame).resize((320, 136), Image.Resampling.BICUBIC)) for frame in shot]
        copy = h264.write(tmp_path / f"{number}.mp4", numpy.stack(shot), 25)
        rows += [row("small", small, number), row("film", shot, number), row("copy", whole(copy), number)]
    found = dict(duplicates(rows))
    wanted = {f"{name}#{number}": f"film#{number}" for number in range(6) for name in ("small", "copy")}
    assert found == wanted and list(found) == [f"{r['path']}#{r['shot']}" for r in rows if r["path"] != "film"]


def test_real_copies(footage):
    rows = [row(name, whole(footage / name)) for name in ("b.avi", "world.mp4", "b.mp4")]
    assert list(duplicates(rows)) == [("b.mp4#0", "b.avi#0")]
    # Of two of one size the sharper stays, where that is known.
    rows[0]["sharpness"], rows[2]["sharpness"] = 0.64, 0.67
    assert list(duplicates(rows)) == [("b.avi#0", "b.mp4#0")]


def test_black_shots_are_left_alone(bikes):
    black = [numpy.zeros((48, 64, 3), numpy.uint8)] * 30
    noisy = [numpy.random.default_rng(n).integers(0, 3, (48, 64, 3), dtype=numpy.uint8) for n in range(30)]
    rows = [row("a", black), row("b", black), row("c", noisy), row("d", black[:1]), row("e", black[:1])]
    assert rows[0]["phash"] == rows[2]["phash"] == 3 * PLAIN_HASH and list(duplicates(rows)) == []
    # A shot that comes out of black is known by the rest, and only if the black is at the same place.
    rows = [row("in", black[:10] + bikes[:20]), row("again", black[:10] + bikes[:20]), row("whole", bikes[:30])]
    assert rows[0]["phash"].startswith(PLAIN_HASH) and list(duplicates(rows)) == [("again#0", "in#0")]


def test_pictures_are_compared_with_pictures(footage, bikes):
    picture = frame_of(footage / "bigbuckbunny.mp4")
    small = numpy.asarray(Image.fromarray(picture).resize((320, 180), Image.Resampling.LANCZOS))
    assert len(hashed(picture)) == DIGITS
    rows = [row("still", [picture]), row("clip", [picture] * 9), row("thumbnail", [small]), row("other", bikes[:1])]
    assert list(duplicates(rows)) == [("thumbnail#0", "still#0")]


def code(value, frames=3):
    return f"{value:0{DIGITS * frames}x}"


def test_a_chain_names_what_stays():
    """a ~ b ~ c, but a and c are too far apart: b repeats a, and c repeats nothing that stays."""
    base = int.from_bytes(numpy.random.default_rng(0).bytes(24), "big")
    near, far = base ^ (2**12 - 1), base ^ (2**24 - 1)
    rows = [{"path": name, "shot": 1, "height": 1, "width": 1, "phash": code(value)}
            for name, value in (("a", base), ("b", near), ("c", far), ("d", far))]  # fmt: skip
    assert list(duplicates(rows)) == [("b#1", "a#1"), ("d#1", "c#1")]
    rows[3].update(height=2)  # the larger stays, and what it is near to goes
    assert list(duplicates(rows)) == [("b#1", "d#1"), ("c#1", "d#1")]


def test_all_pairs_are_found(monkeypatch):
    """As by comparing each with each."""
    rng = numpy.random.default_rng(1)
    values = [int.from_bytes(rng.bytes(24), "big") for _ in range(40)]
    for value in values[:40]:
        for bits in (3, 11, 12, 13, 20):
            flipped = sum(1 << int(place) for place in rng.choice(192, bits, replace=False))
            values.append(value ^ flipped)
    kept, wanted = [], {}
    for number, value in enumerate(values):
        near = [other for other in kept if (values[other] ^ value).bit_count() <= 12]
        if near:
            wanted[f"{number}#0"] = f"{near[0]}#0"
        else:
            kept.append(number)
    rows = ({"path": str(number), "shot": 0, "phash": code(value)} for number, value in enumerate(values))
    assert dict(duplicates(rows)) == wanted and len(wanted) >= 120


def test_rows_without_a_hash():
    rows = [{"path": "broken.mp4", "shot": -1, "phash": value} for value in (None, "", code(0))]
    assert list(duplicates(rows)) == [] and list(duplicates([])) == []
    for wrong in ("abc", "sixteen letters."):
        with pytest.raises(ValueError, match=f"a.mp4#0: phash is '{wrong}'; it must be 16 hex digits a frame"):
            list(duplicates([{"path": "a.mp4", "shot": 0, "phash": wrong}]))
    assert looked_at(PerceptualHash(), []) == {"phash": None}
