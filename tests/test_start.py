"""What installing the pack does to a ComfyUI that never uses it: no time, no network, and nothing is different."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import COMFYUI, NO_COMFYUI, ROOT
from small import pack

LIMIT = 0.3


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """What start_of_comfyui.py says, run in a process of its own."""
    assert COMFYUI, NO_COMFYUI
    base = tmp_path_factory.mktemp("base")
    for name in ("custom_nodes", "models", "input", "output", "temp", "user"):
        (base / name).mkdir()
    (base / "index.html").touch()
    program = Path(__file__).parent / "helpers" / "start_of_comfyui.py"
    ended = subprocess.run(
        [sys.executable, str(program), str(COMFYUI), str(ROOT), str(base)],
        capture_output=True, text=True, timeout=600, cwd=COMFYUI,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.splitlines()[-1])


def test_loading_the_pack_takes_no_time(report):
    """In seconds of the processor, the quickest of four, whatever else the machine does; no other package comes along."""
    assert min(report["seconds"]) < LIMIT, report["seconds"]
    assert {name.split(".")[0] for name in report["brought"]} <= set(sys.stdlib_module_names)


def test_loading_and_running_ask_nothing_of_the_network(report):
    assert report["network"] == []


def test_nothing_of_comfyui_is_replaced(report):
    """Neither as the pack is loaded nor as its nodes run; its nodes are all that there is more of."""
    assert report["changed"] == [] and report["changed_by_running"] == []
    assert not any(report["lost"].values())
    assert report["added"]["nodes"] == sorted(node.define_schema().node_id for node in pack("nodes").NODES)
    assert report["added"]["routes"] == []
    assert set(report["added"]["replacements"]) <= set(pack("nodes.comfy.replacements").REPLACEMENTS)
    assert report["frames"][0] == 17


def test_a_stock_graph_saves_the_same(report):
    before, after = report["stock"]
    assert len(before) == 2 and before == after
