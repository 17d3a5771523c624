"""Cuts by how much a frame differs from the one before, PySceneDetect's AdaptiveDetector; flashes are no cuts."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy

WIDTH = 256  # pixels of the longer side at which frames are compared, as PySceneDetect does by itself
FLASH = 3  # frames at most: what is gone again so soon is no shot
RATE = 25.0  # PySceneDetect wants one; whatever is counted here is counted in frames


class Adaptive:
    """Shots between the cuts of AdaptiveDetector and, where asked for, between slow transitions.

    The first four arguments are those of `scenes.Preset`; `transition_seconds`: how far apart the frames are that are
    compared to find slow transitions, None to look for none. Raises ValueError where scenedetect is not installed.
    """

    def __init__(
        self, threshold: float, change: float, length: int, trim: int, transition_seconds: float | None = None
    ) -> None:
        packages()
        self.threshold, self.change, self.length, self.trim = threshold, change, length, trim
        self.transition_seconds = transition_seconds
        slow = "" if transition_seconds is None else f", transitions {transition_seconds:g} s"
        self.key = f"adaptive {threshold:g}, change {change:g}, length {length}, trim {trim}, flash {FLASH}{slow}"

    def shots(self, frames: Iterable[numpy.ndarray], fps: float) -> list[tuple[int, int]]:
        """As `scenes.Cutter.shots`.

        Where a slow transition is found, the shot before it ends with the one compared frame, the shot after it begins
        with the other.
        """
        hard, slow, total = Search(self.threshold, self.change, self.length), self._slow(fps), 0
        for number, frame in enumerate(without_flashes(map(small, frames), self.change)):
            for search in (hard, *slow):
                search.see(number, frame)
            total = number + 1
        cuts = [last for _, last in hard.found]
        # Frames on either side of a hard cut differ because of it.
        gaps = [(first + 1, last) for search in slow for first, last in search.found]
        gaps = [gap for gap in gaps if not any(gap[0] <= cut <= gap[1] for cut in cuts)]
        return between([*((cut, cut) for cut in cuts), *gaps], total, self.trim)

    def _slow(self, fps):
        """The searches for slow transitions: the same twice, the second half a step later."""
        if self.transition_seconds is None:
            return []
        apart = max(round(self.transition_seconds * fps), 2)
        return [Search(self.threshold, self.change, 1, apart, offset) for offset in (0, apart // 2)]


class Search:
    """AdaptiveDetector on every frame, or on frames so far `apart` from the frame `offset` on.

    `found`: (the frame before, the frame after) for each cut, by their numbers.
    """

    def __init__(self, threshold: float, change: float, length: int, apart: int = 1, offset: int = 0) -> None:
        _, scenedetect, detectors = packages()
        self.detector: Any = detectors.AdaptiveDetector(threshold, length, min_content_val=change)
        self.timecode = scenedetect.FrameTimecode
        self.apart, self.offset = apart, offset
        self.found: list[tuple[int, int]] = []

    def see(self, number: int, frame: numpy.ndarray) -> None:
        """Take the frame with this number, uint8 [H, W, 3], BGR; all numbers come, in order."""
        index, rest = divmod(number - self.offset, self.apart)
        if rest or index < 0:
            return
        for cut in self.detector.process_frame(self.timecode(index, RATE), frame):
            last = cut.frame_num * self.apart + self.offset
            self.found.append((last - self.apart, last))


def between(breaks: Iterable[tuple[int, int]], total: int, trim: int = 0) -> list[tuple[int, int]]:
    """The shots of `total` frames between `breaks`: (where the shot before ends, where the next begins).

    Breaks may overlap. `trim` frames are taken off each end of a shot where there is a break at all; what is empty then
    is left out.
    """
    begin, shots = 0, []
    for end, start in sorted(breaks):
        shots.append((begin, end))
        begin = max(begin, start)
    shots.append((begin, total))
    trim = trim if len(shots) > 1 else 0
    return [(first + trim, end - trim) for first, end in shots if first + trim < end - trim]


def without_flashes(frames: Iterable[numpy.ndarray], change: float) -> Iterator[numpy.ndarray]:
    """The frames, uint8 [H, W, 3], BGR, each flash replaced by a blend from the frame before it to the one after it.

    A flash is what differs from the frame before by `change`, and is over within FLASH frames: the picture from before
    is back, or less than half as far from it as the flash. The blend spreads what has moved meanwhile.
    """
    # The last frame that was given, then those that come; each in BGR, and in HSV to be compared.
    held: deque[tuple[numpy.ndarray, numpy.ndarray]] = deque()
    for frame in frames:
        held.append((frame, _hsv(frame)))
        if len(held) == 1:
            yield frame
        elif len(held) > FLASH + 1:
            yield from _next(held, change)
    while len(held) > 1:
        yield from _next(held, change)


def _next(held, change):
    """The next frame, or the frames in place of a flash; they leave what is held but for the last."""
    before, *coming = held
    peak = _distance(before, coming[0])
    lasts = 0
    if peak >= change:
        lasts = next((count for count, frame in enumerate(coming) if _distance(before, frame) < peak / 2), 0)
    for number in range(1, lasts + 1):
        share = number / (lasts + 1)
        held[number] = (packages()[0].addWeighted(before[0], 1 - share, coming[lasts][0], share, 0), None)
    for _ in range(lasts + 1):
        held.popleft()
        yield held[0][0]


def small(frame: numpy.ndarray) -> numpy.ndarray:
    """An RGB frame uint8 [H, W, 3] as PySceneDetect takes it: BGR, its longer side WIDTH pixels at most."""
    cv2 = packages()[0]
    height, width = frame.shape[:2]
    factor = max(height, width) / WIDTH
    if factor > 1:
        size = max(round(width / factor), 1), max(round(height / factor), 1)
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR)
    return cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)


def _hsv(frame):
    cv2 = packages()[0]
    return cv2.cvtColor(frame, cv2.COLOR_BGR2HSV)


def _distance(one, other):
    """The mean difference of hue, saturation and brightness, as AdaptiveDetector has it."""
    cv2 = packages()[0]
    return sum(cv2.mean(cv2.absdiff(one[1], other[1]))[:3]) / 3


def packages() -> tuple[Any, Any, Any]:
    """The modules cv2, scenedetect and scenedetect.detectors. Raises ValueError where one is not installed."""
    try:
        import cv2
        import scenedetect
        import scenedetect.detectors
    except ImportError as error:
        raise ValueError(
            f"cutting needs PySceneDetect and OpenCV ({error}); install both with pip install scenedetect-headless, or "
            'cut by "none"'
        ) from error
    return cv2, scenedetect, scenedetect.detectors
