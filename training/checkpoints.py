"""What a run keeps on disk: checkpoints that are whole or not there, and a log without a line twice."""

import json
import time
import zipfile
from pathlib import Path
from typing import Any

import torch

from .data.whole import cannot_write, write

PATTERN = "step-*.pt"


def save(folder: Path, step: int, state: dict[str, Any], keep: int = 2) -> Path:
    """Write the checkpoint of a step; of those before it the newest `keep` - 1 stay."""
    path = folder / f"step-{step:08d}.pt"
    write(path, lambda temporary: torch.save(state, temporary))
    others = sorted(other for other in folder.glob(PATTERN) if other != path)
    before = [other for other in others if other < path]
    # A run goes on from its newest whole checkpoint: what is numbered beyond this one is damaged.
    for old in {*others} - {*before[max(0, len(before) - keep + 1) :]}:
        old.unlink(missing_ok=True)
    return path


def clear(folder: Path) -> None:
    """Remove what a process that was killed had begun to write."""
    for left in folder.glob("*.*.tmp"):
        left.unlink(missing_ok=True)


def newest(folder: Path, say: Any = print) -> dict[str, Any] | None:
    """The state of the newest checkpoint that is whole; damaged ones are said and passed over. None: there is none."""
    found = sorted(folder.glob(PATTERN))
    while found:
        path = found.pop()
        try:
            with zipfile.ZipFile(path) as parts:  # PyTorch's own reader looks at no checksums
                if parts.testzip() is not None:
                    raise zipfile.BadZipFile
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a damaged file makes of itself
            instead = "going on from the one before it" if found else "there is none before it, so the run begins again"
            say(f"{path.name} is damaged ({type(error).__name__}); {instead}")
    return None


class Log:
    """JSON lines about a run, each with its step."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "log.jsonl"

    def rewind(self, step: int) -> None:
        """Forget what was said of steps behind `step`, and half a line: the run goes on from there."""
        kept = [json.dumps(entry) + "\n" for entry in self.entries() if entry["step"] <= step]
        if self.path.exists():
            write(self.path, lambda temporary: temporary.write_text("".join(kept), encoding="utf-8"))

    def add(self, **entry: object) -> dict[str, object]:
        """Append one line. Raises ValueError as `write`."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise cannot_write(self.path, error, "save.folder") from error
        return entry

    def entries(self) -> list[dict[str, Any]]:
        """All lines that are whole."""
        return entries(self.path)


def entries(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log; none where there is no file."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


class Minutes:
    """Whether it is time again: every `minutes`, counted from when it was last."""

    def __init__(self, minutes: float) -> None:
        self.seconds, self.last = 60 * minutes, time.monotonic()

    def due(self) -> bool:
        """True where the time is over; counting begins again then."""
        if time.monotonic() - self.last < self.seconds:
            return False
        self.last = time.monotonic()
        return True
