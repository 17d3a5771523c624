"""A real ComfyUI with the pack for the tests: started in a base folder of its own, driven over HTTP and websocket."""

import os
import sys
from pathlib import Path

from runner.server import comfyui, workflow
from runner.server.client import Client, Result
from runner.server.environment import Environment


class ComfyServer:
    """A running server; a context manager. Everything about one prompt is in the `Result` of `post_prompt`.

    `front_end` is the folder of a front end (the package's `static`) to serve instead of ComfyUI's own; left out:
    OPENSORA_FRONT_END, where that is set.
    """

    def __init__(self, comfyui_path: Path, folder: Path, front_end: str | None = None):
        # The Python that runs the tests is the one that runs ComfyUI.
        environment = Environment(Path(sys.executable), comfyui_path, folder, folder / "tools", pinned=True)
        self.base = comfyui.make_base(folder / "base")
        self.log = folder / "comfyui.log"
        # In our own process group: whatever ends the test run as a whole ends the server too.
        front_end = front_end or os.environ.get("OPENSORA_FRONT_END")
        arguments = ("--front-end-root", Path(front_end).resolve()) if front_end else ()
        self._server = comfyui.Server(
            environment, self.base, cpu=True, log=self.log, own_group=False, arguments=arguments
        )
        self._object_info = None
        self.client: Client | None = None

    def __enter__(self) -> "ComfyServer":
        self.client = self._server.start()
        return self

    def __exit__(self, *exception) -> None:
        self._server.stop()

    @property
    def address(self) -> str:
        """Where the page is: http://127.0.0.1:PORT."""
        return self._server.address

    def alive(self) -> bool:
        """Whether the server process runs and answers."""
        return self._server.process.poll() is None and "system" in self.client.get("/system_stats")

    def anonymous_memory(self) -> int:
        """Bytes of the server process that no file backs (Linux: RssAnon)."""
        status = Path(f"/proc/{self._server.process.pid}/status").read_text(encoding="utf-8")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon"))

    def output_of_server(self) -> str:
        """Everything that the server has printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def post_prompt(self, graph: dict, timeout: float = 240.0, on_event=None) -> Result:
        """Queue an API graph, wait for its end, return what happened; see runner.server.client.Result and Client.run."""
        return self.client.run(graph, timeout, on_event)

    def run(self, graph: dict, timeout: float = 240.0) -> Result:
        """As post_prompt, but a run that fails is an AssertionError with the node's own words."""
        result = self.post_prompt(graph, timeout)
        assert result.success, f"{result.message or 'interrupted'}\n{result.error}"
        return result

    def interrupt(self) -> None:
        """Stop the prompt that is running; may be called from `on_event`."""
        self.client.interrupt()

    def view(self, file: dict) -> bytes:
        """The bytes of one of `Result.files()`."""
        return self.client.view(file)

    def object_info(self, node: str = "") -> dict:
        """The schema of every node (asked once), or a fresh answer about one (combos list the files of now)."""
        if node:
            return self.client.object_info(node)
        if self._object_info is None:
            self._object_info = self.client.object_info()
        return self._object_info

    def page_workflow_to_api(self, page_workflow: dict) -> dict:
        """The API graph of a workflow as the page saves it."""
        return workflow.page_to_api(page_workflow, self.client.object_info())
