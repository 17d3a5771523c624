"""Looks names up in a folder of Python sources unimported: what they are and which arguments they take.

Ours, as run.py judges a ComfyUI with the standard library alone: griffe reads signatures and inheritance too, but would
have to be installed first, and what reads the pack itself (touched.py) would stay as it is.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Signature:
    """The arguments of a callable as a caller sees them, without self."""

    positional: tuple[str, ...]  # those that may be given by position, in order
    keyword_only: tuple[str, ...]
    any_positional: bool
    any_keyword: bool
    text: str = field(compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Every argument that has a name."""
        return self.positional + self.keyword_only

    def unknown(self, other: Signature) -> list[str]:
        """Named arguments of `other` that a callable with this one, put in its place, could not be given."""
        if self.any_keyword or self.any_positional:
            return []
        return [name for name in other.names if name not in self.names]

    def refuses(self, count: int, keywords: Iterable[str]) -> list[str]:
        """What a call with so many positional arguments and these keywords would be refused for; [] if it is not."""
        refused = [name for name in keywords if not self.any_keyword and name not in self.names]
        if count > len(self.positional) and not self.any_positional:
            refused.append(f"positional argument {count}")
        return refused


@dataclass(frozen=True)
class Found:
    """What a name stands for: "module", "class", "function" or "value"; the signature of what can be called."""

    kind: str
    signature: Signature | None = None


class SourceTree:
    """The modules below `root`; every name is dotted from there: "package.module.Class.method"."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.definition = functools.cache(self._definition)
        self.names_in = functools.cache(self._names_in)

    def find(self, dotted: str) -> Found | None:
        """What `dotted` is, or None where there is no such name."""
        found = self.definition(dotted)
        if found is None:
            owner = self.find(dotted.removesuffix(".__init__")) if dotted.endswith(".__init__") else None
            return Found("function", owner.signature) if owner and owner.signature else None  # a dataclass's
        module, node = found
        if isinstance(node, ast.Module):
            return Found("module")
        if isinstance(node, ast.ClassDef):
            return Found("class", self._constructor(module, node))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            words = {word.id for word in node.decorator_list if isinstance(word, ast.Name)}
            method = self.names_in(module)[0].get(node.name) is not node and "staticmethod" not in words
            return Found("value" if "property" in words else "function", signature_of(node, method))
        return Found("value")

    def _definition(self, dotted: str):
        """(dotted name of the module, node) of a name, or None."""
        parts = dotted.split(".")
        for cut in range(len(parts), 0, -1):
            module = ".".join(parts[:cut])
            if self.names_in(module) is None:
                continue
            if cut == len(parts):
                return module, self._tree(module)
            found = self._in_module(module, parts[cut])
            for name in parts[cut + 1 :]:
                found = found and self._member(*found, name)
            return found
        return None

    def _in_module(self, module, name, seen=()):
        if (module, name) in seen:
            return None
        names, stars = self.names_in(module)
        node = names.get(name)
        if isinstance(node, str):  # imported from elsewhere
            return self.definition(node) if node != f"{module}.{name}" else None
        if node is not None:
            return module, node
        for other in stars:
            found = self.names_in(other) and self._in_module(other, name, (*seen, (module, name)))
            if found:
                return found
        return None

    def _member(self, module, node, name):
        """`name` of a class, its own or inherited, an attribute of its instances included; of a module: its names."""
        if isinstance(node, ast.Module):
            return self.definition(f"{module}.{name}")
        if not isinstance(node, ast.ClassDef):
            return None
        own = members(node).get(name)
        if own is not None:
            return module, own
        for base in self.bases(module, node):
            found = self._member(*base, name)
            if found:
                return found
        return None

    def bases(self, module: str, node: ast.ClassDef) -> list[tuple[str, ast.AST]]:
        """(module, class) of the bases of a class that lie in this tree."""
        found = []
        for base in node.bases:
            path = chain(base)
            start = path and self._in_module(module, path[0])
            for name in (path or [])[1:]:
                start = start and self._member(*start, name)
            if start and isinstance(start[1], ast.ClassDef) and start[1] is not node:
                found.append(start)
        return found

    def _constructor(self, module, node):
        found = self._member(module, node, "__init__")
        if found and isinstance(found[1], ast.FunctionDef):
            return signature_of(found[1], method=True)
        if any("dataclass" in ast.unparse(word) for word in node.decorator_list):
            fields = [part.target.id for part in node.body if isinstance(part, ast.AnnAssign)]
            return Signature(tuple(fields), (), False, False, f"({', '.join(fields)})")
        return None

    def _path(self, module: str) -> Path | None:
        path = self.root.joinpath(*module.split("."))
        for candidate in (path.with_name(path.name + ".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
        return None

    def _tree(self, module: str) -> ast.Module:
        path = self._path(module)
        return parsed(path.read_text(encoding="utf-8") if path else "")

    def _names_in(self, module: str):
        """({name: node, or dotted name where it is imported}, modules that are imported with a star), or None."""
        path = self._path(module)
        if path is None:
            return ({}, []) if self.root.joinpath(*module.split(".")).is_dir() else None
        names, stars = {}, []
        package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
        for node in statements(self._tree(module).body):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name.split(".")[0]
                    names.setdefault(alias.asname or top, alias.name if alias.asname else top)
            elif isinstance(node, ast.ImportFrom):
                base = [*package[: len(package) + 1 - node.level]] if node.level else []
                base = ".".join([*base, *filter(None, [node.module])])
                for alias in node.names:
                    if alias.name == "*":
                        stars.append(base)
                    else:
                        names.setdefault(alias.asname or alias.name, f"{base}.{alias.name}")
            else:
                for name, what in defined(node):
                    names.setdefault(name, what)
        return names, stars


@functools.cache
def parsed(text: str) -> ast.Module:
    """The syntax tree of a source."""
    return ast.parse(text)


def statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module or class, those below if, try and with included."""
    for node in body:
        yield node
        for part in ("body", "orelse", "finalbody", "handlers"):
            if isinstance(node, (ast.If, ast.Try, ast.With, ast.ExceptHandler)):
                yield from statements(getattr(node, part, []))


def defined(node: ast.stmt) -> Iterator[tuple[str, ast.AST]]:
    """(name, node) pairs that a statement defines."""
    if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        yield node.name, node
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        for target in targets:
            for part in target.elts if isinstance(target, ast.Tuple) else [target]:
                if isinstance(part, ast.Name):
                    yield part.id, node


@functools.cache
def members(node: ast.ClassDef) -> dict:
    """What a class defines: its methods and attributes, and what its methods set on self."""
    found = {}
    for part in statements(node.body):
        for name, what in defined(part):
            found.setdefault(name, what)
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store) and chain(part) == ["self", part.attr]:
            found.setdefault(part.attr, part)
    return found


def chain(node: ast.AST) -> list[str] | None:
    """["a", "b", "c"] of the expression a.b.c, else None."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id, *reversed(names)] if isinstance(node, ast.Name) else None


def signature_of(node: ast.FunctionDef | ast.AsyncFunctionDef, method: bool) -> Signature:
    """The Signature of a def; of a method without its first argument."""
    arguments = node.args
    positional = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)][1 if method else 0 :]
    return Signature(
        tuple(positional),
        tuple(argument.arg for argument in arguments.kwonlyargs),
        arguments.vararg is not None,
        arguments.kwarg is not None,
        f"({_words(arguments, method)})",
    )


def signature_from(text: str) -> Signature:
    """The Signature whose text is "(a, b=1, **rest)"."""
    return signature_of(ast.parse(f"def f{text}: pass").body[0], method=False)


def _words(arguments, method):
    """The arguments as text, with defaults and without annotations."""
    plain = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    first = len(plain) - len(arguments.defaults)
    words = [
        name if index < first else f"{name}={ast.unparse(arguments.defaults[index - first])}"
        for index, name in enumerate(plain)
    ][1 if method else 0 :]
    if arguments.vararg or arguments.kwonlyargs:
        words.append(f"*{arguments.vararg.arg}" if arguments.vararg else "*")
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults):
        words.append(argument.arg if default is None else f"{argument.arg}={ast.unparse(default)}")
    return ", ".join([*words, *([f"**{arguments.kwarg.arg}"] if arguments.kwarg else [])])
