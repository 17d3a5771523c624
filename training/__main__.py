"""Command line of training: `python -m <pack>.training train CONFIG`, and preflight, sample and report beside it."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from . import config as configuration
from .checkpoints import entries, write
from .config import Config
from .report import curve


def main(arguments: list[str]) -> int:
    """Run one command; errors that a user can mend are said in a line, exit status 1."""
    parser = argparse.ArgumentParser(prog="training", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    about = {
        "train": "train by CONFIG; go on where a run was stopped",
        "preflight": "show what CONFIG will train on, and what it leaves out, without training",
        "sample": "make a clip with what a run has learned so far",
        "report": "draw the curve of a run",
    }
    for name, words in about.items():
        command = commands.add_parser(name, help=words, description=words)
        command.add_argument("config", metavar="CONFIG", help="a YAML file; train --new writes one")
        command.add_argument("--tokenizer", default="", help="folder of the T5 tokenizer, where CONFIG names none")
        command.add_argument("--device", default=None, help="cpu, cuda, …; left out: the best there is")
        if name == "train":
            command.add_argument("--new", action="store_true", help="write CONFIG with every field and its default")
        if name == "sample":
            command.add_argument("--prompt", help="what to show; left out: the configuration's prompts")
            command.add_argument("--seed", type=int, default=0, help="of the noise")
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except (ValueError, OSError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; what is encoded is kept", file=sys.stderr)
        return 130


def _run(options) -> int:
    if options.command == "train" and options.new:
        if Path(options.config).exists():
            raise ValueError(f"CONFIG is {options.config}, which is there already; give another name")
        configuration.write(Config(), Path(options.config))
        print(f"{options.config} is written; set data.path in it")
        return 0
    config = configuration.read(options.config)
    config = dataclasses.replace(
        config, model=dataclasses.replace(config.model, tokenizer=config.model.tokenizer or options.tokenizer)
    )
    if options.command == "report":
        print(report(config))
        return 0
    from .projects.from_files import ProjectOfFiles  # networks and encoders: slow to import

    project = ProjectOfFiles(config, options.device)
    if options.command == "preflight":
        lines = project.try_out()
        print(*lines, project.preflight(lines), sep="\n")
    elif options.command == "train":
        path = project.train()
        if path is not None:
            print(f"{path}; {report(config)}")
    else:
        for path in project.show(options.prompt, options.seed):
            print(path)
    return 0


def report(config: Config) -> Path:
    """Draw the run's log as curve.png in its folder; returns the path. ValueError where there is no run."""
    folder = Path(config.save.folder)
    lines = entries(folder / "log.jsonl")
    if not lines:
        raise ValueError(f"save.folder: {folder} holds no run; train first, or name the folder of one")
    path = folder / "curve.png"
    write(path, lambda temporary: curve(lines).save(temporary, "PNG"))
    return path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
