"""Reads out of the pack's sources which names of ComfyUI it touches, and how."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path

from .source_tree import SourceTree, chain, members, signature_of

# ComfyUI's own modules, as files of the pack import them.
MODULES = {
    "app", "comfy", "comfy_api", "comfy_api_nodes", "comfy_config", "comfy_execution", "comfy_extras", "execution",
    "folder_paths", "latent_preview", "node_helpers", "nodes", "protocol", "server",
}  # fmt: skip
# What variables of these names hold in nodes/comfy/: an attribute belongs to the first class that has it.
INSTANCES = {
    "patcher": ["comfy.model_patcher.ModelPatcher"],
    "model": ["comfy.model_patcher.ModelPatcher", "comfy.model_base.BaseModel", "comfy.samplers.KSamplerX0Inpaint"],
    "base": ["comfy.model_base.BaseModel"],
    "guider": ["comfy.samplers.CFGGuider"],
    "vae": ["comfy.sd.VAE"],
    "clip": ["comfy.sd.CLIP"],
    "config": ["comfy.supported_models_base.BASE"],
    "latent_format": ["comfy.latent_formats.LatentFormat"],
    "sampling": ["comfy.model_sampling.ModelSamplingDiscreteFlow"],
    "window": ["comfy.context_windows.IndexListContextWindow"],
    "executor": ["comfy.patcher_extension.WrapperExecutor"],
}


@dataclass
class Use:
    """How the pack uses one name of ComfyUI."""

    ways: set[str] = field(default_factory=set)  # "reads", "calls", "overrides", "derives"
    keywords: set[str] = field(default_factory=set)
    positional: int = 0
    ours: set[str] = field(default_factory=set)  # the arguments of what overrides it
    optional: bool = False
    firm: bool = False  # touched somewhere without asking first whether it is there


def used(pack: Path, tree: SourceTree) -> dict[str, Use]:
    """{dotted name: Use} for the files of nodes/ and nodes/comfy/.

    `tree` tells inherited from own names: the ComfyUI that the pack was written for.
    """
    files = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted((pack / "nodes").rglob("*.py"))}
    bindings = {path: _bindings(parsed) for path, parsed in files.items()}
    for path, parsed in files.items():
        for node in ast.walk(parsed):
            if isinstance(node, ast.ImportFrom) and node.level:
                folder = path.parents[node.level - 1]
                other = folder.joinpath(*(node.module or "").split(".")).with_suffix(".py")
                handed_on = bindings.get(other, {})
                bindings[path] |= {
                    alias.asname or alias.name: handed_on[alias.name] for alias in node.names if alias.name in handed_on
                }
    classes = {
        node.name: (node, bindings[path])
        for path, parsed in files.items()
        for node in ast.walk(parsed)
        if isinstance(node, ast.ClassDef)
    }
    found: dict[str, Use] = {}
    for path, parsed in files.items():
        _Reader(found, tree, bindings[path], classes).visit(parsed)
    for use in found.values():
        use.optional = use.optional and not use.firm
    return dict(sorted(found.items()))


def _bindings(parsed) -> dict[str, str]:
    """{name in this file: what it stands for} for what a file imports of ComfyUI."""
    bound = {}
    for node in ast.walk(parsed):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                if top in MODULES:
                    bound[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module.split(".")[0] in MODULES:
            bound |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return bound


class _Reader(ast.NodeVisitor):
    def __init__(self, found, tree, bound, classes):
        self.found, self.tree, self.bound, self.classes = found, tree, bound, classes
        self.bases = []  # of the class that is being read: dotted names in ComfyUI
        self.guarded = False  # behind a question whether something is there

    def note(self, name, way, optional=False):
        use = self.found.setdefault(name, Use())
        use.ways.add(way)
        if optional or self.guarded:
            use.optional = True
        else:
            use.firm = True
        return use

    def named(self, node):
        """The dotted name in ComfyUI that an expression stands for, or None."""
        names = chain(node)
        if not names:
            return None
        if names[0] in self.bound:
            return ".".join([self.bound[names[0]], *names[1:]])
        owners = self.bases if names[0] == "self" else INSTANCES.get(names[0])
        owner, attributes = owners, names[1:]
        for position, name in enumerate(attributes[:-1]):  # base.model_sampling.sigmas: the last that we know
            if name in INSTANCES:
                owner, attributes = INSTANCES[name], attributes[position + 1 :]
        return self._of(owner, attributes[0]) if owner and attributes else None

    def _of(self, owners, attribute):
        return next((f"{owner}.{attribute}" for owner in owners if self.tree.find(f"{owner}.{attribute}")), None)

    def visit_ClassDef(self, node):
        outer, self.bases = self.bases, self._bases(node, self.bound)
        for base in self.bases:
            self.note(base, "derives")
        for name, own in members(node).items() if self.bases else ():
            inherited = self._of(self.bases, name)
            if inherited:
                use = self.note(inherited, "overrides")
                if isinstance(own, ast.FunctionDef) and name != "__init__":
                    use.ours.add(signature_of(own, method=True).text)
        self.generic_visit(node)
        self.bases = outer

    def _bases(self, node, bound):
        """The ComfyUI classes that a class of ours derives from, through others of ours too."""
        bases = []
        for base in node.bases:
            names = chain(base) or [""]
            if names[0] in bound:
                bases.append(".".join([bound[names[0]], *names[1:]]))
            elif names[0] in self.classes and self.classes[names[0]][0] is not node:
                bases += self._bases(*self.classes[names[0]])
        return bases

    def visit_If(self, node):
        """What stands behind a question whether something is there is only touched where it is."""
        if not any(_asks(part) for part in ast.walk(node.test)):
            self.generic_visit(node)
            return
        self.visit(node.test)
        outer, self.guarded = self.guarded, True
        for part in node.body:
            self.visit(part)
        self.guarded = outer
        for part in node.orelse:
            self.visit(part)

    def visit_Call(self, node):
        function = node.func
        if isinstance(function, ast.Name) and function.id in ("getattr", "hasattr") and len(node.args) >= 2:
            asked, name = node.args[:2]
            (owner,) = INSTANCES.get((chain(asked) or [""])[-1], [None])[:1]
            owner = owner or self.named(asked)
            if owner and isinstance(name, ast.Constant):
                self.note(f"{owner}.{name.value}", "reads", optional=_asks(node))
            for part in node.args:
                self.visit(part)
            return
        called = self._called(function)
        if called:
            use = self.note(called, "calls")
            use.keywords |= {keyword.arg for keyword in node.keywords if keyword.arg}
            if not any(isinstance(argument, ast.Starred) for argument in node.args):
                use.positional = max(use.positional, len(node.args))
            parts = [*node.args, *(keyword.value for keyword in node.keywords)]
            for part in parts:
                self.visit(part)
            return
        self.generic_visit(node)

    def _called(self, function):
        """The dotted name that is called: by name, or a base class's method through super()."""
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Call):
            maker = function.value.func
            if isinstance(maker, ast.Name) and maker.id == "super":
                return self._of(self.bases, function.attr)
        return self.named(function)

    def visit_Attribute(self, node):
        name = self.named(node)
        if name:
            self.note(name, "reads")
        else:
            self.generic_visit(node)

    def visit_Name(self, node):
        if node.id in self.bound and isinstance(node.ctx, ast.Load):
            self.note(self.bound[node.id], "reads")


def _asks(node) -> bool:
    """Whether an expression is hasattr(…) or getattr(…) with a value for the case that there is none."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return False
    return node.func.id == "hasattr" or (node.func.id == "getattr" and len(node.args) > 2)


def used_of_the_page(pack: Path) -> list[str]:
    """What the files in web/ touch of the page's global objects: `app.graph`, `LiteGraph.createNode`, …"""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted((pack / "web").glob("*.js")))
    text = re.sub(r"(?m)^import .*$", "", text)
    return sorted(set(re.findall(r"\b(?:app|api|LiteGraph|LGraphCanvas)(?:\.[A-Za-z_]\w*)+", text)))
