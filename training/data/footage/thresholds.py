"""Filters as an artist sets them: a number for each score, 0 where it asks nothing; pictures need not move."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import filters
from .manifest import Row, file_of, path_in

CAMERAS = ("any", "static", "moving")
REPEATS = "it repeats "
# Of a limit: the column that it needs, and what fills that in.
NEEDED = {
    "min_motion": ("flow_dis", "motion"), "max_motion": ("flow_dis", "motion"),
    "min_sharpness": ("sharpness", "quality"), "min_aesthetic": ("aes", "the aesthetic score"),
    "camera": ("cmotion", "camera"),
}  # fmt: skip


@dataclass(frozen=True)
class Thresholds:
    """What a shot must have to be kept; 0 asks nothing. `expression` is a filter's, and must hold too.

    Motion is `flow_dis`, in pixels between frames; lengths are in seconds. Neither those nor the camera are asked of
    pictures.
    """

    min_motion: float = 0.0
    max_motion: float = 0.0
    min_sharpness: float = 0.0
    min_seconds: float = 0.0
    max_seconds: float = 0.0
    min_aesthetic: float = 0.0
    camera: str = "any"
    drop_duplicates: bool = True
    expression: str = ""

    def of_shots(self) -> str:
        """As a filter of what moves."""
        return self._joined(
            self.of_pictures(),
            self._asked("num_frames / fps", self.min_seconds, self.max_seconds),
            self._asked("flow_dis", self.min_motion, self.max_motion),
            {"any": "", "static": 'cmotion == "static"', "moving": 'cmotion != "static"'}[self.camera],
        )

    def of_pictures(self) -> str:
        """As a filter of pictures."""
        expression = " ".join(self.expression.split())
        return self._joined(
            self._asked("sharpness", self.min_sharpness, 0),
            self._asked("aes", self.min_aesthetic, 0),
            f"({expression})" if expression else "",
        )

    def check(self) -> None:
        """ValueError for less than 0, a least above its most, another word for the camera, an unreadable expression."""
        for name in ("min_motion", "max_motion", "min_sharpness", "min_seconds", "max_seconds", "min_aesthetic"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0, which asks nothing, or more")
        for name in ("motion", "seconds"):
            least, most = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if 0 < most < least:
                raise ValueError(
                    f"min_{name} is {least:g} and max_{name} is {most:g}; the least must not be above the most; "
                    f"0 for max_{name} asks nothing"
                )
        if self.camera not in CAMERAS:
            raise ValueError(f"camera is {self.camera!r}; it must be one of {', '.join(CAMERAS)}")
        try:
            filters.parse(self.expression)
        except ValueError as error:
            raise ValueError(f"expression: {error}") from error

    def check_measured(self, rows: Sequence[Mapping]) -> None:
        """ValueError where a limit asks for what no shot of a manifest's rows has: it was not measured."""
        shots = [row for row in rows if (row["num_frames"] or 0) > 1]
        for name, (column, measure) in NEEDED.items():
            value = getattr(self, name)
            if value not in (0, "any") and shots and all(row[column] is None for row in shots):
                raise ValueError(
                    f"{name} is {value}, and no shot has {column}; measure {measure} when you prepare the footage, or "
                    f"set {name} to {'any' if name == 'camera' else 0}"
                )

    @staticmethod
    def _joined(*parts):
        return " and ".join(part for part in parts if part)

    @staticmethod
    def _asked(column, least, most):
        return Thresholds._joined(f"{column} >= {least:g}" if least else "", f"{column} <= {most:g}" if most else "")


def filtered(rows: Iterable[Row], thresholds: Thresholds, source: Path, target: Path) -> Iterator[Row]:
    """The rows of the manifest at `source` for one at `target`, each kept or not; what was left out before stays so.

    Without `drop_duplicates`, what was left out as a repetition alone counts as kept before. Raises ValueError as
    `Thresholds.check`, at once.
    """
    thresholds.check()
    shots, pictures = filters.parse(thresholds.of_shots()), filters.parse(thresholds.of_pictures())
    return (_judged(_moved(row, source, target), shots, pictures, thresholds.drop_duplicates) for row in rows)


def _judged(row, shots, pictures, drop_duplicates):
    repeats = row["reason"].startswith(REPEATS)
    if not row["kept"] and (drop_duplicates or not repeats):
        return row
    reason = (pictures if row["num_frames"] == 1 else shots).why_not(row)
    return {**row, "kept": not reason, "reason": reason}


def _moved(row: Mapping, source: Path, target: Path) -> Row:
    """The row as a manifest at `target` has it, which names files as seen from its own folder."""
    if source.parent == target.parent:
        return dict(row)
    found = {**row, "path": path_in(file_of(row, source), target)}
    if row["duplicate_of"]:
        file, _, shot = row["duplicate_of"].rpartition("#")
        found["duplicate_of"] = f"{path_in(source.parent / file, target)}#{shot}"
    return found
