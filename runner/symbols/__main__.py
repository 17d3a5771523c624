"""Writes the list of ComfyUI's names that the pack uses anew: python -m runner.symbols COMFYUI."""

import sys
from pathlib import Path

from . import LIST, PACK, as_text, listing
from .source_tree import SourceTree

LIST.write_text(as_text(listing(PACK, SourceTree(Path(sys.argv[1]).resolve()))), encoding="utf-8", newline="\n")
