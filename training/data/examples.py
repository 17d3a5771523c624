"""A data set as training sees it: clips with their shapes, encoded once into the cache, and read from there."""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy
from torch import Tensor

from ...model.frames import IMAGE_FPS
from .batches import Shape, Shapes, epoch
from .cache import Cache, Cut, EncodesText, EncodesVideo
from .dataset import Clip
from .draws import number_of
from .packing import grid_of, padded_tokens


@dataclass(frozen=True)
class Example:
    """An encoded clip: latents [C, T, h, w]; a lone image's encodings where there are any; its caption; its sizes."""

    identity: str
    latents: Tensor
    stills: Tensor
    has_still: Tensor
    features: Tensor
    mask: Tensor
    sizes: dict[str, float]


class Examples:
    """Clips in their shapes, with the cache that holds what they encode to.

    Args:
        clips: the clips that are trained on.
        shapes: which shape each is brought to.
        cache: where encodings are; `prepare` fills it.
        windows: how many stretches of a clip that is longer than its shape are cached; an epoch draws one.
        seed: of all that is drawn.
    """

    def __init__(self, clips: Sequence[Clip], shapes: Shapes, cache: Cache, *, windows: int = 1, seed: int = 0) -> None:
        self.clips, self.shapes, self.cache, self.windows, self.seed = list(clips), shapes, cache, windows, seed
        self.encoder_keys = ("", "")

    def __len__(self) -> int:
        return len(self.clips)

    @cached_property
    def identities(self) -> list[str]:
        """What draws follow from: content and place in the file, so neither order nor path of the clips matters."""
        return [f"{clip.key}:{clip.start}" for clip in self.clips]

    @property
    def fingerprint(self) -> str:
        """Of clips and captions together, for what is trained on them to remember."""
        rows = sorted(f"{name}:{clip.caption}" for name, clip in zip(self.identities, self.clips))
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]

    def shape(self, index: int, number: int) -> Shape:
        """The shape of a clip in epoch `number`."""
        clip = self.clips[index]
        return self.shapes.assign(clip.frames, clip.height, clip.width, self._draws(index, number, "shape"))

    def _draws(self, index, number, what) -> Callable[[int], float]:
        key = number_of(f"{self.identities[index]}:{what}")
        return lambda place: float(numpy.random.default_rng((self.seed, number, key, place)).random())

    def cuts(self, index: int, shape: Shape) -> list[Cut]:
        """The stretches of a clip that are cached in a shape: one, or `windows` of them spread over the clip."""
        clip, interval = self.clips[index], self.shapes.interval
        room = clip.frames - (shape.frames - 1) * interval - 1
        count = min(self.windows, room + 1) if room > 0 else 1
        starts = [room // 2] if count == 1 else [round(room * place / (count - 1)) for place in range(count)]
        frames = [tuple(range(start, start + (shape.frames - 1) * interval + 1, interval)) for start in starts]
        return [Cut(each, shape.height, shape.width) for each in frames]

    def wanted(self) -> Iterator[tuple[Clip, Cut]]:
        """Everything that any epoch may read."""
        for index, clip in enumerate(self.clips):
            for shape in self.shapes.shapes(clip.frames, clip.height, clip.width):
                for cut in self.cuts(index, shape):
                    yield clip, cut

    def prepare(
        self,
        encoder: EncodesVideo,
        reader: EncodesText,
        progress: Callable[[int, int, str], None] = lambda done, total, name: None,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        """Encode what the cache does not hold yet; `progress` is told (done, of so many, the clip's path).

        Of `ranks` processes each encodes its share.
        """
        self.encoder_keys = (encoder.key, reader.key)
        wanted = list(self.wanted())[rank::ranks]
        for done, (clip, cut) in enumerate(wanted):
            progress(done, len(wanted), clip.path)
            self.cache.latents(clip, cut, encoder)
            self.cache.text(clip.caption, reader)
        progress(len(wanted), len(wanted), "")

    @cached_property
    def _order(self) -> list[int]:
        """The clips by what they are, so that the order in which they came is nothing to an epoch."""
        return sorted(range(len(self)), key=lambda index: (self.identities[index], self.clips[index].caption))

    def steps(self, number: int, **options: Any) -> list[list[list[list[int]]]]:
        """The steps of an epoch: see `batches.epoch`, whose `ranks`, `accumulate` and `budget` are the options."""
        found = self._steps([self.shape(index, number) for index in self._order], number, **options)
        return [[[[self._order[place] for place in part] for part in batch] for batch in step] for step in found]

    def _steps(self, shapes, number, **options):
        return epoch(shapes, self.shapes.counting, seed=self.seed, number=number, way=self.shapes.way, **options)

    def largest(self, budget: int = 0) -> list[tuple[int, Shape]]:
        """What a process may have to compute at once at most, in any epoch: clips, each with its shape there."""
        every = [
            (index, shape)
            for index, clip in enumerate(self.clips)
            for shape in self.shapes.shapes(clip.frames, clip.height, clip.width)
        ]
        shapes = [shape for _, shape in every]
        grids = [grid_of(shape.frames, shape.height, shape.width, self.shapes.counting) for shape in shapes]

        def tokens(part: list[int]) -> int:
            of = [grids[place] for place in part]
            return padded_tokens(of) if self.shapes.way == "padding" else sum(map(math.prod, of))

        parts = [part for step in self._steps(shapes, 0, budget=budget) for batch in step for part in batch]
        return [every[place] for place in max(parts, key=tokens)]

    def read(self, index: int, number: int) -> Example:
        """What a clip is in epoch `number`."""
        shape = self.shape(index, number)
        cuts = self.cuts(index, shape)
        cut = cuts[int(self._draws(index, number, "window")(0) * len(cuts))]
        return self.read_cut(index, cut)

    def read_cut(self, index: int, cut: Cut) -> Example:
        """What a stretch of a clip encodes to."""
        clip = self.clips[index]
        stored = self.cache.read_latents(clip, cut, self.encoder_keys[0])
        text = self.cache.read_text(clip.caption, self.encoder_keys[1])
        count = len(cut.frames)
        fps = IMAGE_FPS if count == 1 else clip.fps / self.shapes.interval
        sizes = {"fps": fps, "height": float(cut.height), "width": float(cut.width), "num_frames": float(count)}
        return Example(
            self.identities[index], stored["latents"].float(), stored["stills"].float(), stored["has_still"],
            text["features"].float(), text["mask"], sizes,
        )  # fmt: skip

    def middle(self, index: int) -> Example:
        """A clip as validation looks at it: in its first shape, from the middle."""
        clip = self.clips[index]
        shape = self.shapes.shapes(clip.frames, clip.height, clip.width)[0]
        cuts = self.cuts(index, shape)
        return self.read_cut(index, cuts[len(cuts) // 2])


def split_by_source(clips: Sequence[Clip], share: float, seed: int = 0) -> tuple[list[Clip], list[Clip]]:
    """(training, validation): about `share` of the source files are held back, each with all that is of it.

    Of fewer than four files none is held back: there every clip is needed.
    """
    sources = sorted({clip.source for clip in clips})
    if share <= 0 or len(sources) < 4:
        return list(clips), []

    def place(source: str) -> int:
        return number_of(f"{seed}:{Path(source).name}", 64)

    held = set(sorted(sources, key=place)[: max(1, round(share * len(sources)))])
    return [clip for clip in clips if clip.source not in held], [clip for clip in clips if clip.source in held]
