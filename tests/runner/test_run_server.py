"""run.py: talking to a server, and nothing left running."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runner.server import client, process

ROOT = Path(__file__).resolve().parents[2]
COMFYUI = os.environ.get("COMFYUI_PATH")


def test_websocket_messages_are_put_together(monkeypatch):
    """Frames of all three lengths, a fragmented text, and a ping in the middle of it, which must be answered."""

    def frame(first, payload):
        size = len(payload)
        if size < 126:
            return bytes([first, size]) + payload
        wide = size > 65535
        return bytes([first, 127 if wide else 126]) + size.to_bytes(8 if wide else 2, "big") + payload

    class Wire:
        sent = b""
        late = False

        def __init__(self):
            head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
            text = json.dumps({"type": "status", "data": "x" * 300}).encode()
            frames = frame(0x01, text[:200]) + frame(0x89, b"are you there") + frame(0x80, text[200:])
            self.incoming = io.BytesIO(head + frames + frame(0x82, b"p" * 70_000) + frame(0x88, b""))

        def makefile(self, mode, buffering):
            return self.incoming

        def recv(self, count):
            self.late = not self.late
            if self.late:
                raise TimeoutError
            return self.incoming.read(min(count, 1000))

        def sendall(self, data):
            self.sent += data

        def settimeout(self, seconds):
            assert 0 < seconds <= 1  # a Ctrl-C is not left waiting for the next message

        def close(self):
            pass

    wire = Wire()
    monkeypatch.setattr(client.socket, "create_connection", lambda *_: wire)
    messages = iter(client.WebSocket("h", 1, "/ws", 5.0))
    assert next(messages) == {"type": "status", "data": "x" * 300}
    assert next(messages) == b"p" * 70_000
    with pytest.raises(client.Unreachable):
        next(messages)
    pong = wire.sent.split(b"\r\n\r\n", 1)[1]
    assert pong[0] == 0x8A and pong[1] == 0x80 | len(b"are you there")
    assert bytes(byte ^ pong[2 + i % 4] for i, byte in enumerate(pong[6:])) == b"are you there"


def test_a_stock_graph_runs_and_is_not_mistaken_for_another(server):
    image = {"width": 64, "height": 32, "batch_size": 1, "color": 255}
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": image},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "stock"}},
    }
    result = server.run(graph)
    (file,) = result.files()
    assert server.view(file).startswith(b"\x89PNG")
    assert {"execution_start", "execution_success"} <= {kind for kind, _ in result.events}

    del graph["2"]["inputs"]["images"]
    refused = server.post_prompt(graph)
    assert not refused.success
    assert "SaveImage" in refused.message and "images" in refused.message
    assert server.alive()


def test_a_child_is_waited_for_in_short_turns():
    """On Windows a wait without an end takes no notice of Ctrl-C."""

    class Child:
        turns = 0

        def wait(self, timeout=None):
            assert timeout is not None and timeout <= 1
            self.turns += 1
            if self.turns < 3:
                raise subprocess.TimeoutExpired("child", timeout)
            return 7

        def poll(self):
            return 7

    assert process.wait(Child()) == 7


def test_stop_ends_what_a_child_started(tmp_path):
    """Also a grandchild that ignores the polite signal."""
    note = tmp_path / "pid"
    grandchild = (
        "import os, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "open(sys.argv[1] + '.part', 'w').write(str(os.getpid())); os.replace(sys.argv[1] + '.part', sys.argv[1]); "
        "time.sleep(60)"
    )
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}, sys.argv[1]])"
    parent = process.start([sys.executable, "-c", child, str(note)])
    wait_for(note.exists)
    pid = int(note.read_text())
    assert runs(pid)
    process.stop(parent, grace=1.0)
    wait_for(lambda: not runs(pid))


@pytest.mark.skipif(process.WINDOWS, reason="a console's Ctrl-C cannot be sent to one process there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_nothing_is_left_after_the_server_is_stopped(number, tmp_path):
    """`run.py ui` with a real ComfyUI, ended the way Ctrl-C and a polite kill end it; SIGINT early, SIGTERM when ready."""
    variables = {**os.environ, "OPENSORA_CACHE": str(tmp_path), "PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": ""}
    output = tmp_path / "output.txt"
    command = [sys.executable, str(ROOT / "run.py"), "ui", "--comfyui", COMFYUI]
    with open(output, "wb") as file:
        running = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=variables)
    try:
        sign = r"Open (http://\S+) in" if number == signal.SIGTERM else "Checkpoint|Total VRAM"
        wait_for(lambda: re.search(sign, output.read_text()) or running.poll() is not None, 600)
        assert running.poll() is None, output.read_text()
        servers = children(running.pid)
        assert servers, "run.py has no child that could be the server"
        running.send_signal(number)
        assert running.wait(60) == 130, output.read_text()
    finally:
        if running.poll() is None:
            running.kill()
    assert "nothing is left running" in output.read_text()
    wait_for(lambda: not any(runs(pid) for pid in servers))


def children(pid):
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def runs(pid):
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
