"""A ComfyUI server of our own: a base folder with the pack linked in, a free loopback port, start and stop."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from . import process
from .client import Client, Unreachable
from .environment import Environment, SetupError

PACK = Path(__file__).resolve().parents[2]
PACK_NAME = "opensora_comfy"
COPIED = ".copied_by_run_py"  # marks a copy of the pack as ours to replace
FOLDERS = ("custom_nodes", "models", "input", "output", "temp", "user")


def make_base(base: Path, models: Path | None = None) -> Path:
    """Lay out `base` as ComfyUI's base directory with this pack in its custom_nodes; `models` is linked if given."""
    for name in FOLDERS:
        if name != "models" or models is None:
            (base / name).mkdir(parents=True, exist_ok=True)
    if models is not None:
        link_folder(models, base / "models")
    link_folder(PACK, base / "custom_nodes" / PACK_NAME, copy=True)
    # The template dialog would cover the canvas on the first visit.
    settings = base / "user" / "default" / "comfy.settings.json"
    if not settings.exists():
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text('{"Comfy.TutorialCompleted": true}', encoding="utf-8")
    return base


def link_folder(source: Path, link: Path, copy: bool = False) -> None:
    """Make `link` show the folder `source`: a symlink, on Windows a junction, with `copy` a copy where neither works.

    What is at `link` is replaced if we made it. Raises SetupError where it holds files of somebody else, and where no
    link can be made of a folder that is not to be copied.
    """
    if link.exists() and os.path.samefile(link, source):
        return
    if link.is_symlink():
        link.unlink()
    elif os.path.lexists(link):
        try:
            os.rmdir(link)  # an empty folder, or a junction, which goes without what it points at
        except OSError as error:
            if not (link / COPIED).is_file():
                message = f"{link} is to become a link to {source}, but it holds files; move them away."
                raise SetupError(message) from error
            shutil.rmtree(link)
    try:
        link.symlink_to(source, target_is_directory=True)
        return
    except OSError:
        pass
    if process.WINDOWS:
        subprocess.run(["cmd", "/c", "mklink", "/J", str(link), str(source)], capture_output=True, check=False)
        if link.exists():
            return
    if not copy:
        raise SetupError(
            f"{link} could not be made a link to {source}. Set OPENSORA_CACHE, and the folder for temporary files "
            "(TMPDIR, on Windows TEMP), to folders on a drive that can hold links."
        )
    link.mkdir()
    (link / COPIED).touch()  # first, so that half a copy can be replaced too
    shutil.copytree(source, link, ignore=shutil.ignore_patterns(".*", "__pycache__", "output"), dirs_exist_ok=True)


class Server:
    """A ComfyUI that runs from `start` to `stop`; a context manager. Its output goes to `log`, or to ours if None."""

    def __init__(
        self, environment: Environment, base: Path, *, cpu: bool, log: Path | None = None, own_group: bool = True,
        arguments: tuple = (),
    ) -> None:  # fmt: skip
        self.environment, self.base, self.cpu, self.log = environment, base, cpu, log
        self.own_group, self.arguments = own_group, arguments
        self.process = None
        self.address = ""

    def start(self, timeout: float = 600.0) -> Client:
        """Start the server and return a client once it answers. Raises SetupError with the end of its output."""
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        command = [self.environment.python, "main.py", "--listen", "127.0.0.1", "--port", port]
        command += ["--base-directory", self.base, "--database-url", "sqlite:///:memory:"]
        command += ["--disable-api-nodes", "--preview-method", "latent2rgb", "--disable-auto-launch"]
        command += ["--cpu"] if self.cpu else []
        command += self.arguments
        options = {"cwd": self.environment.comfyui, "env": self.environment.variables(), "stdin": subprocess.DEVNULL}
        with open(self.log, "ab") if self.log else contextlib.nullcontext() as output:
            if output is not None:
                options |= {"stdout": output, "stderr": subprocess.STDOUT}
            self.process = process.start(command, own_group=self.own_group, **options)
        try:
            return self._wait_until_ready(port, timeout)
        except BaseException:
            self.stop()
            raise

    def _wait_until_ready(self, port: int, timeout: float) -> Client:
        client = Client("127.0.0.1", port)
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise SetupError(f"ComfyUI ended with status {self.process.returncode} while starting:\n{self.tail()}")
            with contextlib.suppress(Unreachable):
                client.get("/system_stats", timeout=5.0)
                return client
            time.sleep(0.2)
        raise SetupError(f"ComfyUI did not answer at {self.address} within {timeout:.0f} s:\n{self.tail()}")

    def tail(self) -> str:
        """The end of the server's output."""
        return process.tail(self.log) if self.log else ""

    def stop(self) -> None:
        """Stop the server; harmless when it is not running."""
        if self.process is not None:
            process.stop(self.process)
            self.process = None

    def __enter__(self) -> Client:
        return self.start()

    def __exit__(self, *exception) -> None:
        self.stop()


def free_port() -> int:
    """A TCP port on the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def has_accelerator(environment: Environment) -> bool:
    """Whether the environment's PyTorch sees a GPU; without one ComfyUI must be started with --cpu."""
    question = (
        "import torch; xpu = getattr(torch, 'xpu', None); "
        "print(torch.cuda.is_available() or torch.backends.mps.is_available() or bool(xpu and xpu.is_available()))"
    )
    asked = subprocess.run([str(environment.python), "-c", question], capture_output=True, text=True, check=False)
    return asked.stdout.strip() == "True"
