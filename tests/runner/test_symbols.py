"""The committed list of ComfyUI's names that the pack uses: it is what the code says, and this ComfyUI has them all."""

import json
import re
import shutil

import pytest
from conftest import COMFYUI, NO_COMFYUI, ROOT

from runner import symbols
from runner.symbols.source_tree import SourceTree
from runner.symbols.touched import used

WRITTEN_FOR = "0.3.75"


@pytest.fixture(scope="module")
def listed():
    return json.loads(symbols.LIST.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tree():
    assert COMFYUI, NO_COMFYUI
    return SourceTree(COMFYUI)


@pytest.fixture
def pack(tmp_path):
    """A copy of what the list is made from, to be changed."""
    for folder in ("nodes", "web"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def states(listed, tree):
    return {verdict.name: verdict for verdict in symbols.judge(listed, tree)}


def test_the_list_is_what_the_code_touches(listed, tree):
    """Written anew by: python -m runner.symbols COMFYUI, for the ComfyUI that it was made with."""
    assert listed["comfyui"] == WRITTEN_FOR
    if symbols.version(COMFYUI) == WRITTEN_FOR:
        assert symbols.as_text(symbols.listing(ROOT, tree)) == symbols.LIST.read_text(encoding="utf-8")
    else:  # another version's classes have other members
        touched = [
            name for name in used(ROOT, tree) if (of := tree.find(name.rpartition(".")[0])) and of.kind == "module"
        ]
        assert len(touched) > 50 and set(touched) <= set(listed["symbols"])


def test_this_comfyui_has_every_name(listed, tree):
    words, good = symbols.report(listed, tree)
    assert good, words
    absent = {name for name, verdict in states(listed, tree).items() if verdict.state == "absent"}
    assert absent <= {name for name, entry in listed["symbols"].items() if entry.get("optional")}
    if symbols.version(COMFYUI) == WRITTEN_FOR:
        assert not [name for name, verdict in states(listed, tree).items() if verdict.state in ("changed", "grown")]


def test_the_pack_asks_for_the_comfyui_that_it_was_written_for():
    said = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'requires-comfyui = "([^"]+)"', said)[1] == f">={WRITTEN_FOR}"


def test_every_way_to_use_a_name_is_seen(listed):
    """One of each: imported, called with keywords, read from an object, overridden, derived from, asked for."""
    names = listed["symbols"]
    assert "denoise_mask" in names["comfy.samplers.CFGGuider.sample"]["keywords"]
    assert names["comfy.model_patcher.ModelPatcher.add_wrapper_with_key"]["use"] == ["calls"]
    assert "overrides" in names["comfy.sd.VAE.decode"]["use"]
    assert "derives" in names["comfy.model_base.BaseModel"]["use"]
    assert "calls" in names["comfy.model_base.BaseModel.extra_conds"]["use"]  # through super()
    assert "tooltip" in names["comfy_api.latest.io.Int.Input"]["keywords"]  # in a node file, through schema.py
    assert names["comfy.model_patcher.CoreModelPatcher"]["optional"]
    assert names["comfy.utils.convert_old_quants"]["optional"] and "optional" not in names["comfy.sd.CLIP"]


@pytest.mark.parametrize(
    "line, name, state",
    [
        ("import comfy.utils\ncomfy.utils.no_such_thing(1)", "comfy.utils.no_such_thing", "missing"),
        ("from comfy.utils import nowhere\nnowhere()", "comfy.utils.nowhere", "missing"),
        ("import comfy.ghost as g\ng.thing", "comfy.ghost.thing", "missing"),
        ("import comfy.utils as u\ngetattr(u, 'perhaps', None)", "comfy.utils.perhaps", "absent"),
        ("import comfy.utils\nif hasattr(comfy.utils, 'x'):\n    comfy.utils.y()", "comfy.utils.y", "absent"),
        ("import comfy.sample\ncomfy.sample.prepare_noise(1, 2, no_such=3)", "comfy.sample.prepare_noise", "broken"),
        (
            "import comfy.sd\nclass V(comfy.sd.VAE):\n    def encode_tiled_3d(self, samples): pass",
            "comfy.sd.VAE.encode_tiled_3d",
            "present",
        ),
    ],
)
def test_what_is_wrong_is_found(line, name, state, pack, tree):
    (pack / "nodes" / "comfy" / "extra.py").write_text(line)
    assert states(symbols.listing(pack, tree), tree)[name].state == state


def test_what_a_version_took_away_is_found(listed, tree, tmp_path):
    """A ComfyUI that lost a function, renamed an argument of another, and calls a method of ours with a new one."""
    for folder in ("comfy", "comfy_api", "comfy_execution", "comfy_extras"):
        shutil.copytree(COMFYUI / folder, tmp_path / folder, ignore=lambda folder, names: [
            name for name in names if "." in name and not name.endswith(".py")
        ])  # fmt: skip
    for file in ("folder_paths.py", "latent_preview.py", "server.py", "comfyui_version.py"):
        shutil.copy(COMFYUI / file, tmp_path)

    def change(file, old, new):
        text = (tmp_path / file).read_text(encoding="utf-8")
        assert text.count(old) == 1
        (tmp_path / file).write_text(text.replace(old, new), encoding="utf-8")

    assert not [name for name, verdict in states(listed, SourceTree(tmp_path)).items() if verdict.bad]
    change("comfy/sample.py", "def fix_empty_latent_channels(", "def fix_empty_channels(")
    change("comfy/conds.py", "class CONDConstant(", "class CONDFixed(")
    change(
        "comfy/model_management.py",
        "def unet_dtype(device=None, model_params=0,",
        "def unet_dtype(device=None, params=0,",
    )
    change(
        "comfy/sd.py",
        "def decode(self, samples_in, vae_options={}",
        "def decode(self, samples_in, vae_options={}, tiles=None",
    )
    change("latent_preview.py", "def prepare_callback(model, steps,", "def prepare_callback(model,")
    found = states(listed, SourceTree(tmp_path))
    bad = {name: verdict.state for name, verdict in found.items() if verdict.bad}
    assert bad.pop("comfy.sample.fix_empty_latent_channels") == "missing"
    assert bad.pop("comfy.conds.CONDConstant") == "missing"
    assert bad.pop("comfy.model_management.unet_dtype") == "broken"
    assert bad.pop("comfy.sd.VAE.decode") == "broken"
    assert not bad
    assert found["latent_preview.prepare_callback"].state == "changed"
    words, good = symbols.report(listed, SourceTree(tmp_path))
    assert not good and "missing: comfy.sample.fix_empty_latent_channels" in words
