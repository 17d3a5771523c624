"""The house rules of DESIGN: who imports whom, a docstring on every file, a help page a node, a picture a workflow."""

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import COMFYUI, LONG
from small import pack

from runner.symbols.touched import MODULES as COMFYUI_MODULES

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("model", "nodes", "training", "runner", "tests")
FILES = sorted([*ROOT.glob("*.py"), *(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))])
SHIPPED = [file for file in FILES if file.relative_to(ROOT).parts[0] != "tests"]
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))

# Node types that live in ComfyUI's front end alone.
PAGE_NODES = {"MarkdownNote", "Note", "PrimitiveNode", "Reroute"}


def name(path):
    return path.relative_to(ROOT).as_posix()


def imports(path, at_import=False):
    """What a file imports, anywhere in it: (dotted names from outside, dotted names from the root of the pack).

    `at_import`: only what it imports whenever it is imported itself.
    """
    outside, own = set(), set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if at_import else ast.walk(tree):
        if isinstance(node, ast.Import):
            outside |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            outside.add(node.module)
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT).parts[:-1]
            assert node.level <= len(package) + 1, f"{name(path)}:{node.lineno} imports from outside the pack"
            base = [*package[: len(package) + 1 - node.level], *(node.module or "").split(".")]
            own |= {".".join(filter(None, [*base, alias.name])) for alias in node.names}
    return outside, own


def tops(names):
    return {dotted.split(".")[0] for dotted in names}


def offenders(files, allowed_own, forbidden_outside):
    """{file: what it should not import}."""
    found = {}
    for path in files:
        outside, own = imports(path)
        bad = (tops(outside) & forbidden_outside) | (tops(own) - allowed_own)
        if bad:
            found[name(path)] = sorted(bad)
    return found


def test_imports_are_read_as_python_reads_them():
    outside, own = imports(ROOT / "nodes" / "comfy" / "sampling" / "run.py")
    assert "latent_preview" in outside and "comfy" in tops(outside)
    assert {"model.flow", "nodes.comfy.latent.sizes_of"} <= own


@pytest.mark.parametrize("folder, allowed", [("model", {"model"}), ("training", {"training", "model"})])
def test_networks_and_training_know_nothing_of_nodes_or_comfyui(folder, allowed):
    """Neither by relative imports nor by bare names of the pack's own folders, which ComfyUI could not resolve."""
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    assert not offenders(files, allowed, COMFYUI_MODULES | set(FOLDERS))


def test_only_nodes_comfy_touches_comfyui():
    folder = ROOT / "nodes" / "comfy"
    files = [path for path in SHIPPED if folder not in path.parents]
    assert not offenders(files, set(FOLDERS), COMFYUI_MODULES)
    assert not {name(path): by_name(path) for path in files if by_name(path)}


# What divides by a VAE's unit of time without counting a clip: the temporal VAE pads a chunk, the shift of the timesteps
# has a length of its own.
DIVIDE = {"model/frames.py", "model/vaes/temporal.py", "model/flow.py"}


def counts_frames(path):
    """The places of a file that divide by what a VAE counts in: 17, 5, `….chunk_frames`, `….factor`, `….step`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        divisor = None
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.FloorDiv, ast.Mod)):
            divisor = node.right
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "divmod":
            divisor = node.args[1]
        number = isinstance(divisor, ast.Constant) and divisor.value in (17, 5)
        if number or isinstance(divisor, ast.Attribute) and divisor.attr in ("chunk_frames", "factor", "step"):
            found.append(f"{name(path)}:{node.lineno}: {ast.unparse(node)}")
    return found


def test_frames_are_counted_in_one_place():
    files = [path for path in SHIPPED if name(path) not in DIVIDE]
    assert [place for path in files for place in counts_frames(path)] == []
    assert all(counts_frames(ROOT / path) for path in DIVIDE)


def by_name(path):
    """Modules of ComfyUI that a file asks for in words: import_module("comfy.utils"), sys.modules["server"]."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        asks = isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("import_module", "__import__", "find_spec")
        )
        words = node.args[:1] if asks else []
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "sys.modules":
            words = [node.slice]
        found += [
            word.value for word in words if isinstance(word, ast.Constant) and tops([word.value]) & COMFYUI_MODULES
        ]
    return found


def test_modules_asked_for_in_words_are_seen(tmp_path):
    path = tmp_path / "file.py"
    path.write_text("import importlib, sys\nimportlib.import_module('comfy.utils')\nsys.modules['server'].PromptServer")
    assert by_name(path) == ["comfy.utils", "server"]


def arrows(folder, unit=lambda module: module, at_import=False):
    """{unit: the other units that it imports} for the modules of a folder; `unit` says what a dotted name belongs to.

    `at_import` as in `imports`.
    """
    modules = {name(path).removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in FILES}
    inside = {module: path for module, path in modules.items() if f"{module}.".startswith(f"{folder}.")}
    found = {unit(module): set() for module in inside}
    for module, path in inside.items():
        for dotted in imports(path, at_import)[1]:
            target = dotted if dotted in modules else dotted.rpartition(".")[0]
            if target in inside and unit(target) != unit(module):
                found[unit(module)].add(unit(target))
    return found


def floors(graph):
    """{name: its floor}: 0 where nothing is imported, else one above the highest of what is. No name may lead to itself."""
    found = {}

    def floor(unit, way):
        assert unit not in way, " → ".join([*way[way.index(unit) :], unit])
        if unit not in found:
            found[unit] = 1 + max((floor(other, [*way, unit]) for other in graph[unit]), default=-1)
        return found[unit]

    return {unit: floor(unit, []) for unit in graph}


def test_floors_are_counted_and_circles_are_found():
    assert floors({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": 2, "b": 1, "c": 0}
    with pytest.raises(AssertionError, match="b → c → b"):
        floors({"a": {"b"}, "b": {"c"}, "c": {"b"}})


@pytest.mark.parametrize("folder", ["model", "nodes", "training"])
def test_no_imports_run_in_circles(folder):
    graph = arrows(folder)
    assert len(graph) > 5 and max(floors(graph).values()) > 1


@pytest.mark.parametrize("folder, most", [("model", 7), ("training.tiny", 4)])
def test_houses_are_no_higher_than_they_have_to_be(folder, most):
    """File by file."""
    graph = arrows(folder, at_import=True)
    assert len(graph) > 5 and 1 + max(floors(graph).values()) <= most, floors(graph)


@pytest.mark.parametrize(
    "folder, most", [("model", 7), ("training", 4), ("training.data", 4), ("training.data.footage", 4)]
)
def test_rooms_stand_on_one_another(folder, most):
    """A folder counts as one: none is both above and below what lies beside it."""
    depth = folder.count(".") + 2
    beside = floors(arrows(folder, lambda module: ".".join(module.split(".")[:depth]), at_import=True))
    assert len(beside) > 5 and 1 + max(beside.values()) <= most, beside


def test_contact_with_comfyui_has_three_floors():
    """By rooms: a folder of nodes/comfy/ counts as one. None of them knows the nodes that stand on them."""
    found = floors(arrows("nodes.comfy", lambda module: ".".join(module.split(".")[:3])))
    assert {"nodes.comfy.transformer", "nodes.comfy.vae", "nodes.comfy.text", "nodes.comfy.sampling"} <= set(found)
    assert max(found.values()) == 2, found
    files = sorted((ROOT / "nodes" / "comfy").rglob("*.py"))
    assert not {
        name(path)
        for path in files
        for dotted in imports(path)[1]
        if dotted.startswith("nodes.") and not dotted.startswith("nodes.comfy")
    }


# What a wire brings may be anything: these are asked of it to tell whether it is ours.
OF_A_WIRE = {"model", "first_stage_model", "tokenizer"}
ABSENCE = {"AttributeError", "ImportError", "ModuleNotFoundError"}


def guards(path):
    """The lines of a file that ask whether something is there, or what a function takes; questions to Python aside."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            function = ast.unparse(node.func)
            asked = node.args[1].value if len(node.args) > 1 and isinstance(node.args[1], ast.Constant) else ""
            if function in ("getattr", "hasattr") and asked not in OF_A_WIRE and not str(asked).startswith("__"):
                found.append(node.lineno)
            if function.startswith("inspect.") or function in ("signature", "find_spec", "vars"):
                found.append(node.lineno)
        elif isinstance(node, ast.ExceptHandler) and node.type is not None:
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if {ast.unparse(kind) for kind in kinds} <= ABSENCE:
                found.append(node.lineno)
        elif isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node).endswith(
            ("__version__", "comfyui_version")
        ):
            found.append(node.lineno)
    return found


def test_only_one_file_asks_what_a_comfyui_has():
    files = sorted((ROOT / "nodes").rglob("*.py"))
    assert {name(path): lines for path in files if (lines := guards(path))}.keys() == {"nodes/comfy/versions.py"}


@pytest.mark.parametrize(
    "line",
    ["getattr(comfy.utils, 'x', None)", "hasattr(patcher, 'y')", "inspect.signature(f)", "comfyui_version.__version__",
     "try:\n    import comfy.z\nexcept ImportError:\n    pass"],
)  # fmt: skip
def test_questions_are_seen(line, tmp_path):
    (tmp_path / "file.py").write_text(line)
    assert guards(tmp_path / "file.py")


def test_no_file_is_longer_than_a_reader_bears():
    files = [*SHIPPED, *(ROOT / "web").rglob("*.js")]
    lengths = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {path: length for path, length in lengths.items() if length > 330} == {}


def untyped(tree):
    """The public functions and methods, by name, that lack the type of an argument or of what they return."""
    found = []
    for node in (tree, *(part for part in ast.walk(tree) if isinstance(part, ast.ClassDef))):
        public = not getattr(node, "name", "").startswith("_")
        for part in node.body if public else ():
            if not isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if part.name.startswith("_") and part.name not in ("__init__", "__call__"):
                continue
            arguments = [
                *part.args.posonlyargs,
                *part.args.args,
                *part.args.kwonlyargs,
                part.args.vararg,
                part.args.kwarg,
            ]
            static = any(ast.unparse(word) == "staticmethod" for word in part.decorator_list)
            arguments = arguments[isinstance(node, ast.ClassDef) and not static :]
            if part.returns is None or any(each and each.annotation is None for each in arguments):
                found.append(part.name)
    return found


@pytest.mark.parametrize("folder", ["model", "nodes", "training", "runner"])
def test_public_functions_say_what_they_take_and_give(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    found = {name(path): untyped(ast.parse(path.read_text(encoding="utf-8"))) for path in files}
    assert len(files) > 5 and {path: functions for path, functions in found.items() if functions} == {}


def test_missing_types_are_seen():
    source = "def a(x: int, *y) -> int: ...\ndef b(x: int): ...\nclass C:\n    def c(self, x) -> None: ..."
    typed = "def d(x: int) -> int: ...\ndef _e(x): ...\nclass F:\n    def f(self) -> None: ..."
    assert untyped(ast.parse(f"{source}\n{typed}")) == ["a", "b", "c"]


def test_every_file_says_what_it_is():
    def silent(path):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        return not (ast.get_docstring(tree) or "").strip()

    assert len(FILES) > 50
    assert [name(path) for path in FILES if silent(path)] == []


@pytest.fixture(scope="module")
def schemas(comfy):
    return {schema.node_id: schema for schema in (node.define_schema() for node in pack("nodes").NODES)}


def test_every_node_has_a_help_page(schemas):
    """And every page its node, under the display name; it speaks of every value that can be set there."""
    folder = ROOT / sys.modules["opensora_comfy"].WEB_DIRECTORY / "docs"
    pages = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    assert sorted(pages) == sorted(schemas)
    for node_id, schema in schemas.items():
        assert pages[node_id].startswith(f"# {schema.display_name}\n"), node_id
        widgets = [item.id for item in schema.inputs if hasattr(item, "default")]
        missing = [widget for widget in widgets if f"**{widget}**" not in pages[node_id]]
        assert not missing, f"{node_id}.md says nothing about {missing}"


def test_every_workflow_has_a_picture():
    """The template browser shows workflows/NAME.jpg beside NAME."""
    assert WORKFLOWS
    pictures = sorted(path.stem for path in (ROOT / "workflows").glob("*.jpg"))
    assert sorted(path.stem for path in WORKFLOWS) == pictures


def test_workflows_and_blueprints_use_only_this_pack_and_comfyui(schemas):
    sources = [COMFYUI / "nodes.py", *(COMFYUI / "comfy_extras").glob("*.py")]
    stock = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    assert WORKFLOWS and BLUEPRINTS
    for path in (*WORKFLOWS, *BLUEPRINTS):
        graph = json.loads(path.read_text(encoding="utf-8"))
        subgraphs = (graph.get("definitions") or {}).get("subgraphs") or []
        known = PAGE_NODES | set(schemas) | {subgraph["id"] for subgraph in subgraphs}
        types = {node["type"] for part in (graph, *subgraphs) for node in part["nodes"]}
        unknown = [kind for kind in sorted(types - known) if kind.startswith("OpenSora") or f'"{kind}"' not in stock]
        assert not unknown, f"{path.name}: {unknown}"


def test_the_files_that_come_early_are_there():
    """A file that is renamed would be begun last again."""
    assert {name(path) for path in FILES} >= LONG


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_files_are_as_the_linter_has_them(command):
    """By ruff and the rules of pyproject.toml; `ruff check --fix` and `ruff format` bring a file there."""
    tools = Path(importlib.util.find_spec("ruff").origin).parents[1]
    ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", "--config", ROOT / "pyproject.toml", *FILES]
    environment = {**os.environ, "PYTHONPATH": str(tools)}
    said = subprocess.run(ruff, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr


def test_types_hold(tmp_path):
    """Of model/ and training/, by mypy, in a package of their own: the clone's folder may have any name."""
    package = tmp_path / "opensora"
    for path in [path for path in FILES if path.relative_to(ROOT).parts[0] in ("model", "training")]:
        copy = package / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    (package / "__init__.py").touch()
    tools = Path(importlib.util.find_spec("mypy").origin).parents[1]
    options = ["--config-file", ROOT / "pyproject.toml", "--cache-dir", tools / ".mypy_cache", "-p", package.name]
    environment = {**os.environ, "PYTHONPATH": str(tools)}
    command = [sys.executable, "-m", "mypy", "--python-executable", sys.executable, *map(str, options)]
    checked = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert checked.stdout.startswith("Success"), checked.stdout + checked.stderr
