"""The package that the Comfy registry would make: what git holds, without what .comfyignore leaves out."""

import base64
import fnmatch
import hashlib
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import ROOT
from PIL import Image

LARGEST, ALL = 13 << 20, 24 << 20  # bytes: of one file (the bundled transformer), of the package
LARGE_PICTURE = 30_000
PICTURES = (".png", ".jpg", ".webp", ".gif", ".mp4")


def patterns(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    found = [line for line in lines if line and not line.startswith("#")]
    # What `left_out` understands of the ignore files' language.
    assert all(re.fullmatch(r"[\w./*\[\]-]+", line) and "**" not in line and not line.startswith("/") for line in found)
    return found


def left_out(path, ignored):
    """Whether an ignore file leaves out a path, as git reads it."""
    parts = path.split("/")
    for pattern in ignored:
        if "/" in pattern.rstrip("/"):
            if fnmatch.fnmatch(path, pattern) or path.startswith(pattern.rstrip("/") + "/"):
                return True
        elif any(
            fnmatch.fnmatch(part, pattern.rstrip("/")) for part in (parts[:-1] if pattern.endswith("/") else parts)
        ):
            return True
    return False


@pytest.fixture(scope="module")
def package():
    """{path: its file}."""
    ignored = [".git", *patterns(".gitignore"), *patterns(".comfyignore")]
    files = [path for path in ROOT.rglob("*") if path.is_file()]
    named = {path.relative_to(ROOT).as_posix(): path for path in files}
    return {name: path for name, path in sorted(named.items()) if not left_out(name, ignored)}


def test_it_holds_what_runs_and_nothing_that_only_tests(package):
    assert {"LICENSE", "README.md", "__init__.py", "pyproject.toml", "assets/icon.png", "run.py"} <= package.keys()
    assert {f"model/bundled/{name}.safetensors" for name in ("transformer", "vae", "text_encoder")} <= package.keys()
    for folder in (
        "assets/training_clips",
        "locales",
        "model",
        "nodes",
        "runner",
        "training",
        "web",
        "web/docs",
        "workflows",
        "workflows/inputs",
    ):
        assert any(name.startswith(f"{folder}/") for name in package), folder
    tops = {name.split("/")[0] for name in package}
    assert not tops & {"tests", ".ci", ".github", "output", "tiny_run"}
    assert not [name for name in package if name.endswith((".pyc", ".log")) or "test" in Path(name).name]


def test_it_is_no_larger_than_it_has_to_be(package):
    sizes = {name: path.stat().st_size for name, path in package.items()}
    assert sum(sizes.values()) < ALL
    assert max(sizes.values()) < LARGEST
    assert all(name.startswith("model/bundled/") for name, size in sizes.items() if size > 2 << 20)


def test_no_large_picture_is_in_it_twice_or_unused(package):
    pictures = {name: path for name, path in package.items() if name.endswith(PICTURES)}
    large = [path.read_bytes() for path in pictures.values() if path.stat().st_size > LARGE_PICTURE]
    assert len({hashlib.sha256(content).digest() for content in large}) == len(large)
    pages = "".join(path.read_text(encoding="utf-8") for name, path in package.items() if name.endswith(".md"))
    assert not [name for name in pictures if name.startswith("docs/") and f"({Path(name).name})" not in pages
                and f"({name})" not in pages]  # fmt: skip


def test_icon_and_banner_are_those_of_the_project(comfy):
    from comfy_config.config_parser import extract_node_configuration, load_pyproject_settings

    settings = load_pyproject_settings(ROOT / "pyproject.toml").tool["comfy"]
    assert extract_node_configuration(str(ROOT)).tool_comfy.icon == settings["Icon"]
    for address, name in ((settings["Icon"], "icon"), (settings["Banner"], "banner")):
        kind, _, content = address.partition(";base64,")
        assert kind == "data:image/svg+xml"
        assert base64.b64decode(content) == (ROOT / "assets" / f"{name}.svg").read_bytes()
        left, top, width, height = map(int, ElementTree.fromstring(base64.b64decode(content)).get("viewBox").split())
        with Image.open(ROOT / "assets" / f"{name}.png") as picture:
            assert (left, top, *picture.size) == (0, 0, width, height)
    assert Image.open(ROOT / "assets" / "icon.png").size == (400, 400)
    width, height = Image.open(ROOT / "assets" / "banner.png").size
    assert width * 9 == height * 21
    assert all((ROOT / "assets" / name).stat().st_size < 20_000 for name in ("icon.png", "banner.png"))
