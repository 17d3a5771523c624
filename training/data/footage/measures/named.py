"""What a measure of shots is, and those there are, by their names."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy

from .aesthetic import Aesthetic
from .camera import CameraMotion
from .likeness import PerceptualHash
from .motion import FlowDIS, FlowRAFT
from .overlay import TextOverlay
from .quality import Quality

Value = float | int | str | None


class Measure(Protocol):
    """Scores a shot by some of its frames.

    `columns` of the manifest are what it fills in. `key` tells it from itself with other settings or weights: what was
    measured holds while the key is the same. Picklable.
    """

    name: str
    columns: tuple[str, ...]

    @property
    def key(self) -> str: ...

    def frames(self, total: int, fps: float) -> list[int]:
        """Which frames it looks at in a shot of `total`, ascending, counted from the shot's first."""

    def reduce(self, frame: numpy.ndarray) -> Any:
        """What it keeps of a frame, uint8 [H, W, 3] in RGB, until the shot is over: as little as it needs."""

    def score(self, frames: list[Any], fps: float) -> dict[str, Value]:
        """A value for each column from what it kept of those frames; None where there is nothing to say."""


# Of each measure, how it is made, and the files that it needs: the names by which they are given, and what they are.
MEASURES: dict[str, tuple[Callable[..., Any], Mapping[str, str]]] = {
    "flow_dis": (FlowDIS, {}),
    "flow_raft": (FlowRAFT, {"raft": "weights of torchvision's raft_large or raft_small"}),
    "cmotion": (CameraMotion, {}),
    "quality": (Quality, {}),
    "aes": (Aesthetic, {"head": "the linear head of the aesthetic score", "clip": "a CLIP ViT-L/14"}),
    "ocr": (TextOverlay, {}),
    "phash": (PerceptualHash, {}),
}


def measures_named(names: Iterable[str], files: Mapping[str, str] | None = None) -> list[Measure]:
    """The measures of these names, each once. `files`: paths of weights by the names in MEASURES.

    Raises ValueError for a name that is none, a file that is not given or not asked for, and a missing package.
    """
    names, files = list(dict.fromkeys(name.strip() for name in names if name.strip())), files or {}
    for name in names:
        if name not in MEASURES:
            near = difflib.get_close_matches(name, MEASURES, 1, 0)[0]
            raise ValueError(f"measures has {name!r}; it must be of {', '.join(MEASURES)}; the nearest is {near!r}")
    needed = {file: what for name in names for file, what in MEASURES[name][1].items()}
    for file in files:
        if file not in needed:
            hint = f"those asked for need {', '.join(needed)}" if needed else "none that is asked for needs a file"
            raise ValueError(f"weights has {file!r}; {hint}")
    for file, what in needed.items():
        if file not in files:
            raise ValueError(f"weights has no {file!r}, and it is asked for; give {file}=FILE, {what}")
    return [make(*(files[file] for file in asked)) for make, asked in (MEASURES[name] for name in names)]
