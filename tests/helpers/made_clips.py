"""Clips made for tests of footage: one for each thing that files can be, or suffer. Small; a fraction of a second each."""

import os
import sys
from pathlib import Path

import av
import numpy
from opensora_comfy.training.data import h264
from PIL import Image
from videos import coded_frames, turned

FPS = 24
CUTS = (30, 56)  # of `hard_cuts`: the frames that begin a shot
DISSOLVE = (72, 96)  # of `dissolve`: the first frame with both pictures, and the first with the second alone
FLASH = 40  # of `flash`: the white frame


def pan(count, seed=0, speed=(1.0, 0.5), height=96, width=160, patch=24):
    """uint8 [count, height, width, 3]: soft patches of this size and seed, which move `speed` pixels (x, y) a frame."""
    reach = [int(abs(part) * count) + 1 for part in speed]
    tall, wide = height + reach[1], width + reach[0]
    coarse = (
        numpy.random.default_rng(seed).integers(0, 256, (tall // patch + 3, wide // patch + 3, 3)).astype(numpy.uint8)
    )
    large = (coarse.shape[1] * patch, coarse.shape[0] * patch)
    texture = numpy.asarray(Image.fromarray(coarse).resize(large, Image.Resampling.BICUBIC))
    start = [reach[axis] if speed[axis] > 0 else 0 for axis in (0, 1)]  # the camera goes where the picture comes from
    frames = numpy.empty((count, height, width, 3), numpy.uint8)
    for number in range(count):
        left, top = (round(start[axis] - speed[axis] * number) for axis in (0, 1))
        frames[number] = texture[top : top + height, left : left + width]
    return frames


def hard_cuts(path):
    """Three shots, which begin at frames 0 and CUTS."""
    return h264.write(path, numpy.concatenate([pan(30, 1), pan(26, 2), pan(34, 3)]), FPS)


def dissolve(path):
    """Two shots of 96 frames, of which the last and the first 24 melt: 168 frames."""
    first, second = pan(96, 1, (0.25, 0), patch=48), pan(96, 2, (0.25, 0), patch=48)
    weight = (numpy.arange(1, 25) / 25)[:, None, None, None]
    both = first[72:] * (1 - weight) + second[:24] * weight
    return h264.write(path, numpy.concatenate([first[:72], both.round().astype(numpy.uint8), second[24:]]), FPS)


def flash(path, length=1):
    """One shot of 90 frames, of which `length` from FLASH on are nearly white."""
    frames = pan(90, 4)
    frames[FLASH : FLASH + length] = 255 - (255 - frames[FLASH : FLASH + length]) // 10
    return h264.write(path, frames, FPS)


def one_frame(path):
    """A video of one frame."""
    return h264.write(path, pan(1), FPS)


def portrait(path):
    """Upright, 160 × 96 (H × W)."""
    return h264.write(path, pan(24, height=160, width=96), FPS)


def rotated(path):
    """As phones write portrait: 96 × 160 in the file, 160 × 96 (H × W) by its display matrix."""
    return turned(h264.write(path, pan(24), FPS), (0, 1, -1, 0))


def variable_rate(path):
    """24 frames, of which the second half is shown half as long each: 16, then 32 a second."""
    times = [*range(0, 12 * 60, 60), *range(12 * 60, 18 * 60, 30)]
    return coded_frames(path, pan(24), times=times, rate=960)


def ten_bit(path):
    """H.264 of 10 bits a colour."""
    return coded_frames(path, pan(24), rate=FPS, pixels="yuv420p10le")


def four_high(path):
    """4 × 160 pixels (H × W)."""
    return h264.write(path, pan(24, height=4), FPS)


def truncated(path):
    """A file of 40 noisy frames that ends after two thirds of its bytes; its header promises all frames."""
    content = _noisy(path, 40).read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    return path


def corrupt(path):
    """A file of which a fifth, in the middle, are other bytes: a decoder may take a few for a picture."""
    content = bytearray(_noisy(path, 30).read_bytes())
    middle, changed = len(content) // 2, len(content) // 5
    content[middle : middle + changed] = (bytes(range(256)) * (changed // 256 + 1))[:changed]
    path.write_bytes(content)
    return path


def zero_length(path):
    """A file without a byte."""
    path.write_bytes(b"")
    return path


def not_a_video(path):
    """Text under a video's name."""
    path.write_bytes(b"no video at all")
    return path


def sound_only(path):
    """Sound without pictures."""
    with av.open(os.fspath(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(numpy.zeros((1, 1024), numpy.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def unreadable_name(path):
    """A sound video whose name is beside `path`'s, and no text: bytes that are not UTF-8, where the system allows them."""
    name = os.fsdecode(b"caf\xe9 \xff #1.mp4") if sys.platform == "linux" else "café \N{SNOWMAN} #1.mp4"
    return h264.write(path, pan(24), FPS).rename(path.with_name(name))


def _noisy(path, count):
    """Waves and noise: frames that do not compress to nothing, so that damage meets one."""
    noise = numpy.random.default_rng(0).normal(0, 8, (count, 120, 160, 3))
    across = numpy.linspace(0, 9, 120)[:, None] + numpy.linspace(0, 6, 160)
    waves = 100 * numpy.sin(across + numpy.arange(count)[:, None, None])[..., None]
    return h264.write(path, (127 + waves + noise).clip(0, 255).astype(numpy.uint8), FPS)


WHOLE = (hard_cuts, dissolve, flash, one_frame, portrait, rotated, variable_rate, ten_bit, four_high, unreadable_name)
BROKEN = (truncated, corrupt, zero_length, not_a_video, sound_only)


def every_kind(folder: Path) -> dict[str, Path]:
    """{function's name: file} of all clips here, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    return {make.__name__: make(folder / f"{make.__name__}.mp4") for make in (*WHOLE, *BROKEN)}
