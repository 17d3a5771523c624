"""Text laid over a picture: how many regions of it there are, by an OCR package that brings its detector."""

from collections.abc import Sequence

import numpy

from .packages import needed
from .weights import Lazy

FRAME = 10
SIDE = 1024  # pixels of the square in the middle that is looked at
REGION = 0.3  # the detector's least score of a region
READING = 0.6  # the reader's least score of what it says
LETTERS = 3  # at least, for a reading to be text


class TextOverlay:
    """The number of text regions in a square of 1024 pixels in the middle: the most of frame 10 and the middle frame.

    Regions are those of the original's rule, with a score above 0.3. This package's detector also finds windows, heads
    and the continents of a globe above it; so a region counts only where its reader reads three characters or more in
    it, at 0.6 or above. It knows Latin and Chinese script. Words on signs within the scene count like those laid over
    it. The original looks at frame 10 alone, where titles have often not come in; of a shorter shot it is the last
    frame.

    Raises ValueError where the package rapidocr-onnxruntime is missing.
    """

    name, columns = "ocr", ("ocr",)
    key = f"ocr {FRAME} {SIDE} {REGION} {READING} {LETTERS}"

    def __init__(self) -> None:
        _package()
        self.reader = Lazy(_reader)

    def frames(self, total: int, fps: float) -> list[int]:
        """Frame 10, or the last, and the middle one."""
        return sorted({min(FRAME, total - 1), total // 2}) if total > 0 else []

    def reduce(self, frame: numpy.ndarray) -> int:
        """The regions of a frame uint8 [H, W, 3]."""
        bgr = numpy.ascontiguousarray(middle(frame)[..., ::-1])
        found = self.reader()(bgr, use_det=True, use_cls=False, use_rec=True)[0] or []
        return sum(len(text.strip()) >= LETTERS for _, text, _ in found)

    def score(self, frames: Sequence[int], fps: float) -> dict[str, float | int | str | None]:
        """{"ocr": regions}, of reduced frames; None without any."""
        return {"ocr": max(frames, default=None)}


def _package():
    return needed("rapidocr_onnxruntime", "rapidocr-onnxruntime", "finding text in pictures")


def _reader():
    """The package's detector and reader; several shots are looked at at once, so each on one core."""
    return _package().RapidOCR(
        det_box_thresh=REGION, text_score=READING, intra_op_num_threads=1, inter_op_num_threads=1
    )


def middle(frame: numpy.ndarray) -> numpy.ndarray:
    """The square of 1024 pixels in the middle of a frame [H, W, 3], or as much of it as there is."""
    top, left = (max(0, (length - SIDE) // 2) for length in frame.shape[:2])
    return frame[top : top + SIDE, left : left + SIDE]
