"""A folder of footage made a manifest: every file surveyed on all cores, then the whole table written."""

import contextlib
import hashlib
import math
import mimetypes
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .. import media
from ..folders import files_in
from . import manifest as table
from .captions import Captions, with_scores
from .cuts.scenes import Cutter
from .manifest import Row
from .measures.likeness import duplicates
from .measures.named import Measure
from .survey import Notes, is_suspect, read_notes, survey

SHORTEST = 0.5  # seconds of a shot
LOOK = 0.2  # seconds between two looks at whether to go on
# Files that stand beside footage and are none.
BESIDE = (".txt", ".json", ".csv", ".jsonl", ".parquet", ".html", ".md", ".yaml", ".ini", ".db", ".tmp")
Tell = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Settings:
    """How footage is prepared: what cuts it, what scores its shots, and how long a shot must last, in seconds.

    `scores_of`: the generation whose captions carry their scores, which is how captions are then written.
    """

    cutter: Cutter
    measures: Sequence[Measure] = ()
    shortest: float = SHORTEST
    captions: Captions = field(default_factory=Captions)
    scores_of: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.shortest < math.inf:
            raise ValueError(f"shortest is {self.shortest}; it must be 0 seconds, which asks nothing, or more")


class Job(NamedTuple):
    """A file to survey, the name it has in the manifest (what of it is no text is escaped), and where its notes are."""

    file: Path
    name: str
    notes: Path


def prepare(
    folder: str | os.PathLike,
    manifest: str | os.PathLike,
    settings: Settings,
    tell: Tell = lambda done, total, name: None,
    workers: int | None = None,
    each: Callable[..., Iterable[Job]] | None = None,
) -> Path:
    """Survey every file in `folder`, and the folders in it, and write the manifest; returns its path.

    What an earlier run with the same manifest has done is not done again. An exception out of `tell`, such as an
    interrupt, ends the work after the shots that are under way; what is done stays noted.

    Args:
        tell: told after every file: how many are done, of how many, and its name.
        workers: files at once; left out, as many as there are cores.
        each: what does the jobs instead, such as `on_ray.each`; as `on_threads`.

    Raises ValueError for a folder that is none or holds no footage, for less than one worker, and where nothing can be
    written.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}; it must be 1 or more; left out, it is as many as there are cores")
    jobs = Jobs(Path(folder), Path(manifest))
    for done, job in enumerate((each or on_threads)(jobs, settings, workers), start=1):
        tell(done, len(jobs), job.name)
    return table.write(manifest, rows(jobs, settings))


class Jobs:
    """The files of a folder that may be footage, by name; hidden ones, and those of BESIDE, are not.

    A million of them are held as their names. Raises ValueError for a folder that is none or has nothing in it, and for
    a manifest that is no table by its name.
    """

    def __init__(self, folder: Path, manifest: Path) -> None:
        table.tables.check_kind(manifest)
        if not os.path.isdir(folder):
            raise ValueError(f"folder is {str(folder)!r}, and there is no such folder; it must be a folder of footage")
        self.folder, self.manifest, own = folder, manifest, notes_folder(manifest)
        found = (path for path in files_in(folder, own) if path.suffix.lower() not in BESIDE)
        self.names = [path.relative_to(folder).as_posix() for path in found]
        if not self.names:
            kinds = " ".join(media.VIDEOS + media.PICTURES)
            raise ValueError(f"folder is {str(folder)!r}, and it has no videos or pictures ({kinds}); put some there")

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Job]:
        for name in self.names:
            place = hashlib.blake2b(os.fsencode(name), digest_size=16).hexdigest()
            notes = notes_folder(self.manifest) / place[:2] / f"{place}.jsonl"
            path = table.path_in(self.folder / name, self.manifest)
            yield Job(self.folder / name, path.encode(errors="backslashreplace").decode(), notes)


def notes_folder(manifest: Path) -> Path:
    """Where the notes of a manifest's files are."""
    return manifest.with_name(f"{manifest.name}.notes")


def do(job: Job, settings: Settings, go_on: Callable[[], None] = lambda: None) -> Job:
    """Survey the file of a job; returns the job. What does not look like footage is left alone."""
    if not refusal(job.file):
        survey(job.file, job.notes, settings.cutter, settings.measures, go_on)
    return job


def on_threads(
    jobs: Iterable[Job], settings: Settings, workers: int | None = None, look: Callable[[], None] = lambda: None
) -> Iterator[Job]:
    """Do the jobs, several at once, and yield each as it is done.

    Decoders, OpenCV and PyTorch leave Python free while they work, so that threads fill all cores; the threads that the
    latter two would start by themselves only get in each other's way. A file that may be what ended the program before
    is done at the end, alone. `look` is called several times a second meanwhile; what it raises ends the work, as what
    `tell` of `prepare` raises.
    """
    stopped = threading.Event()

    def go_on() -> None:
        if stopped.is_set():
            raise _Stopped

    workers = workers or os.cpu_count() or 1
    with one_thread_each(), ThreadPoolExecutor(workers) as pool:
        running: set[Future[Job]] = set()

        def some_done() -> list[Job]:
            nonlocal running
            look()
            finished, running = wait(running, LOOK, FIRST_COMPLETED)
            return [future.result() for future in finished]

        suspects: list[Job] = []
        try:
            for job in jobs:
                if is_suspect(job.notes):
                    suspects.append(job)
                    continue
                running.add(pool.submit(do, job, settings, go_on))
                while len(running) >= 2 * workers:
                    yield from some_done()
            while running:
                yield from some_done()
            for job in suspects:
                running = {pool.submit(do, job, settings, go_on)}
                while running:
                    yield from some_done()
        finally:
            stopped.set()
            for future in running:
                future.cancel()


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Where several files are done at once, OpenCV and PyTorch do each in the thread that asks them."""
    before = torch.get_num_threads()
    with contextlib.ExitStack() as after:
        with contextlib.suppress(ImportError):
            import cv2

            after.callback(cv2.setNumThreads, cv2.getNumThreads())
            cv2.setNumThreads(1)
        after.callback(torch.set_num_threads, before)
        torch.set_num_threads(1)
        yield


class _Stopped(Exception):
    """The run was ended from outside."""


def rows(jobs: Iterable[Job], settings: Settings) -> Iterator[Row]:
    """The rows of the manifest by what is noted, file by file."""
    usable = (row for row in _scored(jobs, settings) if not row["reason"])
    hashed = any("phash" in measure.columns for measure in settings.measures)
    repeats = dict(duplicates(usable)) if hashed else {}
    for row in _scored(jobs, settings):
        original = repeats.get(table.name_of(row), "")
        reason = row["reason"] or (f"it repeats {original}" if original else "")
        yield {**row, "duplicate_of": original, "reason": reason, "kept": not reason}


def refusal(file: Path) -> str:
    """Why a file is no footage by its name, or nothing."""
    try:
        str(file).encode()
    except UnicodeEncodeError:
        return "its name is not readable text; rename it"
    if file.is_dir():
        return "this folder cannot be opened; allow reading it, then prepare again"
    if media.is_video(file) or media.is_picture(file):
        return ""
    if (mimetypes.guess_type(file.name)[0] or "").startswith(("video/", "image/")):
        return f"{file.suffix} is not read; save it as .mp4 or .png"
    return "it is no video or picture by its name"


def _scored(jobs: Iterable[Job], settings: Settings) -> Iterator[Row]:
    """Rows without what depends on other rows."""
    for job in jobs:
        reason = refusal(job.file)
        if reason:
            yield _row(job.name, Notes(), table.WHOLE_FILE, reason)
            continue
        notes, (text, reason) = read_notes(job.notes), _caption(job.file, settings.captions)
        if not notes.shots:
            reason = notes.reason or "it holds no shot"
            yield {**_row(job.name, notes, table.WHOLE_FILE, reason), "text": text}
        for number in range(len(notes.shots)):
            row = _row(job.name, notes, number, notes.reason or _too_short(notes, number, settings.shortest) or reason)
            scores = notes.scores.get(number, {})
            values: Mapping[str, Any] = {k: v for one in settings.measures for k, v in scores.get(one.key, {}).items()}
            row |= values
            said = with_scores(text, row, settings.scores_of) if settings.scores_of and text else text
            yield {**row, "text": said, "text_len": len(said.split())}


def _row(name, notes, number, reason):
    whole = (0, notes.holds.frames if notes.holds else 0)
    start, end = whole if number == table.WHOLE_FILE else notes.shots[number]
    row = {"path": name, "text": "", "num_frames": end - start, "shot": number, "start": start, "reason": reason}
    if notes.holds:
        _, height, width, fps = notes.holds
        row |= {"height": height, "width": width, "fps": fps}
        row |= {"aspect_ratio": height / width, "resolution": height * width}
    return row


def _caption(file, captions):
    """(caption, why it cannot be read)."""
    try:
        return captions(file), ""
    except ValueError as error:
        return "", str(error)


def _too_short(notes, number, shortest):
    start, end = notes.shots[number]
    seconds = (end - start) / notes.holds.fps
    if notes.holds.frames == 1 or seconds >= shortest:
        return ""
    return f"it lasts {seconds:.2f} s, less than {shortest:g} s"
