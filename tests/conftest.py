"""What all tests share: the pack under one name, ComfyUI on the CPU in this process, and a real server once a session."""

import contextlib
import importlib.util
import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMFYUI = Path(os.environ["COMFYUI_PATH"]).resolve() if os.environ.get("COMFYUI_PATH") else None
# Set by `python run.py test` with the pinned ComfyUI: the page's tests then run in two front ends.
NEWER_FRONT_END = os.environ.get("OPENSORA_NEWER_FRONT_END")
# Set by `python run.py test`: real clips and pictures, which are not part of the repository.
FOOTAGE = os.environ.get("OPENSORA_FOOTAGE")
NO_COMFYUI = "These tests need ComfyUI: run them with `python run.py test`, or set COMFYUI_PATH to its folder."

# The files without a browser that take 15 to 40 seconds of one core.
LONG = {
    "tests/nodes/test_devices.py",
    "tests/nodes/test_hooks_compile.py",
    "tests/nodes/test_loading.py",
    "tests/nodes/test_previews.py",
    "tests/nodes/test_sampling.py",
    "tests/nodes/test_vae_families.py",
    "tests/runner/test_run_server.py",
    "tests/runner/test_training_ways.py",
    "tests/test_folder_name.py",
    "tests/test_keyframes_tiny.py",
    "tests/test_tiny_model.py",
    "tests/test_workflows.py",
    "tests/training/footage/test_on_ray.py",
    "tests/training/test_main.py",
    "tests/training/tiny/test_recipe.py",
    "tests/training/trainer/test_launching.py",
    "tests/training/trainer/test_processes.py",
    "tests/training/trainer/test_resume.py",
}


def load_package(name: str, folder: Path):
    """Import the package in `folder` as `name`, without making its neighbours importable."""
    if name not in sys.modules:
        location = folder / "__init__.py"
        spec = importlib.util.spec_from_file_location(name, location, submodule_search_locations=[str(folder)])
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


# `python -m pytest` makes the current folder importable, and our nodes/ would hide ComfyUI's module `nodes`.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
load_package("runner", ROOT / "runner")
load_package("opensora_comfy", ROOT)


def pytest_addoption(parser):
    parser.addoption("--no-browser", action="store_true", help="leave out the tests that need a browser")


def pytest_configure(config):
    """Let tests import ComfyUI's modules in this process: on the CPU, with folders of our own."""
    if COMFYUI is None:
        return
    sys.path.insert(0, str(COMFYUI))
    import comfy.cli_args

    base = tempfile.mkdtemp(prefix="opensora-inprocess-")
    config.add_cleanup(lambda: shutil.rmtree(base, ignore_errors=True))
    comfy.cli_args.args.cpu = True
    comfy.cli_args.args.base_directory = base


def pytest_collection_modifyitems(config, items):
    """Deselect the browser tests where asked to; on several cores, begin with the files that have the most of them.

    Those take minutes: begun last, one of them would leave the other cores idle. Behind them come the LONG ones.
    """
    browser = [item for item in items if item.get_closest_marker("browser")]
    if config.getoption("--no-browser"):
        config.hook.pytest_deselected(items=browser)
        items[:] = [item for item in items if item not in browser]
    elif hasattr(config, "workerinput"):
        count = Counter(item.path for item in browser)
        items.sort(key=lambda item: (-count[item.path], item.path.relative_to(ROOT).as_posix() not in LONG))


@pytest.fixture(scope="session")
def comfy():
    """ComfyUI's `comfy` package in this process, on the CPU, with the modules loaded that node tests use."""
    if COMFYUI is None:
        pytest.fail(NO_COMFYUI)
    import comfy
    import comfy.model_management
    import comfy.sample
    import comfy.samplers
    import comfy.sd

    assert comfy.model_management.get_torch_device().type == "cpu"
    return comfy


@pytest.fixture(scope="session")
def tiny(comfy):
    """The bundled tiny model, loaded once a session: a `tiny.Tiny`."""
    from tiny import Tiny

    return Tiny()


@pytest.fixture(scope="session")
def footage():
    """The folder of real clips and pictures: `runner.server.extras.FOOTAGE` says which, and where they come from."""
    if not FOOTAGE:
        pytest.fail("These tests need real clips: run them with `python run.py test`.")
    return Path(FOOTAGE)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A real ComfyUI with the pack, started once a session: a `comfy_server.ComfyServer`."""
    if COMFYUI is None:
        pytest.fail(NO_COMFYUI)
    from comfy_server import ComfyServer

    with ComfyServer(COMFYUI, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="session")
def newer_server(tmp_path_factory):
    """As `server`, but with the newer front end."""
    if COMFYUI is None:
        pytest.fail(NO_COMFYUI)
    from comfy_server import ComfyServer

    with ComfyServer(COMFYUI, tmp_path_factory.mktemp("newer_server"), NEWER_FRONT_END) as running:
        yield running


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium, started once a session: a `browser.Chromium`."""
    from browser import headless_chromium

    with headless_chromium() as chromium:
        yield chromium


@pytest.fixture
def page(server, browser):
    """A fresh page of the server in the browser, with the graph editor ready: a `browser.ComfyPage`."""
    from browser import ComfyPage

    with contextlib.closing(ComfyPage(browser, server.address)) as opened:
        yield opened


@pytest.fixture(scope="session", params=["server", *(["newer_server"] if NEWER_FRONT_END else [])])
def each_server(request):
    """A server a front end: ComfyUI's own, then the newer one. For tests that also look at what was run."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def each_page(each_server, browser):
    """As `page`, once a front end."""
    from browser import ComfyPage

    with contextlib.closing(ComfyPage(browser, each_server.address)) as opened:
        yield opened
