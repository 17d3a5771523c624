"""Shots whose movement is known: a window that moves over a picture, and one that closes in on it."""

import numpy
from opensora_comfy.training.data import media
from PIL import Image


def frame_of(path, number=0):
    """uint8 [H, W, 3]: a frame of a clip, or a picture."""
    return media.read(path, [number])[0].movedim(0, -1).contiguous().numpy()


def frames_of(path, indices):
    """A list of uint8 [H, W, 3]."""
    return [*media.read(path, indices).movedim(1, -1).contiguous().numpy()]


def panned(picture, count, right=0.0, down=0.0, height=320, width=576):
    """`count` frames of a window that moves by so many pixels a frame, between pixels too; it stays near the middle."""
    H, W = picture.shape[:2]
    left, top = (W - width - right * (count - 1)) / 2, (H - height - down * (count - 1)) / 2
    assert left >= 0 and top >= 0 and left + right * (count - 1) >= 0 and top + down * (count - 1) >= 0
    return [
        _window(picture, left + right * number, top + down * number, width, height, (width, height))
        for number in range(count)
    ]


def zoomed(picture, count, by, height=320, width=576):
    """`count` frames of a window in the middle that gets smaller by the factor `by` a frame: above 1 closes in."""
    H, W = picture.shape[:2]
    largest = min(W / width, H / height) / max(1, by ** -(count - 1))
    found = []
    for number in range(count):
        w, h = width * largest / by**number, height * largest / by**number
        found.append(_window(picture, (W - w) / 2, (H - h) / 2, w, h, (width, height)))
    return found


def _window(picture, left, top, w, h, size):
    box = (left, top, left + w, top + h)
    return numpy.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR, box=box))


def looked_at(measure, frames, fps=25.0):
    """What a measure says of a shot."""
    return scored(measure, [frames[number] for number in measure.frames(len(frames), fps)], fps)


def scored(measure, frames, fps=25.0):
    """What it says of frames, whichever it would choose."""
    return measure.score([measure.reduce(frame) for frame in frames], fps)
