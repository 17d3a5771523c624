"""A cutter and a measure that write down what they do, and a cutter that crashes; clips to use them on."""

import os
import signal
import time
from pathlib import Path

from opensora_comfy.training.data.footage.prepare import Settings

SHOT = 5  # frames


class Cuts:
    """A cut every SHOT frames."""

    key = "cuts"

    def shots(self, frames, fps):
        total = sum(1 for _ in frames)
        return [(start, min(start + SHOT, total)) for start in range(0, total, SHOT)]


class CrashesAt(Cuts):
    """Ends the process, as a decoder does that crashes, at pictures of this height."""

    key = "crashes"

    def __init__(self, height):
        self.height = height

    def shots(self, frames, fps):
        return super().shots(map(self.looked_at, frames), fps)

    def looked_at(self, frame):
        if frame.shape[0] == self.height:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
        return frame


class Counted:
    """The brightness of a shot's first frame; a line in the file `log` for every shot that it begins to score."""

    name = key = "counted"
    columns = ("exposure",)

    def __init__(self, log, seconds=0.0):
        self.log, self.seconds = str(log), seconds

    def frames(self, total, fps):
        return [0]

    def reduce(self, frame):
        return float(frame.mean())

    def score(self, frames, fps):
        with open(self.log, "a", encoding="utf-8") as log:
            log.write(f"{os.getpid()}\n")
        time.sleep(self.seconds)
        return {"exposure": frames[0]}


def scored(log):
    """The processes that began to score a shot each, by the lines of `log`."""
    return [int(line) for line in Path(log).read_text(encoding="utf-8").splitlines()]


def settings(log, seconds=0.0, cutter=None):
    """Of a run that writes to `log`; a shot takes so many seconds."""
    return Settings(cutter or Cuts(), (Counted(log, seconds),), shortest=0)


def clips(folder, count, frames=20):
    """`count` clips of four shots."""
    from videos import video

    folder.mkdir(parents=True)
    for number in range(count):
        video(folder / f"{number:02}.mp4", frames)
    return folder
