"""Clips written as H.264."""

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy
from torch import Tensor

from ...model.whole_files import write_whole
from .media import LARGEST_RATE

QUALITY = {"crf": "14", "preset": "medium"}  # of x264: not to be told from the original


def write(path: str | os.PathLike, frames: Tensor | numpy.ndarray, fps: float) -> Path:
    """Write uint8 frames [T, H, W, 3] as an H.264 video (mp4, yuv420p); returns its path.

    An odd last row or column is shown twice: the format halves its colours. Raises ValueError for other frames, and
    for a rate that is none.
    """
    frames = numpy.asarray(frames)
    if frames.dtype != numpy.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise ValueError(f"frames are {frames.dtype} {list(frames.shape)}; they must be uint8 [T, H, W, 3]")
    return write_frames(path, iter(frames), fps)


def write_frames(path: str | os.PathLike, frames: Iterator[numpy.ndarray], fps: float) -> Path:
    """As `write`, of frames [H, W, 3] that come one by one, all of one size, at least one; one at a time is held."""
    if not 0 < fps <= LARGEST_RATE:
        raise ValueError(f"fps is {fps}; it must be above 0, and at most {LARGEST_RATE}")
    return write_whole(path, lambda file: _encode(file, frames, fps), durable=False)


def _encode(path, frames, fps):
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=QUALITY)
        stream.pix_fmt = "yuv420p"
        for number, frame in enumerate(frames):
            frame = numpy.pad(frame, [*((0, side % 2) for side in frame.shape[:2]), (0, 0)], mode="edge")
            if number == 0:
                stream.height, stream.width = frame.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
