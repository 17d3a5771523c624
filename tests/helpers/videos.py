"""Small videos and pictures for tests: frames that tell their number, and files that are turned, uneven or broken."""

import os
import struct
from fractions import Fraction

import av
import numpy
from opensora_comfy.training.data import h264

LEVEL = 6  # by which each frame is brighter than the one before


def numbered(count, height=48, width=64):
    """uint8 [count, height, width, 3]: frame n is grey 6 n + 10, with its left upper quarter white."""
    frames = numpy.zeros((count, height, width, 3), numpy.uint8)
    frames[:] = (LEVEL * numpy.arange(count) + 10)[:, None, None, None]
    frames[:, : height // 2, : width // 2] = 255
    return frames


def numbers(clip):
    """The numbers that frames [T, 3, H, W] tell, from their right lower quarter."""
    height, width = clip.shape[-2:]
    levels = clip[:, :, height // 2 + 2 :, width // 2 + 2 :].float().mean((1, 2, 3))
    return ((levels - 10) / LEVEL).round().int().tolist()


def video(path, count=20, height=48, width=64, fps=24):
    """A video of numbered frames at `path`."""
    return h264.write(path, numbered(count, height, width), fps)


def uneven(path, times, rate=1000):
    """A video whose numbered frames are shown at these times, in units of 1 / rate seconds."""
    return coded_frames(path, numbered(len(times)), times, rate)


def coded_frames(path, frames, times=None, rate=24, pixels="yuv420p"):
    """Frames uint8 [T, H, W, 3] as an mp4 of these pixels, shown at `times` in units of 1 / rate seconds (left out: evenly)."""
    with av.open(os.fspath(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "14"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = Fraction(1, rate)
        for time, picture in zip(times or range(len(frames)), frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turned(path, matrix):
    """Give the mp4 at `path` a display matrix (a, b, c, d), as cameras do: x' = a x + c y, y' = b x + d y."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40  # version 0: the header's fields before the matrix are 40 bytes
    a, b, c, d = (value * 65536 for value in matrix)
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path
