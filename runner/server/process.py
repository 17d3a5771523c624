"""Child processes that end with their parent: each gets a group of its own, and stopping it stops all it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

WINDOWS = os.name == "nt"


def start(command: Iterable, *, own_group: bool = True, **options: Any) -> subprocess.Popen:
    """Start `command`. With `own_group`, a Ctrl-C in the terminal reaches only the parent, which then calls `stop`."""
    if own_group and WINDOWS:
        options["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP
    elif own_group:
        options["start_new_session"] = True
    process = subprocess.Popen([str(part) for part in command], **options)
    process.own_group = own_group
    return process


def stop(process: subprocess.Popen, first: int = signal.SIGTERM, grace: float = 10.0) -> None:
    """End `process` and what it started: `first` is sent politely, after `grace` seconds nothing is polite any more."""
    with _uninterrupted():
        if WINDOWS:
            # No signal reaches another console group reliably there; taskkill takes the whole tree.
            if process.poll() is None:
                subprocess.run(["taskkill", "/T", "/F", "/PID", str(process.pid)], capture_output=True, check=False)
            process.wait()
            return
        _send(process, first)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
        # The group outlives its leader where a grandchild ignored the first signal.
        _send(process, signal.SIGKILL)
        process.wait()


def _send(process, number) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if process.own_group:
            os.killpg(process.pid, number)
        elif process.poll() is None:
            process.send_signal(number)


@contextlib.contextmanager
def _uninterrupted():
    """A second Ctrl-C must not cut the clean-up short."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def wait(process: subprocess.Popen, first: int = signal.SIGINT, grace: float = 30.0) -> int:
    """Wait for a child that shares our terminal and return its exit status; it is stopped if we are interrupted."""
    try:
        while True:
            # Windows tells of a Ctrl-C only between two waits.
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(0.5)
    finally:
        if process.poll() is None:
            stop(process, first, grace)


def run_logged(
    command: Sequence, log: Path, *, env: dict[str, str] | None = None, timeout: float | None = None,
    tick: Callable[[float], None] | None = None,
) -> int:  # fmt: skip
    """Run `command` with its output in the file `log` and return its exit status (124 after `timeout` seconds).

    `tick(seconds)` is called about once a second while it runs.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with open(log, "ab") as output:
        output.write(("$ " + " ".join(str(part) for part in command) + "\n").encode("utf-8", "replace"))
        output.flush()
        process = start(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=env)
        try:
            while True:
                try:
                    return process.wait(1.0)
                except subprocess.TimeoutExpired:
                    seconds = time.monotonic() - began
                    if timeout is not None and seconds > timeout:
                        output.write(f"\nstopped after {timeout:.0f} s\n".encode())
                        return 124
                    if tick:
                        tick(seconds)
        finally:
            if process.poll() is None:
                stop(process)


def tail(log: Path, lines: int = 20) -> str:
    """The last `lines` lines of a log file, indented; empty where there is no log."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join("    " + line for line in text.splitlines()[-lines:])


def turn_signals_into_interrupts() -> None:
    """Let a polite kill (SIGTERM, a closed terminal) clean up the way Ctrl-C does. For the main thread."""

    def interrupt(number, frame):
        raise KeyboardInterrupt

    # A shell that starts a command in the background makes it ignore SIGINT: take it back.
    signal.signal(signal.SIGINT, interrupt)
    for name in ("SIGTERM", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), interrupt)
