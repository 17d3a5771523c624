"""Shots as files of their own, for those who need them: as Open-Sora 1.1 cut its footage. A manifest needs none."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy
from PIL import Image

from .. import h264, media
from . import manifest

SECONDS = (2.0, 15.0)  # the shortest shot that is written, and what is written of longer ones
FPS = 30.0
SHORT_SIDE = 720  # pixels at most
LONGEST_NAME = 255  # bytes of a file's name, almost everywhere
AT_ONCE = 1 << 29  # bytes of frames that are read at once


def write_clip(
    row: Mapping[str, Any],
    folder: str | Path,
    root: str | Path = "",
    *,
    seconds: tuple[float, float] = SECONDS,
    fps: float = FPS,
    short_side: int = SHORT_SIDE,
) -> Path | None:
    """Write the shot of a manifest's row into `folder`, without sound: the file, or None for a shot that is too short.

    Args:
        row: path, shot, start, num_frames, height, width and fps are read.
        folder: where it is written, in the folders that `path` names, as `clip_name`.
        root: the manifest's folder, which `path` is seen from.
        seconds: the least that a shot must have, and the most that is written of it.
        fps: of the file; each of its frames is the one that the shot shows at that time.
        short_side: pixels at most; larger frames are brought down, smaller ones stay.

    Raises ValueError for settings out of range, and for a source that cannot be read any more.
    """
    least, most = seconds
    if not 0 <= least <= most or most <= 0:
        raise ValueError(f"seconds are {least} … {most}; the first must be 0 or more, the second no less than it")
    if short_side < 2:
        raise ValueError(f"short_side is {short_side}; it must be 2 pixels or more")
    if not row["fps"]:
        raise ValueError("its fps is missing; prepare it again")
    length = row["num_frames"] / row["fps"]
    if row["num_frames"] < 2 or length < least:
        return None
    indices = shown_at(row["num_frames"], row["fps"], fps, most)
    path = Path(row["path"])
    size = 3 * (row["height"] or 1080) * (row["width"] or 1920)
    frames = _frames(Path(root) / path, [(row["start"] or 0) + index for index in indices], size)
    target = Path(folder) / ("" if path.is_absolute() else path.parent) / clip_name(path.name, row["shot"] or 0)
    return h264.write_frames(target, (brought_down(frame, short_side) for frame in frames), fps)


def write_clips(path: str | Path, folder: str | Path, say: Callable[[str], None] = lambda name: None) -> Path:
    """Write every shot that a manifest keeps, as `write_clip`, and a manifest of the files; returns that one's path.

    Its rows are those of the shots, now of whole files. Shots that are not written, also those whose source cannot be
    read any more, are not kept there, with the reason. `say` is told the name of every file. Raises ValueError where
    nothing can be written.
    """
    path, target = Path(path), Path(folder) / f"manifest{Path(path).suffix}"

    def written() -> Iterator[manifest.Row]:
        for row in manifest.rows(path):
            if not row["kept"]:
                continue
            why = "it is a picture" if row["num_frames"] == 1 else f"it lasts less than {SECONDS[0]:g} s"
            try:
                file = write_clip(row, folder, path.parent)
            except ValueError as error:
                file, why = None, str(error).removeprefix(f"{manifest.file_of(row, path)}: ")
            if file is None:
                source = manifest.path_in(manifest.file_of(row, path), target)
                yield {**row, "path": source, "kept": False, "reason": why}
                continue
            say(file.name)
            frames, height, width, fps = media.probe(file)
            size = {"height": height, "width": width, "aspect_ratio": height / width, "resolution": height * width}
            name = manifest.path_in(file, target)
            yield {**row, **size, "path": name, "shot": 0, "start": 0, "num_frames": frames, "fps": fps}

    return manifest.write(target, written())


def clip_name(name: str, shot: int) -> str:
    """`{file}_scene-{i}.mp4`, as the original's; what is no .mp4 keeps its ending, so that no name comes twice.

    Of a name that would be too long for a file the end is its digest.
    """
    stem, ending = name.removesuffix(".mp4"), f"_scene-{shot}.mp4"
    content = stem.encode(errors="replace")
    if len(content) + len(ending) > LONGEST_NAME:
        digest = hashlib.blake2b(content, digest_size=8).hexdigest()
        stem = content[: LONGEST_NAME - len(ending) - len(digest)].decode(errors="ignore") + digest
    return f"{stem}{ending}"


def shown_at(frames: int, fps: float, target: float, seconds: float) -> list[int]:
    """The frame that a shot of so many `frames` at `fps` shows at each frame of `target` a second, up to `seconds`."""
    count = max(1, int(min(frames / fps, seconds) * target + 1e-6))
    return [min(int(number * fps / target + 1e-6), frames - 1) for number in range(count)]


def brought_down(frame: numpy.ndarray, short_side: int) -> numpy.ndarray:
    """A frame uint8 [H, W, 3] with at most `short_side` pixels on its shorter side; even sides where it is scaled."""
    H, W = frame.shape[:2]
    scale = short_side / min(H, W)
    if scale >= 1:
        return frame
    width, height = (2 * round(length * scale / 2) for length in (W, H))
    return numpy.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))


def _frames(path: Path, indices: list[int], size: int) -> Iterator[numpy.ndarray]:
    """The frames with these numbers, in order, a few of them held at once; `size` is a frame's, in bytes."""
    several = max(1, AT_ONCE // max(1, size))
    for start in range(0, len(indices), several):
        yield from media.read(path, indices[start : start + several]).movedim(1, -1).numpy()
