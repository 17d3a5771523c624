"""The names of ComfyUI that the pack touches, and what a given ComfyUI says of each: there, gone, other arguments.

Nothing is imported: both sides are read as sources, so a new release is judged in seconds.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from .source_tree import SourceTree, signature_from
from .touched import used, used_of_the_page

PACK = Path(__file__).resolve().parents[2]
LIST = PACK / "docs" / "comfyui-symbols.json"


def listing(pack: Path, tree: SourceTree) -> dict:
    """What is committed in docs/comfyui-symbols.json; `tree` is the ComfyUI that the pack was written for."""
    symbols = {}
    for name, use in used(pack, tree).items():
        found = tree.find(name)
        entry = {"use": sorted(use.ways)}
        if found and found.signature:
            entry["signature"] = found.signature.text
        if use.keywords:
            entry["keywords"] = sorted(use.keywords)
        if use.positional:
            entry["positional"] = use.positional
        # Arguments that a base class names must be those of what stands in for its method.
        if use.ours and found and found.signature and found.signature.names:
            entry["ours"] = sorted(use.ours)
        if use.optional:
            entry["optional"] = True
        symbols[name] = entry
    return {"comfyui": version(tree.root), "symbols": symbols, "page": used_of_the_page(pack)}


def as_text(listed: dict) -> str:
    """A listing as the JSON file holds it: a line a name."""
    lines = [f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in listed["symbols"].items()]
    page = [f"  {json.dumps(name)}" for name in listed["page"]]
    return (
        f'{{\n"comfyui": {json.dumps(listed["comfyui"])},\n"symbols": {{\n'
        + ",\n".join(lines) + '\n},\n"page": [\n' + ",\n".join(page) + "\n]\n}\n"
    )  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """What a ComfyUI says of one name."""

    name: str
    state: str  # "present", "grown" (takes more than it did), "changed", "absent" (and optional), "missing", "broken"
    words: str = ""

    @property
    def bad(self) -> bool:
        """Whether the pack cannot work with it as it is."""
        return self.state in ("missing", "broken")


def judge(listed: dict, tree: SourceTree) -> list[Verdict]:
    """A Verdict for every name of a listing."""
    return [Verdict(name, *_verdict(name, entry, tree)) for name, entry in listed["symbols"].items()]


def _verdict(name, entry, tree):
    """(state, words) of one name."""
    found = tree.find(name)
    if found is None:
        uses = f"the pack {' and '.join(entry['use'])} it"
        return ("absent", f"{uses} where it is there") if entry.get("optional") else ("missing", uses)
    now = found.signature
    if now is None:
        return ("changed", "could be called, and can no more") if "signature" in entry else ("present", "")
    before = signature_from(entry["signature"]) if "signature" in entry else None
    if "calls" in entry["use"]:
        refused = now.refuses(entry.get("positional", 0), entry.get("keywords", ()))
        if refused:
            if entry.get("optional"):
                return "absent", f"the pack passes {', '.join(refused)} where it is taken"
            return "broken", f"no longer takes {', '.join(refused)}: {now.text}"
    for own in entry.get("ours", ()):
        unknown = signature_from(own).unknown(now)
        if unknown and not set(unknown) <= set(before.names):
            return "broken", f"ours would be called with {', '.join(unknown)}, and takes {own}: {now.text}"
    if before is None or now.text == before.text:
        return "present", ""
    kept = now.positional[: len(before.positional)] == before.positional and set(before.names) <= set(now.names)
    return "grown" if kept else "changed", f"{before.text} is now {now.text}"


def report(listed: dict, tree: SourceTree) -> tuple[str, bool]:
    """(what `run.py symbols` prints, whether the pack can work with this ComfyUI as far as names tell)."""
    verdicts = judge(listed, tree)
    width = max(len(verdict.name) for verdict in verdicts)
    lines = [f"{verdict.state:8} {verdict.name:{width}} {verdict.words}".rstrip() for verdict in verdicts]
    counts = Counter(verdict.state for verdict in verdicts)
    found = ", ".join(f"{count} {state}" for state, count in sorted(counts.items(), key=lambda item: -item[1]))
    good = not any(verdict.bad for verdict in verdicts)
    lines += ["", "Used of the page (not checked here; the browser tests do): " + ", ".join(listed["page"]), ""]
    lines += [f"ComfyUI {version(tree.root) or 'of unknown version'}, against {listed['comfyui']}: {found}."]
    lines += [f"{verdict.state}: {verdict.name}: {verdict.words}" for verdict in verdicts if verdict.bad]
    return "\n".join(lines), good


def version(comfyui: Path) -> str:
    """What a ComfyUI calls itself, "" where it does not say."""
    path = comfyui / "comfyui_version.py"
    said = re.search(r'__version__\s*=\s*"([^"]+)"', path.read_text(encoding="utf-8")) if path.is_file() else None
    return said[1] if said else ""
