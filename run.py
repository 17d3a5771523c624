"""Everything with one command: python run.py demo, test, ui, train, preflight, sample, report, bench or symbols.

Needs Python 3.10 to 3.13.
"""

# The standard library alone, here and in runner/server/ and runner/symbols/: it runs before anything is installed.

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":  # ComfyUI's portable Python does not make a script's folder importable
    sys.path.insert(0, str(Path(__file__).resolve().parent))

from runner import symbols
from runner.server import browser, comfyui, environment, process, workflow
from runner.server.client import Client, Refused, Result, Unreachable
from runner.symbols.source_tree import SourceTree

ROOT = Path(__file__).resolve().parent
WORKFLOW = ROOT / "workflows" / "1 Text to video.json"
ON_CPU = "import comfy.cli_args; comfy.cli_args.args.cpu = True; "  # before the pack asks ComfyUI for its device


class Failed(Exception):
    """The command cannot end well; the message says why."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options, rest = parser().parse_known_args(arguments)
    if rest and not options.passes_on:
        parser().error(f"unrecognized arguments: {' '.join(rest)}")
    process.turn_signals_into_interrupts()
    try:
        return options.command(options, [argument for argument in rest if argument != "--"])
    except (Failed, environment.SetupError, workflow.WorkflowError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except (Unreachable, Refused, TimeoutError) as error:
        print(f"\nComfyUI did not do its part: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped; nothing is left running.", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="run.py", description=__doc__, allow_abbrev=False)
    names = "demo | test | ui | prepare | train | preflight | sample | report | bench | symbols"
    commands = top.add_subparsers(required=True, metavar=names)

    def command(name, function, text, passes_on=False):
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(command=function, passes_on=passes_on)
        where = "use this existing ComfyUI and its Python (default: COMFYUI_PATH, else the pinned ComfyUI)"
        sub.add_argument("--comfyui", metavar="DIR", default=os.environ.get("COMFYUI_PATH") or None, help=where)
        return sub

    def add_workflow(sub):
        sub.add_argument("--prompt", metavar="TEXT", help="what to show instead of the workflow's own prompt")
        sub.add_argument("--workflow", metavar="FILE", type=Path, default=WORKFLOW, help="the workflow to run")

    add_workflow(command("demo", demo, "make a video without a browser, from nothing"))
    text = "run the tests; other arguments go to pytest (test -- --help lists them)"
    test_ = command("test", test, text, passes_on=True)
    test_.add_argument("--no-browser", action="store_true", help="leave the browser tests out")
    command("ui", ui, "start ComfyUI with the pack and print its address")
    trainings = {
        "train": "train by CONFIG (--new CONFIG writes one); without it retrain the bundled model in ./tiny_run "
        "(train -- --help lists its arguments)",
        "preflight": "show what training by CONFIG will use, and what it leaves out",
        "sample": "make clips with what the run of CONFIG has learned",
        "report": "draw the curve of the run of CONFIG",
    }
    for name, text in trainings.items():
        command(name, train, text, passes_on=True).set_defaults(training=name)
    text = "cut a folder of footage into shots, score them, and write the table of them (prepare -- --help says how)"
    command("prepare", prepare, text, passes_on=True)
    bench_ = command(
        "bench",
        bench,
        "count what the networks take on a GPU, measure this machine, and time the demo's generation; or one of these, "
        "what the official models need of memory, the ways to train on clips of mixed shapes, the preparing of "
        "footage, Open-Sora Cache beside ComfyUI's caches",
    )
    tables = ("counted", "measured", "time", "memory", "training", "footage", "cache")
    bench_.add_argument("what", nargs="?", choices=tables, help="which (default: the first three)")
    bench_.add_argument("--other", metavar="FILE", type=Path, help="Python code to be measured beside ours")
    bench_.add_argument("--json", metavar="FILE", type=Path, default=Path("bench.json"), help="where figures go")
    add_workflow(bench_)
    command("symbols", judge_symbols, "list the names of ComfyUI that the pack uses, and how this ComfyUI has them")
    bench_.add_argument("--runs", metavar="N", type=int, default=3, help="how often, besides a first one to warm up")
    return top


def demo(options, rest) -> int:
    """Make one video: prepare, start, generate, save, stop."""
    with prepared_server(options) as (env, client, graph):
        result = generate(client, graph)
        saved = save(env, client, result)
    for path in saved:
        print(path)
    print(f"Generated in {result.seconds:.1f} s.")
    return 0


def bench(options, rest) -> int:
    """Print the tables that were asked for: what is counted, what is measured, and the median time of the demo."""
    if options.what != "time":
        env = environment.prepare(options.comfyui, tools=options.what == "footage")
        asked = [options.what] if options.what else ["counted", "measured"]
        asked += ["--json", options.json.resolve(), *(["--other", options.other.resolve()] if options.other else [])]
        module, arguments, first = {
            "memory": ("memory_table", (), None),
            "training": ("training_ways", ("--tokenizer", tokenizer_of(env)), None),
            "footage": ("footage_rates", (env.footage, "--ray"), None),
            "cache": ("cache_comparison", (), ON_CPU),
        }.get(options.what, ("speed", asked, "" if comfyui.has_accelerator(env) else ON_CPU))
        paths = () if first is None else (env.comfyui,)
        status = run_module(env, f"runner.{module}", *arguments, paths=paths, first=first or "")
        if status or options.what:
            return status
    with prepared_server(options) as (_, client, graph):
        generate(client, graph)
        seconds = []
        for _ in range(options.runs):
            workflow.shift_seeds(graph, 1)
            seconds.append(generate(client, graph).seconds)
    print(f"Median of {len(seconds)} runs: {statistics.median(seconds):.2f} s ({min(seconds):.2f}-{max(seconds):.2f})")
    return 0


@contextlib.contextmanager
def prepared_server(options):
    """The environment, a client of a ComfyUI in a temporary base folder, and the API graph of the chosen workflow."""
    page = workflow.load(options.workflow)
    began = time.monotonic()
    env = environment.prepare(options.comfyui)
    with tempfile.TemporaryDirectory(prefix="opensora-", ignore_cleanup_errors=True) as folder:
        base = comfyui.make_base(Path(folder) / "base", models_of(env))
        print("Starting ComfyUI ...", flush=True)
        cpu = not comfyui.has_accelerator(env)
        server = comfyui.Server(env, base, cpu=cpu, log=Path(folder) / "comfyui.log")
        with server as client:
            print(f"Ready after {time.monotonic() - began:.1f} s{', on the CPU' if cpu else ''}.", flush=True)
            graph = workflow.page_to_api(page, client.object_info())
            if options.prompt is not None:
                workflow.set_prompt(graph, options.prompt)
            try:
                yield env, client, graph
            except Unreachable as error:
                raise Failed(f"ComfyUI went away ({error}). The end of its output:\n{server.tail()}") from error


def generate(client: Client, graph: dict) -> Result:
    """Run the graph with a line of progress on the terminal. Raises Failed with the node's own words."""
    progress = Progress(graph)
    try:
        result = client.run(graph, timeout=24 * 3600.0, on_event=progress.show)
    finally:
        progress.end()
    if not result.success:
        where = f" in {result.error['node_type']}" if result.error and "node_type" in result.error else ""
        raise Failed(f"The workflow failed{where}: {result.message or 'it was interrupted'}")
    return result


class Progress:
    """A line that says which node works and how far it is; on a terminal it is rewritten, in a log it grows."""

    def __init__(self, graph):
        self.graph = graph
        self.terminal = sys.stdout.isatty()
        self.last = ""

    def show(self, kind: str, data) -> None:
        """Take one message of the server."""
        if kind not in ("executing", "progress") or data.get("node") is None:
            return
        text = "    " + self.graph.get(str(data["node"]), {}).get("class_type", "")
        if kind == "progress" and data["max"]:
            text += f" {data['value']}/{data['max']} ({100 * data['value'] // data['max']} %)"
        if text == self.last:
            return
        self.last = text
        print(f"\r{text:<70}" if self.terminal else text, end="" if self.terminal else "\n", flush=True)

    def end(self) -> None:
        """Leave the line."""
        if self.terminal and self.last:
            print()


def save(env, client: Client, result: Result) -> list[Path]:
    """Copy what the run saved to ./output under free names, each video with a contact sheet; returns the paths."""
    files = [file for file in result.files() if file["type"] == "output"]
    if not files:
        raise Failed("The workflow ran, but it saved nothing: it needs a Save Video or Save Image node.")
    folder = Path.cwd() / "output"
    folder.mkdir(exist_ok=True)
    saved = []
    for file in files:
        path = free_name(folder, Path(file["filename"]).suffix)
        part = path.with_name(path.name + ".part")
        part.write_bytes(client.view(file))
        os.replace(part, path)
        saved.append(path)
        if path.suffix in (".mp4", ".webm", ".mkv", ".mov"):
            sheet = path.with_suffix(".png")
            command = [env.python, ROOT / "training" / "contact_sheet.py", path, sheet]
            made = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
            if made.returncode:
                why = (made.stderr.strip().splitlines() or [f"exit status {made.returncode}"])[-1]
                raise Failed(f"The video is at {path}; the contact sheet could not be made: {why}")
            saved.append(sheet)
    return saved


def free_name(folder: Path, suffix: str) -> Path:
    """The first of opensora_0001, opensora_0002, ... that `folder` holds no file of, whatever its suffix."""
    taken = {path.stem for path in folder.iterdir()}
    number = next(n for n in range(1, len(taken) + 2) if f"opensora_{n:04}" not in taken)
    return folder / f"opensora_{number:04}{suffix}"


def test(options, rest) -> int:
    """Run pytest in the environment; the tests start ComfyUI and the browser themselves."""
    env = environment.prepare(options.comfyui, tools=True)
    variables = env.variables(env.tools, env.extras)
    variables["OPENSORA_FOOTAGE"] = str(env.footage)
    if env.pinned:  # an existing ComfyUI is tested with its own front end alone
        variables["OPENSORA_NEWER_FRONT_END"] = str(env.newer_front_end)
    if not rest:  # all of it: on two cores, file by file; threads that share them would wait for each other
        rest = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]  # tests/conftest.py has an order
        variables.setdefault("OMP_NUM_THREADS", "1")
    if options.no_browser:
        rest = ["--no-browser", *rest]
    else:
        variables["OPENSORA_BROWSER"] = str(browser.prepare(env))
    command = env.module("pytest", *rest, paths=(env.tools, env.extras))
    return process.wait(process.start(command, cwd=ROOT, env=variables))


def ui(options, rest) -> int:
    """Start a server to work with; it keeps its outputs and settings between runs."""
    env = environment.prepare(options.comfyui)
    base = comfyui.make_base(own_folder(env), models_of(env))
    print("Starting ComfyUI ...", flush=True)
    server = comfyui.Server(env, base, cpu=not comfyui.has_accelerator(env))
    try:
        server.start()
        print(f"\nOpen {server.address} in your browser. Models: {base / 'models'}, outputs: {base / 'output'}.")
        print("Ctrl-C stops it.", flush=True)
        return process.wait(server.process)
    finally:
        server.stop()


def train(options, rest) -> int:
    """Run the trainer in the environment with the pack importable; ComfyUI is needed for its tokenizer only.

    `train` without a CONFIG is the bundled model's recipe.
    """
    named = any(word.endswith((".yaml", ".yml")) for word in rest)
    env = environment.prepare(options.comfyui)
    tokenizer = tokenizer_of(env)
    if options.training == "train" and not named and (not rest or (rest[0].startswith("-") and "--new" not in rest)):
        return run_module(env, "training.tiny", "--tokenizer", tokenizer, *rest)
    return run_module(env, "training", options.training, "--tokenizer", tokenizer, *rest)


def prepare(options, rest) -> int:
    """Run data preparation in the environment, with the packages that it can use."""
    return run_module(environment.prepare(options.comfyui, packages=True), "training.data.footage", *rest)


def tokenizer_of(env) -> Path:
    """T5's tokenizer, which ComfyUI brings."""
    return env.comfyui / "comfy" / "text_encoders" / "t5_tokenizer"


def run_module(env, module, *arguments, paths: tuple = (), first: str = "") -> int:
    """Run a module of the pack in the environment, with its optional packages where they are there.

    Without ComfyUI, unless that is in `paths`; `first`: as `environment.module`.
    """
    base = comfyui.make_base(own_folder(env), models_of(env))
    packs = base / "custom_nodes"
    command = env.module(f"{comfyui.PACK_NAME}.{module}", *arguments, paths=(*paths, packs, env.extras), first=first)
    return process.wait(process.start(command, env=env.variables(*paths, packs, env.extras)))


def judge_symbols(options, rest) -> int:
    """Print what a ComfyUI says of every name that the pack uses; 1 where one is gone. Needs its sources only."""
    folder = Path(options.comfyui).expanduser() if options.comfyui else environment.prepare().comfyui
    if not (folder / "comfy").is_dir():
        raise Failed(f"--comfyui {folder}: there is no ComfyUI there (a folder that holds comfy/).")
    words, good = symbols.report(json.loads(symbols.LIST.read_text(encoding="utf-8")), SourceTree(folder))
    print(words)
    return 0 if good else 1


def own_folder(env) -> Path:
    """A base folder for ComfyUI that stays, one for each clone of the pack and each ComfyUI.

    Models that were put into one are never in the way of a link to another's.
    """
    who = (str(ROOT),) if env.pinned else (str(ROOT), str(env.comfyui))
    return environment.cache_folder() / f"base-{environment.digest(*who)}"


def models_of(env) -> Path | None:
    """The models of an existing ComfyUI, to be seen from our base folder too."""
    return None if env.pinned else env.comfyui / "models"


if __name__ == "__main__":
    sys.exit(main())
