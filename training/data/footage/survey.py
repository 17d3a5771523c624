"""One file of footage surveyed: its shots found, each scored by every measure, and all of it noted as it is done.

Notes are lines of JSON that are only ever appended, one file of them for each file of footage. What a run that was
killed had noted is read again, up to half a line; a changed file, or another way to cut, begins them anew.

A file that crashes its decoder takes the program with it, so that the work is noted as begun before it is. What was
begun ATTEMPTS times, and came to nothing, is left alone until the file changes.
"""

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import media
from ..whole import write as write_whole
from .cuts.scenes import Cutter
from .measures.named import Measure, Value

Shot = tuple[int, int]  # its first frame, and the one after its last
Scores = dict[str, dict[str, Value]]  # the values of each measure, by its key
ATTEMPTS = 3


@dataclass
class Notes:
    """What is known of a file: how it was when it was read, what it holds or why it cannot be used, shots and scores.

    `state` is its size, time and content; `scores` are those of a shot's number. `begun`: how often work on it was
    begun since something of it was done last, and ended with the program.
    """

    state: dict[str, Any] = field(default_factory=dict)
    cutter: str = ""
    holds: media.Media | None = None
    reason: str = ""
    shots: list[Shot] = field(default_factory=list)
    scores: dict[int, Scores] = field(default_factory=dict)
    begun: int = 0

    @property
    def surveyed(self) -> bool:
        """Whether the file was read to its end."""
        return bool(self.reason) or self.holds is not None

    def missing(self, measures: Sequence[Measure]) -> dict[int, list[Measure]]:
        """Of every shot, the measures that have not scored it; shots that lack nothing are left out."""
        lacking = {
            number: [one for one in measures if one.key not in self.scores.get(number, {})]
            for number in range(len(self.shots))
        }
        return {number: some for number, some in lacking.items() if some}


def survey(
    path: Path, notes: Path, cutter: Cutter, measures: Sequence[Measure], go_on: Callable[[], None] = lambda: None
) -> Notes:
    """Do what is not noted yet for the file at `path`, and note it at `notes`; returns all that is known.

    `go_on` is called before every frame and shot; what it raises ends the work there. A file that cannot be read is
    noted with its reason, and read again once it has changed. Raises ValueError where notes cannot be written.
    """
    known = read_notes(notes)
    try:
        state = _state(path, known.state)
        if known.state.get("sha256") != state["sha256"]:
            known = Notes(state)
        elif known.state != state:
            known.state = state
            _add(notes, state=state)
        if known.begun >= ATTEMPTS:
            return known
        if not known.surveyed or known.cutter != cutter.key:
            _begin(notes, Notes(state, begun=known.begun + 1))
            with _not_fatal(notes, known.begun):
                known = _cut(path, state, cutter, go_on)
            _begin(notes, known)
        if known.missing(measures):
            _add(notes, begun=known.begun + 1)
            with _not_fatal(notes, known.begun):
                for number, scores in _scored(path, known, measures, go_on):
                    known.scores.setdefault(number, {}).update(scores)
                    _add(notes, shot=number, scores=scores)
    except media.Unreadable as error:  # it vanished, or changed while it was read: nothing of it holds
        known = Notes(cutter=cutter.key, reason=error.reason)
        _begin(notes, known)
    return known


def read_notes(path: Path) -> Notes:
    """What is noted there; nothing where there is no such file, or nothing that can be read."""
    known = Notes()
    with (
        contextlib.suppress(FileNotFoundError, NotADirectoryError),
        open(path, encoding="utf-8", errors="replace") as lines,
    ):
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # half a line of a run that was killed
                _take(known, json.loads(line))
    if known.begun >= ATTEMPTS:
        known.reason = f"reading it ended the program {ATTEMPTS} times; export it again, or remove it"
    return known


def is_suspect(notes: Path) -> bool:
    """Whether this is the last attempt at a file, which is fair only while no other file is read by this program."""
    return read_notes(notes).begun == ATTEMPTS - 1


def _take(known, entry):
    known.begun = entry.get("begun", known.begun if entry.keys() == {"state"} else 0)
    if "state" in entry:
        known.state = entry["state"]
    if "cutter" in entry:
        known.cutter, known.reason = entry["cutter"], entry["reason"]
        known.holds = entry["holds"] and media.Media(*entry["holds"])
        known.shots = [(start, end) for start, end in entry["shots"]]
    if "shot" in entry:
        known.scores.setdefault(entry["shot"], {}).update(entry["scores"])


def _begin(path, known):
    """The first line of a file's notes; what was there is gone."""
    line = {name: getattr(known, name) for name in ("state", "cutter", "holds", "reason", "shots", "begun")}
    write_whole(path, lambda temporary: temporary.write_text(json.dumps(line) + "\n", encoding="utf-8"), "manifest")


@contextlib.contextmanager
def _not_fatal(notes, begun):
    """An attempt that an error or an interrupt ends, not the end of the program, is taken back."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(ValueError):
            _add(notes, begun=begun)
        raise


def _add(path, **entry):
    """One line more, on the disk before anything else is done."""
    try:
        with open(path, "rb+") as file:
            file.seek(-1, os.SEEK_END)
            torn = file.read() != b"\n"
            file.write(b"\n" * torn + json.dumps(entry).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ValueError(
            f"manifest: {path} cannot be written ({error}); free space there, then prepare again: it goes on"
        ) from error


def _state(path, before):
    """How the file is now. Its content is looked at only where size or time differ from `before`."""
    try:
        found = path.stat()
        state = {"size": found.st_size, "mtime_ns": found.st_mtime_ns}
        same = all(before.get(name) == value for name, value in state.items())
        return {**state, "sha256": before["sha256"] if same else media.file_key(path)}
    except OSError as error:
        raise media.Unreadable(path, f"it cannot be read ({error.strerror}); see that it is there") from error


def _cut(path, state, cutter, go_on):
    """Read all of a file: what it holds and its shots, or why it cannot be used."""
    frames = _Counted(media.frames(path), go_on)
    try:
        shots = cutter.shots(iter(frames), media.promised_rate(path))
        return Notes(state, cutter.key, frames.rest(), "", shots)
    except media.Unreadable as error:
        return Notes(state, cutter.key, None, error.reason)


class _Counted:
    """Frames as they are decoded, and what the file turned out to hold."""

    def __init__(self, frames, go_on):
        self.holds, self.frames = None, self._through(frames, go_on)

    def _through(self, frames, go_on):
        while True:
            go_on()
            try:
                yield next(frames)
            except StopIteration as end:
                self.holds = end.value
                return

    def __iter__(self):
        return self.frames

    def rest(self):
        """What the file holds; frames that nobody took are decoded."""
        for _ in self.frames:
            pass
        return self.holds


def _scored(
    path: Path, known: Notes, measures: Sequence[Measure], go_on: Callable[[], None]
) -> Iterator[tuple[int, Scores]]:
    """(number, scores) of every shot that lacks some, in one pass over the file."""
    fps = known.holds.fps if known.holds else 0.0
    views = {
        number: [(measure, [start + at for at in measure.frames(end - start, fps)]) for measure in some]
        for number, some in known.missing(measures).items()
        for start, end in [known.shots[number]]
    }
    wanted = {number: sorted({at for _, ats in some for at in ats}) for number, some in views.items()}
    frames = media.chosen(path, itertools.chain.from_iterable(wanted.values()))
    for number, some in views.items():
        go_on()
        kept: list[list[Any]] = [[] for _ in some]
        for at, frame in zip(wanted[number], frames):
            for (measure, ats), small in zip(some, kept):
                if at in ats:
                    small.append(measure.reduce(frame))
        yield number, {measure.key: measure.score(small, fps) for (measure, _), small in zip(some, kept)}
