"""Talking to a ComfyUI server over HTTP and its websocket, with the standard library."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import socket
import struct
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from typing import Any


class Unreachable(Exception):
    """The server does not answer (any more)."""


class Refused(Exception):
    """The server answered with an HTTP error; `status` and `body` (decoded JSON where it is some) say which."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(f"HTTP {status}: {body}")
        self.status = status
        self.body = body


@dataclasses.dataclass
class Result:
    """What became of one queued prompt.

    outputs: per node id what the node showed, as in ComfyUI's history. error: the `execution_error` message, or the
    server's refusal when validation failed (its `node_errors` then name the inputs). previews: preview pictures that
    arrived. events: all JSON messages about this prompt, as (type, data).
    """

    prompt_id: str = ""
    success: bool = False
    interrupted: bool = False
    outputs: dict = dataclasses.field(default_factory=dict)
    error: dict | None = None
    previews: int = 0
    events: list = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    @property
    def message(self) -> str:
        """All words of the error in one text: what an artist would read. Empty without one."""
        if self.error is None:
            return ""
        if "exception_message" in self.error:
            return self.error["exception_message"].strip()
        lines = [self.error.get("error", {}).get("message", ""), self.error.get("error", {}).get("details", "")]
        for node in self.error.get("node_errors", {}).values():
            lines += [f"{node['class_type']}: {e['message']}: {e['details']}" for e in node["errors"]]
        return "\n".join(line for line in lines if line)

    def files(self) -> list[dict]:
        """Every saved or previewed file among the outputs, as {filename, subfolder, type}."""
        shown = [value for output in self.outputs.values() for value in output.values() if isinstance(value, list)]
        return [item for value in shown for item in value if isinstance(item, dict) and "filename" in item]


class Client:
    """One server's HTTP interface."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.address = f"http://{host}:{port}"

    def request(self, path: str, data: bytes | None = None, timeout: float = 60.0) -> bytes:
        """GET, or POST where there is `data`. Raises Refused and Unreachable."""
        request = urllib.request.Request(
            self.address + path, data, {"Content-Type": "application/json"} if data else {}
        )
        # A proxy has no business on the loopback address.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=timeout) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            body = error.read()
            with contextlib.suppress(ValueError):
                body = json.loads(body)
            raise Refused(error.code, body) from None
        except OSError as error:
            raise Unreachable(f"{self.address}: {error}") from error

    def get(self, path: str, timeout: float = 60.0) -> Any:
        """GET a JSON answer."""
        return json.loads(self.request(path, timeout=timeout))

    def post(self, path: str, value: Any) -> Any:
        """POST `value` as JSON; the decoded answer, None where it is empty."""
        answer = self.request(path, json.dumps(value).encode())
        return json.loads(answer) if answer else None

    def object_info(self, node: str = "") -> dict:
        """The schema of every node, or of one."""
        return self.get("/object_info" + (f"/{urllib.parse.quote(node)}" if node else ""))

    def interrupt(self) -> None:
        """Stop the prompt that is running."""
        self.post("/interrupt", {})

    def view(self, file: dict) -> bytes:
        """The bytes of a file as the history names it: {filename, subfolder, type}."""
        return self.request("/view?" + urllib.parse.urlencode({k: file[k] for k in ("filename", "subfolder", "type")}))

    def run(self, graph: dict, timeout: float = 600.0, on_event: Callable[[str, Any], object] | None = None) -> Result:
        """Queue an API-format graph and wait for its end. Raises Unreachable, and TimeoutError after `timeout` seconds.

        `on_event(type, data)` is called for every message meanwhile; type "preview" has the picture's bytes.
        """
        client_id = uuid.uuid4().hex
        result = Result()
        began = time.monotonic()
        with WebSocket(self.host, self.port, f"/ws?clientId={client_id}", timeout) as messages:
            try:
                queued = self.post("/prompt", {"prompt": graph, "client_id": client_id})
            except Refused as refusal:
                result.error = refusal.body if isinstance(refusal.body, dict) else {"error": {"message": str(refusal)}}
                return result
            result.prompt_id = queued["prompt_id"]
            for message in messages:
                if isinstance(message, bytes):
                    result.previews += 1
                    kind, data = "preview", message
                else:
                    kind, data = message["type"], message.get("data", {})
                    if data.get("prompt_id", result.prompt_id) != result.prompt_id:
                        continue
                    result.events.append((kind, data))
                if on_event:
                    on_event(kind, data)
                if kind == "execution_error":
                    result.error = data
                result.interrupted |= kind == "execution_interrupted"
                result.success |= kind == "execution_success"
                if result.error or result.interrupted or result.success:
                    break
        result.seconds = time.monotonic() - began
        result.outputs = self._outputs(result.prompt_id)
        return result

    def _outputs(self, prompt_id: str) -> dict:
        # The history is written a moment after the last message.
        for _ in range(100):
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry is not None:
                return entry["outputs"]
            time.sleep(0.05)
        return {}


class WebSocket:
    """The receiving half of a websocket (RFC 6455): iterate over it for dicts (JSON text) and bytes (binary)."""

    def __init__(self, host: str, port: int, path: str, timeout: float) -> None:
        self.deadline = time.monotonic() + timeout
        try:
            self.socket = socket.create_connection((host, port), 10.0)
        except OSError as error:
            raise Unreachable(f"http://{host}:{port}: {error}") from error
        self.stream = self.socket.makefile("rb", 0)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        status = self.stream.readline()
        while self.stream.readline().strip():
            pass
        if b" 101 " not in status:
            self.close()
            raise Unreachable(f"http://{host}:{port}{path} is no websocket: {status!r}")

    def __iter__(self):
        parts, text = [], False
        while True:
            final, opcode, payload = self._frame()
            if opcode == 8:
                raise Unreachable("the server closed the websocket")
            if opcode == 9:
                self._send(10, payload)
            if opcode > 2:
                continue
            if opcode:
                parts, text = [], opcode == 1
            parts.append(payload)
            if final:
                message = b"".join(parts)
                yield json.loads(message) if text else message

    def _frame(self) -> tuple[bool, int, bytes]:
        first, second = self._read(2)
        length = second & 127
        if length == 126:
            (length,) = struct.unpack(">H", self._read(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", self._read(8))
        return bool(first & 128), first & 15, self._read(length)

    def _read(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("no end of the run within the time given")
            # Windows tells of a Ctrl-C only between two waits.
            self.socket.settimeout(min(left, 0.5))
            try:
                part = self.socket.recv(count - len(data))
            except TimeoutError:
                continue
            except OSError as error:
                raise Unreachable(f"the connection broke: {error}") from error
            if not part:
                raise Unreachable("the server closed the connection")
            data += part
        return bytes(data)

    def _send(self, opcode: int, payload: bytes) -> None:
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        self.socket.sendall(bytes([128 | opcode, 128 | len(payload)]) + mask + masked)

    def close(self) -> None:
        """Let go of the connection."""
        self.stream.close()
        self.socket.close()

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(self, *exception) -> None:
        self.close()
