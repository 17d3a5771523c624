"""Which shape each clip is trained in, so that nothing is lost, and the steps of an epoch.

Three ways (Open-Sora's buckets; padding; Dehghani et al. 2023 for packing): "buckets" bring clips to the nearest of a
few sizes and lengths, and only like ones share a batch; "padding" and "packing" leave each its own ratio. Unlike the
original's plan (`buckets.plan`) no clip is left out: what fills no batch makes a smaller one, what is small goes to the
smallest resolution, what is short takes the longest length that it has.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from ...model.frames import Counting
from . import aspect_ratios
from .buckets import LEAST_AREA
from .packing import grid_of, near_shapes, packs

WAYS = ("buckets", "padding", "packing")
MULTIPLE = 16  # pixels of a side: a patch of 2 latents of 8 pixels
CUSTOM = re.compile(r"(\d+)x(\d+)")


@dataclass(frozen=True)
class Shape:
    """What a clip is brought to: `frames` of `height` x `width` pixels; `resolution` and `batch_size` of its bucket."""

    frames: int
    height: int
    width: int
    resolution: str
    batch_size: int
    note: str = ""  # what an artist should know of it: "short: 34 of 51 frames"

    @property
    def name(self) -> str:
        """As a bucket is called in reports: "240p · 17 frames · 426x240"."""
        length = "image" if self.frames == 1 else f"{self.frames} frames"
        return f"{self.resolution} · {length} · {self.width}x{self.height}"


class Shapes:
    """The shapes of a configuration `{resolution: {frames: batch size or (keep probability, batch size)}}`.

    Args:
        config: resolutions by the names of `aspect_ratios`, or "HEIGHTxWIDTH" in pixels for one of one's own.
        counting: how the VAE counts frames; lengths must be such that it represents exactly.
        way: one of WAYS; but for "buckets" clips keep their ratio, and resolutions bound their area.
        version: whose tables of sizes. interval: of the frames of a clip every how manieth is taken.

    Raises ValueError for an unknown resolution or way, a length that the VAE does not represent, a batch size below 1,
    and probabilities outside 0…1.
    """

    def __init__(
        self,
        config: Mapping[str, Mapping[Any, Any]],
        counting: Counting,
        way: str = "buckets",
        version: str = "1.2",
        interval: int = 1,
    ) -> None:
        if way not in WAYS:
            raise ValueError(f"way is {way!r}; it must be one of {', '.join(WAYS)}; the usual one is buckets")
        if not config or not all(config.values()):
            raise ValueError("buckets is empty; it must name a resolution and a length, such as {240p: {17: 1}}")
        for name, lengths in config.items():
            if not isinstance(lengths, Mapping):
                raise ValueError(f"buckets: {name} has {lengths!r}; it must have lengths in frames, such as {{17: 1}}")
        config = {str(name): lengths for name, lengths in config.items()}  # YAML reads 256 as a number
        self.counting, self.way, self.interval = counting, way, interval
        self.version = version if version in aspect_ratios.VERSIONS else "1.2"
        self.areas = {name: self._area(name) for name in config}
        self.resolutions = sorted(config, key=lambda name: self.areas[name], reverse=True)
        self.lengths = {
            name: {
                int(frames): _entry(name, frames, entry) for frames, entry in sorted(config[name].items(), key=_first)
            }
            for name in self.resolutions
        }
        for name, lengths in self.lengths.items():
            for frames in lengths:
                _refuse_length(name, frames, counting)

    def shapes(self, frames: int, height: int, width: int) -> list[Shape]:
        """Every shape that a clip may be trained in, by keep probabilities above 0: the largest first, one at least."""
        choices, found = self._choices(frames, height, width), []
        for chance, shape in choices:
            found += [shape] if chance > 0 else []
            if chance >= 1:  # nothing goes past it
                break
        return found or [choices[-1][1]]

    def assign(self, frames: int, height: int, width: int, draw: Callable[[int], float] = lambda index: 0.0) -> Shape:
        """The shape of a clip of so many frames of height x width pixels.

        `draw` gives a number in 0…1 for the index of a resolution, to be held against its keep probability.
        """
        choices = self._choices(frames, height, width)
        for index, (chance, shape) in enumerate(choices):
            if draw(index) < chance:
                return shape
        return self.shapes(frames, height, width)[-1]

    def _choices(self, frames, height, width):
        """[(keep probability, Shape)] of the resolutions that the clip fills, or of the smallest alone."""
        filled = [name for name in self.resolutions if height * width >= LEAST_AREA * self.areas[name]]
        return [self._of(name, frames, height, width) for name in filled or self.resolutions[-1:]]

    def _of(self, name, frames, height, width):
        lengths, notes = self.lengths[name], []
        usable = -(-frames // self.interval)
        fitting = [length for length in lengths if length <= usable and (length > 1) == (frames > 1)]
        if fitting and self.way != "buckets":  # any length up to the longest
            fitting.append(self.counting.nearest(min(usable, max(lengths)))[0])
            lengths = {**lengths, max(fitting): lengths[max(set(fitting) & set(lengths))]}
        if fitting:
            length = max(fitting)
            chance, batch = lengths[length]
        else:
            videos = [known for known in lengths if known > 1]
            length = self.counting.nearest(usable)[0] if videos else 1
            chance, batch = lengths[min(videos or lengths)]  # of what is shorter no more fit into memory
            if frames > 1 and not videos:
                notes.append(f"only images are asked for: one of its {frames} frames")
            elif frames > 1:
                notes.append(
                    f"short: {length} of its {frames} frames" if length > 1 else "too short for motion: a still"
                )
        size = self._size(name, height, width)
        growth = max(size[0] / height, size[1] / width)
        if growth > 1.05:
            notes.append(f"small: enlarged {growth:.1f} times")
        return chance, Shape(length, *size, name, batch, "; ".join(notes))

    def _size(self, name, height, width):
        if self.way == "buckets":
            table = _sizes(name, self.version)
            return table[min(table, key=lambda ratio: abs(float(ratio) - height / width))]
        side = math.sqrt(min(1.0, self.areas[name] / (height * width)))
        return tuple(max(MULTIPLE, round(length * side / MULTIPLE) * MULTIPLE) for length in (height, width))

    def _area(self, name):
        custom = CUSTOM.fullmatch(name)
        if custom and min(int(custom[1]), int(custom[2])) < MULTIPLE:
            near = "x".join(str(max(MULTIPLE, int(side))) for side in custom.groups())
            raise ValueError(f"buckets: the size is {name}; a side must have {MULTIPLE} pixels, the nearest is {near}")
        return int(custom[1]) * int(custom[2]) if custom else aspect_ratios.area(name, self.version)


def _first(item):
    if isinstance(item[0], bool) or not str(item[0]).isdigit() or int(item[0]) < 1:
        raise ValueError(f"buckets: a length is {item[0]!r}; it must be a whole number of frames, the nearest is 1")
    return int(item[0])


def _entry(name, frames, entry):
    """(keep probability, batch size); of an original's pair of probabilities the one that decides on the resolution."""
    pair = entry if isinstance(entry, (tuple, list)) else (1.0, entry)
    chance, batch = pair if len(pair) == 2 else (None, None)
    chance = chance[0] if isinstance(chance, (tuple, list)) and chance else chance
    if isinstance(chance, bool) or not isinstance(chance, (int, float)):
        raise ValueError(
            f"buckets: {name}, {frames} frames, has {entry!r}; it must be a batch size, or [keep probability, batch "
            "size], such as [0.5, 4]"
        )
    if not 0 <= chance <= 1:
        raise ValueError(
            f"buckets: the keep probability of {name}, {frames} frames, is {chance:g}; it must be within 0 … 1, the "
            f"nearest is {int(chance > 1)}"
        )
    if chance and (isinstance(batch, bool) or not isinstance(batch, int) or batch < 1):
        raise ValueError(f"buckets: the batch size of {name}, {frames} frames, is {batch}; it must be 1 at least")
    return float(chance), batch or 1


def _refuse_length(name, frames, counting):
    if counting.nearest(frames) != (frames,):
        near = " or ".join(map(str, counting.nearest(frames)))
        raise ValueError(
            f"buckets: {name} asks for {frames} frames, which this VAE does not represent exactly; the nearest are "
            f"{near}"
        )


def _sizes(name, version):
    """{height / width as text: (height, width)}: a table of the original's, or one made for an area of one's own."""
    custom = CUSTOM.fullmatch(name)
    if not custom:
        return aspect_ratios.sizes(name, version)
    own = int(custom[1]), int(custom[2])
    table = {f"{own[0] / own[1]:.4f}": own}
    for ratio in aspect_ratios.VIDEO_RATIOS:
        height = math.sqrt(own[0] * own[1] * float(ratio))
        size = tuple(max(MULTIPLE, round(side / MULTIPLE) * MULTIPLE) for side in (height, height / float(ratio)))
        if size not in table.values():
            table[f"{size[0] / size[1]:.4f}"] = size
    return table


def epoch(
    shapes: Sequence[Shape],
    counting: Counting,
    *,
    seed: int,
    number: int,
    way: str = "buckets",
    ranks: int = 1,
    accumulate: int = 1,
    budget: int = 0,
) -> list[list[list[list[int]]]]:
    """The steps of epoch `number`: each a list of batches, each with what every process takes of it.

    That is for each of `ranks` processes a list of samples by their place in `shapes`, perhaps an empty one; every
    sample stands in exactly one. A step has `accumulate` batches, of any shapes; the order follows from (seed, number)
    alone. "padding" and "packing" fill what a process takes up to `budget` tokens; 0 means those of the bucket that has
    most.
    """
    rng = numpy.random.default_rng((seed, number))
    order = rng.permutation(len(shapes)).tolist()
    if way == "buckets":
        batches = _by_shape(shapes, order, ranks)
    else:
        grids = [grid_of(shape.frames, shape.height, shape.width, counting) for shape in shapes]
        tokens = [math.prod(grid) for grid in grids]
        room = budget or max(count * shape.batch_size for count, shape in zip(tokens, shapes))
        found = packs(tokens, room, order) if way == "packing" else near_shapes(grids, len(shapes), order, budget=room)
        found += [[]] * (-len(found) % ranks)
        batches = [found[start : start + ranks] for start in range(0, len(found), ranks)]
    batches = [batches[index] for index in rng.permutation(len(batches)).tolist()]
    return [batches[start : start + accumulate] for start in range(0, len(batches), accumulate)]


def _by_shape(shapes, order, ranks):
    groups = {}
    for sample in order:
        shape = shapes[sample]
        groups.setdefault((shape.frames, shape.height, shape.width), []).append(sample)
    found = []
    for samples in groups.values():
        size = ranks * min(shapes[sample].batch_size for sample in samples)
        for start in range(0, len(samples), size):
            batch = samples[start : start + size]
            found.append([batch[rank::ranks] for rank in range(ranks)])
    return found
