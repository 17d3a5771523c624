"""How the camera moves, by the rule of Open-Sora 1.1: a word for a shot, as captions carry it."""

from collections import Counter
from collections.abc import Sequence

import numpy

from .packages import opencv
from .places import every

PURPOSE = "camera motion"
STRIDE, PAIRS = 15, 30  # frames between those that are compared; pairs at most: 15 s at 30 frames a second
SIDE = 320  # pixels of the shorter side that flow is found at, of larger frames
STILL = 1.0  # pixels of movement, in the median, below which a camera is held still
INWARD, OUTWARD = 0.4, 0.6  # shares of vectors that point away from the middle: below a zoom out, above a zoom in
# Where the picture goes and where the camera does, by the quarter of the circle around right, down, left, up.
DIRECTIONS = ("pan left", "tilt up", "pan right", "tilt down")
DYNAMIC = "dynamic"  # what captions say nothing of


class CameraMotion:
    """One of "static", "zoom in", "zoom out", "pan left", "pan right", "tilt up", "tilt down", "dynamic".

    Frames 15 apart are compared, from the shot's first on; what more than half of the pairs say is the word, "dynamic"
    where there is no such majority, None of a picture and of a shot that is too short for a pair. It differs from the
    original in two things: flow is found at 320 pixels on the shorter side, so that a word does not depend on the size
    of the file; and the direction is that of the median vector, since a median of angles fails where they begin anew.

    Raises ValueError where OpenCV is missing.
    """

    name, columns = "cmotion", ("cmotion",)
    key = f"cmotion {STRIDE} {PAIRS} {SIDE}"

    def __init__(self) -> None:
        opencv(PURPOSE)

    def frames(self, total: int, fps: float) -> list[int]:
        """Every 15th frame; none of what has no pair of them."""
        return every(total, STRIDE, PAIRS + 1) if total > STRIDE else []

    def reduce(self, frame: numpy.ndarray) -> numpy.ndarray:
        """A frame uint8 [H, W, 3], grey, with at most 320 pixels on the shorter side: uint8 [h, w]."""
        cv2 = opencv(PURPOSE)
        H, W = frame.shape[:2]
        scale = min(1, SIDE / min(H, W))
        size = (max(1, round(W * scale)), max(1, round(H * scale)))
        return cv2.cvtColor(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)

    def score(self, frames: Sequence[numpy.ndarray], fps: float) -> dict[str, float | int | str | None]:
        """{"cmotion": the word}, of reduced frames."""
        if len(frames) < 2:
            return {"cmotion": None}
        words = Counter(word_of(_flow(*pair)) for pair in zip(frames, frames[1:]))
        word, count = words.most_common(1)[0]
        return {"cmotion": word if 2 * count > words.total() else DYNAMIC}


def word_of(flow: numpy.ndarray) -> str:
    """How the camera moves where pixels move by `flow` [H, W, 2], across and down."""
    H, W = flow.shape[:2]
    if numpy.median(numpy.linalg.norm(flow, axis=-1)) < STILL:
        return "static"
    across, down = numpy.meshgrid(numpy.arange(W) - (W - 1) / 2, numpy.arange(H) - (H - 1) / 2)
    outward = (flow[..., 0] * across + flow[..., 1] * down > 0).mean()
    if not INWARD <= outward <= OUTWARD:
        return "zoom in" if outward > OUTWARD else "zoom out"
    x, y = numpy.median(flow, axis=(0, 1))
    return DIRECTIONS[round(numpy.arctan2(y, x) / (numpy.pi / 2)) % 4]


def _flow(first, second):
    """Farneback's dense flow, at the settings of OpenCV's own example, which the original has."""
    cv2 = opencv(PURPOSE)
    return cv2.calcOpticalFlowFarneback(first, second, None, 0.5, 3, 15, 3, 5, 1.2, 0)
