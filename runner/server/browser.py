"""Finding a Chromium for the browser tests: an installed one, else Playwright's download, else Debian's package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from . import process
from .environment import Environment, SetupError, Steps

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PLACES = {
    "darwin": (
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
        "/Applications/Chromium.app/Contents/MacOS/Chromium",
    ),
    "win32": tuple(
        str(Path(os.environ.get(root, "C:/")) / "Google/Chrome/Application/chrome.exe")
        for root in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA")
    ),
}
HOW_TO_GET_ONE = (
    "The browser tests need Chromium or Google Chrome, and none could be found or fetched. Install one "
    "(Debian, Ubuntu: apt-get install chromium; macOS: brew install --cask chromium; Windows: winget install "
    "Google.Chrome), or name one with OPENSORA_BROWSER=PATH, or leave those tests out with --no-browser."
)


def installed() -> Path | None:
    """An installed Chromium or Chrome that starts: OPENSORA_BROWSER first, then the search path, then usual places."""
    named = os.environ.get("OPENSORA_BROWSER")
    if named:
        return Path(named)
    found = [shutil.which(name) for name in NAMES] + [p for p in PLACES.get(sys.platform, ()) if os.path.isfile(p)]
    return next((Path(path) for path in found if path and starts(Path(path))), None)


def starts(path: Path) -> bool:
    """Whether the program runs at all: some distributions ship a `chromium` that only says how to install it."""
    if process.WINDOWS:  # there --version opens a window
        return path.is_file()
    try:
        asked = subprocess.run([str(path), "--version"], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


def prepare(environment: Environment) -> Path:
    """A browser to test with, fetched where none is installed. Raises SetupError that says how to get one."""
    return installed() or downloaded(environment) or packaged(environment) or _give_up()


def downloaded(environment: Environment) -> Path | None:
    """Playwright's own Chromium, kept in the cache; None where it cannot be had."""
    folder = environment.folder / "browsers"
    variables = environment.variables(environment.tools)
    variables |= {"PLAYWRIGHT_BROWSERS_PATH": str(folder), "PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT": "20000"}
    command = environment.module("playwright", "install", "chromium", paths=(environment.tools,))
    try:
        Steps(environment.folder).run(
            "Playwright's Chromium", lambda log: process.run_logged(command, log, env=variables, timeout=900)
        )
    except SetupError:
        print("    not to be had here", flush=True)
        return None
    script = f"import sys; sys.path.insert(0, {str(environment.tools)!r})\n"
    script += "from playwright.sync_api import sync_playwright as s\nwith s() as p: print(p.chromium.executable_path)"
    asked = subprocess.run(
        [str(environment.python), "-c", script], capture_output=True, text=True, env=variables, check=False
    )
    path = Path(asked.stdout.strip() or "none")
    return path if starts(path) else None


def packaged(environment: Environment) -> Path | None:
    """The distribution's package, where we are root on a Debian; None elsewhere or where it fails."""
    if not shutil.which("apt-get") or not hasattr(os, "geteuid") or os.geteuid() != 0:
        return None
    variables = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}

    def install(log: Path) -> int:
        update = process.run_logged(["apt-get", "update"], log, env=variables)
        return update or process.run_logged(["apt-get", "install", "-y", "chromium"], log, env=variables)

    steps = Steps(environment.folder)
    try:
        # No stamp can vouch for something outside of our cache.
        (steps.stamps / "debian-s-chromium").unlink(missing_ok=True)
        steps.run("Debian's chromium", install)
    except SetupError as error:
        print(error, file=sys.stderr, flush=True)
        return None
    return installed()


def _give_up():
    raise SetupError(HOW_TO_GET_ONE)
