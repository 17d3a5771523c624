"""Buckets: clips of like resolution, length and ratio make a batch, so that one network learns from all shapes.

As Open-Sora 1.1 to 1.3 do it (https://github.com/hpcaitech/Open-Sora, datasets/bucket.py and sampler.py), quirks
included: this is what the published configurations mean.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import torch

from . import aspect_ratios

LEAST_AREA = 0.8  # of a resolution's, for a clip to enter it


class Buckets:
    """The buckets of a configuration `{resolution: {frames: (keep probability, batch size)}}`, as published.

    A bucket is (resolution, frames, ratio), the ratio of height to width as the original's text. A keep probability
    may be a pair (p, p_t) from 1.2 on: a length is skipped with 1 - p_t, a resolution with 1 - p. `len()` counts
    buckets, ratios included. Raises ValueError for a version that is none, a resolution that it does not have, a
    length or batch size below 1, and a probability outside 0…1.
    """

    def __init__(self, config: Mapping[str, Mapping[Any, tuple[Any, int]]], version: str = "1.2") -> None:
        self.version = version
        largest_first = sorted(config, key=lambda name: aspect_ratios.area(name, version), reverse=True)
        self.config = {
            name: {int(frames): entry for frames, entry in sorted(config[name].items(), key=_frames, reverse=True)}
            for name in largest_first
        }
        every = [(name, frames) for name in self.config for frames in self.config[name]]
        self.index = {bucket: number for number, bucket in enumerate(every)}
        for name, frames in every:
            _check(f"{name}, {frames} frames", frames, *self.config[name][frames])

    def __len__(self):
        return sum(len(aspect_ratios.sizes(name, self.version)) for name, _ in self.index)

    def assign(
        self, frames: int, height: int, width: int, frame_interval: int = 1, seed: int = 0
    ) -> tuple[str, int, str] | None:
        """The bucket of a clip of so many frames, and of height x width pixels; None where none takes it.

        The largest resolution takes it that it fills to 80 % and whose draw against the keep probability comes up,
        there the longest length that the clip is longer than. Draws are a function of `seed` alone.
        """
        for name in self.config:
            if height * width < LEAST_AREA * aspect_ratios.area(name, self.version):
                continue
            length = self._image(name, seed) if frames == 1 else self._length(name, frames, frame_interval, seed)
            if length is not None:
                return name, length, aspect_ratios.nearest_ratio(height, width, name, self.version)
        return None

    def _draws(self, name, length, seed):
        return numpy.random.default_rng(seed + self.index[name, length])

    def _image(self, name, seed):
        if 1 not in self.config[name]:
            return None
        probability = _pair(self.config[name][1][0])[0]
        return 1 if self._draws(name, 1, seed).random() < probability else None

    def _length(self, name, frames, frame_interval, seed):
        for length, (probability, _) in self.config[name].items():
            draws = self._draws(name, length, seed)
            keep, *of_length = _pair(probability)
            if of_length and draws.random() > of_length[0]:
                continue
            if length > 1 and frames > length * frame_interval:
                return length if keep >= 1 or draws.random() < keep else None
        return None

    def shape(self, bucket: tuple[str, int, str]) -> tuple[int, int, int]:
        """(frames, height, width) that the clips of a bucket are brought to."""
        name, length, ratio = bucket
        return length, *aspect_ratios.sizes(name, self.version)[ratio]

    def batch_size(self, bucket: tuple[str, int, str]) -> int:
        """Clips of a bucket in a batch."""
        name, length, _ = bucket
        return self.config[name][length][1]


def _check(bucket, frames, probability, batch_size):
    """ValueError for a length, a keep probability or a batch size that is none."""
    if frames < 1:
        raise ValueError(f"bucket {bucket}: a length must be at least 1, the nearest is 1")
    for value in _pair(probability):
        if not 0 <= value <= 1:
            raise ValueError(
                f"the keep probability of {bucket}, is {value:g}; it must be within 0 … 1, the nearest is "
                f"{min(max(value, 0), 1):g}"
            )
    if any(_pair(probability)) and (not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(f"the batch size of {bucket}, is {batch_size}; it must be a whole number from 1 on")


def _frames(item):
    return int(item[0])


def _pair(probability):
    return tuple(probability) if isinstance(probability, (tuple, list)) else (probability,)


def plan(
    samples: Sequence[tuple[int, int, int]],
    buckets: Buckets,
    *,
    seed: int,
    epoch: int,
    ranks: int = 1,
    rank: int = 0,
    frame_interval: int = 1,
    drop_last: bool = True,
    shuffle: bool = True,
    done: int = 0,
) -> list[list[tuple[int, int, int, int]]]:
    """The original's epoch: the batches that one of `ranks` processes sees, in order.

    Args:
        samples: rows (frames, height, width) by id.
        drop_last: leave out what fills no batch of its bucket, the same ids in every epoch; else a bucket's first ids
            are shown again, and a bucket of fewer than half a batch is lost even so.
        done: batches of all ranks together that a run which is resumed has behind it.

    Returns a list of batches of (id, frames, height, width), the bucket's. Ranks train on different buckets in the
    same step. A batch is empty where the original's list of batches was filled up for the ranks.
    """
    generator = torch.Generator().manual_seed(seed + epoch)
    queues, order = {}, []
    for bucket, ids in _by_bucket(samples, buckets, seed + epoch, frame_interval).items():
        size = buckets.batch_size(bucket)
        rest = len(ids) % size
        if rest:
            ids = ids[:-rest] if drop_last else ids + ids[: size - rest]
        if shuffle:
            ids = [ids[index] for index in torch.randperm(len(ids), generator=generator).tolist()]
        queues[bucket] = iter([ids[start : start + size] for start in range(0, len(ids), size)])
        order += [bucket] * (len(ids) // size)
    if shuffle:
        order = [order[index] for index in torch.randperm(len(order), generator=generator).tolist()]
    rest = len(order) % ranks
    if rest:
        order = order[:-rest] if drop_last else order + order[: ranks - rest]
    batches = [[(one, *buckets.shape(bucket)) for one in next(queues[bucket], [])] for bucket in order]
    whole = len(batches) // ranks * ranks
    return batches[done // ranks * ranks + rank : whole : ranks]


def _by_bucket(samples, buckets, seed, frame_interval):
    """Ids by bucket, in order of first appearance."""
    found = {}
    for one, (frames, height, width) in enumerate(samples):
        bucket = buckets.assign(frames, height, width, frame_interval, seed + one * len(buckets))
        if bucket is not None:
            found.setdefault(bucket, []).append(one)
    return found
