"""How much footage a core prepares, stage by stage, as docs/scale.md shows it: python run.py bench footage.

Every clip of FOLDER is decoded, made RGB, cut, and scored by every measure that needs no weights; each stage alone, on
one thread, in CPU seconds. Then the whole of it is prepared by threads and, with --ray, on Ray, in seconds of the
clock.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import av

from ..training.data import media
from ..training.data.footage.cuts.scenes import cutter
from ..training.data.footage.measures.named import measures_named
from ..training.data.footage.prepare import Settings, on_threads, one_thread_each, prepare

MEASURES = ("flow_dis", "quality", "phash", "cmotion")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="bench footage", description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="of clips")
    parser.add_argument("--ray", action="store_true", help="prepare on Ray, too")
    parser.add_argument("--copies", metavar="N", type=int, default=1, help="how often FOLDER is prepared as a whole")
    options = parser.parse_args(arguments)
    clips = sorted(path for path in options.folder.iterdir() if media.is_video(path))
    with one_thread_each():
        print_stages(clips)
    print_engines(clips, options.copies, options.ray)
    return 0


def print_stages(clips: Sequence[Path]) -> None:
    """CPU milliseconds of each stage for a frame, or a shot, clip by clip."""
    cut, measures = cutter(), measures_named(MEASURES)
    columns = ("clip", "frames", "size", "decode", "to RGB", "cut", "shots", *MEASURES)
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for path in clips:
        list(media.chosen(path, [0]))  # libraries are loaded
        _, decoding = timed(decoded, path)
        frames, both = timed(lambda path=path: list(media.frames(path)))
        shots, cutting = timed(cut.shots, iter(frames), media.promised_rate(path))
        per_frame = [1000 * seconds / len(frames) for seconds in (decoding, max(both - decoding, 0), cutting)]
        per_shot = [
            sum(timed(scored, measure, frames[start:end])[1] for start, end in shots) * 1000 / len(shots)
            for measure in measures
        ]
        height, width = frames[0].shape[:2]
        words = [path.name, len(frames), f"{width} × {height}", *(f"{one:.2f}" for one in per_frame), len(shots)]
        print(f"| {' | '.join(map(str, [*words, *(f'{one:.1f}' for one in per_shot)]))} |", flush=True)


def print_engines(clips: Sequence[Path], copies: int, ray: bool) -> None:
    """Seconds of the clock for all clips, each engine on all cores; `copies` of every clip."""
    engines: dict[str, tuple[Callable | None, int | None]] = {
        "one thread": (on_threads, 1),
        "threads": (on_threads, None),
    }
    if ray:
        from ..training.data.footage.on_ray import on_ray

        engines["Ray"] = (on_ray(), None)
    settings = Settings(cutter(), measures_named(MEASURES))
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        raw.mkdir()
        for path in clips:
            for number in range(copies):
                (raw / f"{number} {path.name}").symlink_to(path.absolute())
        for name, (each, workers) in engines.items():
            began, first, used = time.monotonic(), [], time.process_time()
            tell = lambda done, total, name, first=first: first.append(time.monotonic())  # noqa: E731
            prepare(raw, Path(folder) / f"{name}.jsonl", settings, tell, workers, each)
            clock, used = time.monotonic() - began, time.process_time() - used
            print(
                f"{name}: {clock:.1f} s, the first file after {first[0] - began:.1f} s; {used:.1f} CPU seconds in this "
                f"process; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
                flush=True,
            )


def decoded(path: Path) -> int:
    """How many frames a clip has, decoded on one thread and left as they are."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_count = 1
        return sum(1 for _ in container.decode(video=0))


def scored(measure: Any, shot: Sequence[Any]) -> None:
    """Score a shot, all frames of which are there."""
    measure.score([measure.reduce(shot[at]) for at in measure.frames(len(shot), 24)], 24)


def timed(work: Callable, *arguments: Iterable | float) -> tuple[Any, float]:
    """What work returns, and the CPU seconds that it took."""
    began = time.process_time()
    found = work(*arguments)
    return found, time.process_time() - began


if __name__ == "__main__":
    sys.exit(main())
