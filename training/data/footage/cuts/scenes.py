"""Where the shots of a file begin: PySceneDetect with the thresholds of each generation, or a learned detector.

Frames are taken one by one, in the order in which they are shown; a few of them are held, however long the file.
"""

import difflib
import math
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import numpy

from .adaptive import Adaptive
from .transnet import TransNet


class Cutter(Protocol):
    """What finds the shots of a file. Picklable; `key` is the same where the same frames give the same shots."""

    key: str

    def shots(self, frames: Iterable[numpy.ndarray], fps: float) -> list[tuple[int, int]]:
        """Each shot's first frame and the one after its last, of upright frames uint8 [H, W, 3], RGB, in order.

        No shot is empty; without frames there is none. What lies between two of them belongs to neither: a slow
        transition, or frames taken off. Every frame is taken once.
        """
        ...


class Preset(NamedTuple):
    """How PySceneDetect's AdaptiveDetector is asked.

    `threshold`: how many times as large as with its 2 + 2 neighbours the change from frame to frame must be; `change`:
    how large at least, 0 … 255, the mean over hue, saturation and brightness; `length`: how many frames lie between two
    cuts, and before the first, at least: a cut that comes sooner is not seen; `trim`: frames taken off each end of a
    shot where a file has several.
    """

    threshold: float
    change: float = 15.0
    length: int = 15
    trim: int = 0


# AdaptiveDetector's own defaults but for what each generation set.
PRESETS = {"1.1": Preset(3.0), "1.2": Preset(3.0), "1.3": Preset(2.0, change=10.0, length=1, trim=1)}
CUTTERS = (*PRESETS, "transnet", "none")


def cutter(name: str = "1.2", transition_seconds: float | None = None, device: str = "cpu") -> Cutter:
    """The cutter with this name, one of CUTTERS.

    `transition_seconds`: look for slow transitions too, by frames so far apart; with presets only. `device`: where
    "transnet" computes. Raises ValueError for other names, for a time that is none, and where a package is missing.
    """
    if name not in CUTTERS:
        near = difflib.get_close_matches(str(name), CUTTERS, 1, 0)[0]
        raise ValueError(f"cuts are by {name!r}; it must be one of {', '.join(CUTTERS)}; the nearest is {near}")
    if transition_seconds is not None:
        if name not in PRESETS:
            raise ValueError(
                f"transition_seconds is {transition_seconds}, and cuts are by {name!r}, which takes none; leave it "
                f"out, or cut by one of {', '.join(PRESETS)}"
            )
        if not 0 < transition_seconds < math.inf:
            raise ValueError(f"transition_seconds is {transition_seconds}; it must be above 0: 1 finds most dissolves")
    if name == "none":
        return Whole()
    return TransNet(device) if name == "transnet" else Adaptive(*PRESETS[name], transition_seconds)


class Whole:
    """Does not cut: a file is one shot."""

    key = "none"

    def shots(self, frames: Iterable[numpy.ndarray], fps: float) -> list[tuple[int, int]]:
        """As `Cutter.shots`: all frames in one."""
        total = sum(1 for _ in frames)
        return [(0, total)] if total else []
