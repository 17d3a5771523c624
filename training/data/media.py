"""Videos and pictures on disk: what a file holds, and its frames by their number.

Frames are counted and found by decoding (PyAV, Pillow): what a header or a time stamp says of them is often not so.
"""

import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ...model.frames import DEFAULT_FPS, IMAGE_FPS

VIDEOS = tuple(".mp4 .mov .m4v .mkv .webm .avi .gif .mpg .mpeg .ts .m2ts .wmv .flv .ogv .3gp".split())
PICTURES = tuple(".png .jpg .jpeg .webp .bmp .tif .tiff .avif".split())
FAR = 200  # from this frame on a key frame is sought
# A packet of these codecs in these containers is a frame; others hide frames in packets, or packets without one.
FRAME_BY_FRAME = ("h264", "hevc", "prores", "mjpeg", "dnxhd", "ffv1")
EXACT_CONTAINERS = ("mov,", "matroska,")
LARGEST_RATE = 1000  # frames a second; time stamps that claim more are none


class Unreadable(ValueError):
    """A file that cannot be used: its message says the path and the `reason`."""

    def __init__(self, path: str | os.PathLike, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


class Media(NamedTuple):
    """What a file holds: its frames, their size in pixels as they are shown, and frames a second."""

    frames: int
    height: int
    width: int
    fps: float


def probe(path: str | os.PathLike) -> Media:
    """What the video or picture at `path` holds, by decoding all of it; pictures have one frame at IMAGE_FPS.

    Raises ValueError, with the path and the reason, for a file that is damaged, breaks off, or has no frames.
    """
    if is_picture(path):
        picture = _picture(path)
        return Media(1, picture.height, picture.width, IMAGE_FPS)
    counting = _shown(path, bool)  # pixels are not looked at
    while True:
        try:
            next(counting)
        except StopIteration as end:
            return end.value


def frames(path: str | os.PathLike) -> Generator[numpy.ndarray, None, Media]:
    """The frames of a video or picture one by one, upright: uint8 [H, W, 3], RGB.

    The generator's own value, of `yield from`, is what `probe` says. Raises ValueError as `probe`.
    """
    if is_picture(path):
        pixels = numpy.array(_picture(path))
        yield pixels
        return Media(1, pixels.shape[0], pixels.shape[1], IMAGE_FPS)
    return (yield from _shown(path, _pixels))


def chosen(path: str | os.PathLike, numbers: Iterable[int]) -> Iterator[numpy.ndarray]:
    """The frames with these ascending numbers one by one, as `frames`; the others are decoded, and left as they are.

    Raises ValueError as `probe`, and where the file ends before them.
    """
    waiting = sorted(set(numbers))
    if is_picture(path):
        decoded: Iterator[tuple[int, Any]] = iter([(0, lambda: numpy.array(_picture(path)))])
    else:
        decoded = enumerate(_shown(path, lambda frame: lambda: _pixels(frame)))
    for number in waiting:
        pixels = next((pixels for at, pixels in decoded if at == number), None)
        if pixels is None:
            raise Unreadable(path, f"it ends before frame {number}; it has changed since it was looked at")
        yield pixels()


def promised_rate(path: str | os.PathLike) -> float:
    """Frames a second as a video's header has them, without decoding; DEFAULT_FPS where it says nothing sensible.

    `probe` knows better. Raises ValueError, with the path and the reason, for a file that cannot be opened.
    """
    if is_picture(path):
        return IMAGE_FPS
    with _reading(path), _open(path) as container:
        rate = float(container.streams.video[0].average_rate or 0)
    return rate if 0 < rate < LARGEST_RATE else DEFAULT_FPS


def read(path: str | os.PathLike, indices: Sequence[int]) -> Tensor:
    """The frames with these numbers, in this order, of a video or picture: uint8 [T, 3, H, W].

    Number n is the n-th frame that the file shows: it is decoded from its start, or, for frames far into it, from the
    key frame before them where its packets tell their numbers beyond doubt. Raises ValueError as `probe`, and for
    numbers that the file does not have.
    """
    if not len(indices) or min(indices) < 0:
        raise ValueError(f"{path}: indices are {list(indices)}; they must be one number or more, from 0 on")
    wanted = set(indices)
    if is_picture(path):
        found, count = {0: numpy.array(_picture(path))}, 1
    else:
        with _reading(path):
            found, count = (_sought(path, wanted) if min(wanted) >= FAR else None) or _counted(path, wanted)
    if max(wanted) >= count:
        raise ValueError(f"{path}: frame {max(wanted)} is asked for, and it has {count}; the last is {count - 1}")
    return torch.stack([torch.from_numpy(found[number]) for number in indices]).movedim(-1, 1)


def file_key(path: str | os.PathLike) -> str:
    """The sha256 of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def is_picture(path: str | os.PathLike) -> bool:
    """Whether this is a picture by its name."""
    return Path(path).suffix.lower() in PICTURES


def is_video(path: str | os.PathLike) -> bool:
    """Whether this is a video by its name."""
    return Path(path).suffix.lower() in VIDEOS


@contextmanager
def _reading(path):
    """What goes wrong in a decoder, as a ValueError that says the path and the reason."""
    try:
        yield
    except FileNotFoundError as error:
        raise Unreadable(path, "there is no such file") from error
    except (av.FFmpegError, OSError) as error:
        raise Unreadable(path, f"it cannot be read ({error.strerror}); export or download it again") from error


def _open(path):
    container = av.open(str(path), metadata_errors="replace")  # titles of old files are in any encoding
    if not container.streams.video:
        found = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        container.close()
        raise Unreadable(path, f"it has no pictures, only {found}")
    container.streams.video[0].thread_type = "AUTO"
    return container


def _decoded(container: Any, path: Any) -> Iterator[Any]:
    """The frames of a video as they are shown, one by one. ValueError where the file is cut short or damaged."""
    stream, count = container.streams.video[0], 0
    for packet in container.demux(stream):
        if packet.is_corrupt and stream.frames:  # broadcasts without a count of frames have gaps by nature
            raise Unreadable(
                path, f"it breaks off after {count} of {stream.frames} frames; export or download it again"
            )
        for frame in packet.decode():
            if frame.is_corrupt:
                raise Unreadable(path, f"it is damaged after {count} frames; export or download it again")
            count += 1
            yield frame


def _shown(path: Any, view: Callable[[Any], Any]) -> Generator[Any, None, Media]:
    """`view` of every frame of a video; the generator's value is what the file holds. ValueError as `probe`."""
    times: list[float | None] = []
    size: tuple[int, int] | None = None
    with _reading(path), _open(path) as container:
        rate = float(container.streams.video[0].average_rate or 0)
        for frame in _decoded(container, path):
            shown = _shown_size(frame)
            if size is not None and size != shown:
                raise Unreadable(
                    path,
                    f"its frames change size after {len(times)}, from {size[1]}×{size[0]} to "
                    f"{shown[1]}×{shown[0]} pixels; export it again in one size",
                )
            size = shown
            times.append(frame.time)
            yield view(frame)
    if size is None:
        raise Unreadable(path, "it has no frames")
    return Media(len(times), *size, _rate(times, rate))


def _counted(path, wanted):
    """({number: pixels} of the wanted frames, how many were decoded), from the start on."""
    found, count = {}, 0
    with _open(path) as container:
        for number, frame in enumerate(_decoded(container, path)):
            count = number + 1
            if number in wanted:
                found[number] = _pixels(frame)
            if count > max(wanted):
                break
    return found, count


def _sought(path, wanted):
    """As `_counted`, but from the key frame before the wanted ones; None where there is any doubt about numbers.

    Packets carry the time at which their frame is shown. Their order in time numbers the frames, provided that each
    has a time of its own, that the first frame is the first packet's, and that what is decoded follows the same order.
    """
    found, first, last = {}, min(wanted), max(wanted)
    with _open(path) as container:
        stream = container.streams.video[0]
        exact = container.format.name.startswith(EXACT_CONTAINERS)
        if not exact or stream.codec_context.name not in FRAME_BY_FRAME:
            return None
        times = [packet.pts for packet in container.demux(stream) if packet.size and not packet.is_discard]
        if None in times or len(set(times)) < len(times) or last >= len(times):
            return None
        times.sort()
        numbers = {time: number for number, time in enumerate(times)}
        container.seek(times[0], stream=stream)
        if next(container.decode(stream)).pts != times[0]:
            return None
        container.seek(times[first], stream=stream)
        before = None
        for frame in container.decode(stream):
            number = numbers.get(frame.pts)
            if number is None or before not in (None, number - 1) or frame.is_corrupt and number in wanted:
                return None
            before = number
            if number in wanted:
                found[number] = _pixels(frame)
            if number >= last:
                break
    return (found, len(times)) if len(found) == len(wanted) else None


def _picture(path):
    """The picture, upright, in RGB; what is transparent is black."""
    try:
        with Image.open(path) as picture:
            upright = ImageOps.exif_transpose(picture)
    except FileNotFoundError as error:
        raise Unreadable(path, "there is no such file") from error
    except UnidentifiedImageError as error:  # its own words hold the whole path
        raise Unreadable(path, "it is no picture inside; export or download it again") from error
    except Exception as error:  # damaged pictures raise anything, SyntaxError among it
        raise Unreadable(path, f"it cannot be read ({error}); export or download it again") from error
    if upright.mode.startswith("I"):  # 16 bits a pixel, which Pillow would cut off above 255
        values = numpy.asarray(upright)
        upright = Image.fromarray((values / (257 if values.max() > 255 else 1)).round().astype(numpy.uint8))
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", upright.size, (0, 0, 0, 255)), upright).convert("RGB")
    return upright.convert("RGB")


def _turn(frame):
    """How a frame is to be shown: (sides swapped, mirrored top to bottom, mirrored left to right).

    A display matrix maps (x, y) to (a x + c y, b x + d y); cameras write multiples of a right angle.
    """
    side = frame.side_data.get("DISPLAYMATRIX")
    if side is None:
        return False, False, False
    a, b, _, c, d = numpy.frombuffer(bytes(side), dtype=numpy.int32)[:5]
    return (True, b < 0, c < 0) if abs(b) > abs(a) else (False, d < 0, a < 0)


def _shown_size(frame):
    return (frame.width, frame.height) if _turn(frame)[0] else (frame.height, frame.width)


def _pixels(frame):
    """A decoded frame as it is shown: uint8 [H, W, 3]; what is transparent is black."""
    if any(component.is_alpha for component in frame.format.components):
        rgba = frame.to_ndarray(format="rgba").astype(numpy.uint16)
        pixels = ((rgba[..., :3] * rgba[..., 3:] + 127) // 255).astype(numpy.uint8)
    else:
        pixels = frame.to_ndarray(format="rgb24")
    swapped, upside_down, mirrored = _turn(frame)
    pixels = pixels.swapaxes(0, 1) if swapped else pixels
    pixels = pixels[::-1] if upside_down else pixels
    return numpy.ascontiguousarray(pixels[:, ::-1] if mirrored else pixels)


def _rate(times, promised):
    """Frames a second: the file's own word where its time stamps agree to 1 %, else what they say on average."""
    if len(times) == 1:
        return IMAGE_FPS
    known = all(time is not None for time in times)
    length = float(times[-1] - times[0]) if known else 0.0
    measured = (len(times) - 1) / length if length > 0 else 0.0
    if not 0 < measured < LARGEST_RATE:
        return promised if 0 < promised < LARGEST_RATE else DEFAULT_FPS
    return promised if abs(measured - promised) < 0.01 * measured else measured
