"""Shots that are the same: a perceptual hash of each, and which repeats which.

The hash is computed here, in a few lines of numpy and Pillow: the usual package brings SciPy and PyWavelets for it.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy
from PIL import Image

from .places import SHARES, at_shares

SIDE, KEPT = 32, 8  # pixels of the grey picture; its lowest frequencies across and down
DIGITS = KEPT * KEPT // 4  # of a frame's hash, in hex
PLAIN = 2.0  # standard deviation of grey, of 255, below which a frame has nothing to be known by
PLAIN_HASH = "0" * DIGITS  # which no other frame has: half of its bits are ones
NEAR = 4  # bits in which frames may differ, on average
ONES = numpy.array([number.bit_count() for number in range(256)], numpy.uint8)  # of a byte

# [8, 32]: the lowest frequencies of the discrete cosine transform (type II; its scale does not matter here).
COSINES = numpy.cos(numpy.pi / SIDE * numpy.outer(numpy.arange(KEPT), numpy.arange(SIDE) + 0.5))


class PerceptualHash:
    """64 bits of each of the frames at 0.1, 0.5 and 0.9 of a shot in hex, one after the other; of a picture 64.

    A bit tells whether one of the lowest 8 x 8 frequencies of the frame, 32 x 32 grey pixels, is above the median of
    them (the "pHash"): what is rescaled or compressed keeps it. A frame of one colour has zeros. A shot that has fewer
    than three frames has the hash of those.
    """

    name, columns = "phash", ("phash",)
    key = f"phash {SIDE} {KEPT} {PLAIN} {SHARES}"

    def frames(self, total: int, fps: float) -> list[int]:
        """Those at 0.1, 0.5 and 0.9."""
        return at_shares(total)

    def reduce(self, frame: numpy.ndarray) -> str:
        """The hash of a frame uint8 [H, W, 3]."""
        return hashed(frame)

    def score(self, frames: Sequence[str], fps: float) -> dict[str, float | int | str | None]:
        """{"phash": 16 hex digits a frame}, of reduced frames; None without any."""
        return {"phash": "".join(frames) or None}


def hashed(frame: numpy.ndarray) -> str:
    """The 64 bits of a frame uint8 [H, W, 3], in hex."""
    picture = Image.fromarray(frame).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    grey = numpy.asarray(picture, numpy.float64)
    if grey.std() < PLAIN:
        return PLAIN_HASH
    frequencies = (COSINES @ grey @ COSINES.T).ravel()
    frequencies[0] = numpy.median(frequencies[1:])  # the mean brightness: not how the picture looks
    return numpy.packbits(frequencies > numpy.median(frequencies)).tobytes().hex()


def duplicates(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """(name of a row, name of the one that it repeats), names being `path#shot`, in the order of the rows.

    Rows repeat each other where their hashes differ in 4 bits a frame at most, those of one colour not counted: they
    must be of one colour in both. Of such rows the larger picture stays, of equal ones the sharper (by `sharpness`,
    where both have it), then the first; what is named as repeated always stays itself. Rows without a hash repeat
    nothing, nor do those whose frames all are of one colour: black tells nothing of a shot. Pictures are compared with
    pictures, and shots with shots: a still of a clip teaches something else than the clip does. A part cut out of a
    clip is not found.

    Reads all rows once, and keeps of each its name, its size, its sharpness and its hash. Raises ValueError for a hash
    that is none.
    """
    names: list[str] = []
    areas, sharp = array("d"), array("d")  # as objects those of a million rows would be three times as large
    found: dict[int, tuple[array, bytearray]] = {}  # by the length of a hash: of which rows, and their hashes
    for number, row in enumerate(rows):
        names.append(f"{row['path']}#{row['shot']}")
        areas.append((row.get("height") or 0) * (row.get("width") or 0))
        sharp.append(row.get("sharpness") or 0.0)
        code = str(row.get("phash") or "")
        if code.strip("0"):
            of_rows, hashes = found.setdefault(len(code), (array("q"), bytearray()))
            of_rows.append(number)
            hashes += _bytes(names[-1], code)
    repeats = {}
    for of_rows, hashes in found.values():
        numbers = numpy.array(of_rows)
        codes = numpy.frombuffer(hashes, numpy.uint8).reshape(len(numbers), -1)
        order = numpy.lexsort((numbers, -numpy.array(sharp)[numbers], -numpy.array(areas)[numbers]))  # how they stay
        for one, kept in _repeats(codes[order]).items():
            repeats[numbers[order[one]]] = numbers[order[kept]]
    for number in sorted(repeats):
        yield names[number], names[repeats[number]]


def _bytes(name, code):
    try:
        if len(code) % DIGITS == 0:
            return bytes.fromhex(code)
    except ValueError:
        pass
    raise ValueError(f"{name}: phash is {code!r}; it must be {DIGITS} hex digits a frame, as `prepare` writes them")


def _repeats(codes):
    """{index: index of the one that it repeats}, of codes uint8 [N, B] in the order in which they are to stay."""
    _, first, which = numpy.unique(codes, axis=0, return_index=True, return_inverse=True)
    before = {}  # index: those before it that it is near to
    for one, other in _pairs(codes[first]):
        one, other = sorted((first[one], first[other]))
        before.setdefault(other, []).append(one)
    found = {}
    for index in sorted(before):
        kept = [one for one in before[index] if one not in found]
        if kept:
            found[index] = min(kept)
    same = first[which.ravel()]
    for index in numpy.flatnonzero(same != numpy.arange(len(codes))):
        found[index] = found.get(same[index], same[index])
    return found


def _pairs(codes):
    """Pairs of rows of `codes`, all different, that are near each other.

    The bits are cut into one band more than may differ: two such codes agree in one band at least, so only those that
    share a band are compared. In the order of a band they lie side by side: each is compared with its next, its next
    but one, and so on, as long as the band is the same.
    """
    most = NEAR * codes.reshape(len(codes), -1, DIGITS // 2).any(-1).sum(1)  # by the frames that are not plain
    found = set()
    for band in numpy.array_split(numpy.arange(8 * codes.shape[1]), most.max() + 1):
        begin, end = band[0] // 8, band[-1] // 8 + 1  # bytes of the band
        bits = numpy.unpackbits(codes[:, begin:end], axis=1)[:, band - 8 * begin]
        keys = bits @ (1 << numpy.arange(len(band), dtype=numpy.int64))
        order = numpy.argsort(keys, kind="stable")
        keys, first, distance = keys[order], numpy.arange(len(keys)), 0
        while len(first):
            distance += 1
            first = first[: numpy.searchsorted(first, len(keys) - distance)]
            first = first[keys[first] == keys[first + distance]]
            one, other = order[first], order[first + distance]
            near = ONES[codes[one] ^ codes[other]].sum(1) <= most[one]
            found.update(zip(one[near].tolist(), other[near].tolist()))
    return found
