"""model/ by itself: a script that has the pack's folder on its path and no ComfyUI."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import sys
sys.path.insert(0, {root!r})
import model
print(model.text.clean_caption("A red  CIRCLE"))
print(len(model.flow.timesteps(30, 64, 64, 17, version="1.2")))
print([name for name in sys.modules if name.split(".")[0] in ("comfy", "folder_paths", "nodes", "training")])
"""


def test_model_needs_only_the_packs_folder(tmp_path):
    # Isolated: neither the current folder nor PYTHONPATH is searched.
    command = [sys.executable, "-I", "-c", SCRIPT.format(root=str(ROOT))]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == ["a red circle", "30", "[]"]
