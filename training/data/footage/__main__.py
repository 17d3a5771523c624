"""Command line of data preparation: `python -m <pack>.training.data.footage FOLDER`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from . import filters, manifest
from .captions import Captions
from .clip_files import write_clips
from .cuts.scenes import CUTTERS, cutter
from .measures.named import MEASURES, measures_named
from .prepare import SHORTEST, Settings, on_threads, prepare
from .report import page

DEFAULT_MEASURES = ("flow_dis", "quality", "phash")


def main(arguments: Sequence[str]) -> int:
    """Prepare a folder of footage; errors that a user can mend are said in a line, exit status 1."""
    options = parser().parse_args(arguments)
    try:
        _run(options)
    except (ValueError, OSError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="prepare", description="From raw footage to a data set.", allow_abbrev=False)
    add = top.add_argument
    add("folder", metavar="FOLDER", help="of videos and pictures; folders in it are looked into")
    add("--manifest", metavar="FILE", help="the table to write, .jsonl, .parquet or .csv; left out: beside FOLDER")
    add(
        "--cuts",
        choices=CUTTERS,
        default="1.2",
        help="how shots are found: as that Open-Sora did, by a learned detector, or not at all; default 1.2",
    )
    add("--transitions", metavar="SECONDS", type=float, help="look for slow transitions of this length, too")
    add(
        "--measures", metavar="NAMES", default=",".join(DEFAULT_MEASURES),
        help=f"what scores a shot, of {', '.join(MEASURES)}; default {','.join(DEFAULT_MEASURES)}",
    )  # fmt: skip
    add("--weights", metavar="NAME=FILE", action="append", default=[], help="a file that a measure needs; may repeat")
    add("--shortest", metavar="SECONDS", type=float, default=SHORTEST, help=f"of a shot; default {SHORTEST:g}")
    add("--caption", default="", help="of every shot that has none in a text file beside its file")
    add("--captions", metavar="TABLE", help="a table with the columns path and text, for files without a text file")
    add("--scores", metavar="VERSION", choices=("1.2", "1.3"), help="captions that carry scores, as that Open-Sora's")
    add("--filter", metavar="EXPRESSION", default="", help="what to keep, such as 'flow_dis >= 1 and sharpness > 0.2'")
    add("--report", metavar="FILE", help="write the report, one HTML file")
    add("--csv", metavar="FILE", help="write what is kept as the original's table")
    add("--clips", metavar="FOLDER", help="write every shot that is kept as a file of its own")
    add("--workers", metavar="N", type=int, help="files at once; left out: as many as there are cores")
    add("--ray", nargs="?", const="auto", metavar="ADDRESS", help="work on a Ray cluster; alone: the one at hand")
    return top


def _run(options):
    folder = Path(options.folder)
    whole = Path(os.path.abspath(folder))
    path = Path(options.manifest or whole.with_name(f"{whole.name}.{_kind()}"))
    settings = Settings(
        cutter(options.cuts, options.transitions),
        measures_named(options.measures.split(","), dict(map(_weights, options.weights))),
        options.shortest,
        _captions(options),
        options.scores or "",
    )
    if options.filter:
        filters.parse(options.filter)
    each = on_threads
    if options.ray:
        from .on_ray import on_ray

        each = on_ray(options.ray)
    prepare(folder, path, settings, _tell, options.workers, each)
    if options.filter:
        manifest.write(path, filters.keep(manifest.rows(path), options.filter))
    print(f"{path}: {manifest.summary(path)}")
    if options.report:
        print(page.write(options.report, manifest.rows(path), path.parent, whole.name))
    if options.clips:
        path = write_clips(path, options.clips, lambda name: print(name, flush=True))
        print(f"{path}: {manifest.summary(path)}")
    if options.csv:
        print(manifest.export_csv(options.csv, path))


def _captions(options):
    if not options.captions:
        return Captions(options.caption)
    table = Path(options.captions)
    try:
        return Captions(options.caption, manifest.tables.rows(table), folder=table.parent)
    except ValueError as error:
        raise ValueError(f"captions: {error}") from error


def _weights(pair):
    name, equals, file = pair.partition("=")
    if not equals:
        raise ValueError(f"weights is {pair!r}; it must be NAME=FILE, such as head=aesthetic.pth")
    return name, file


def _kind():
    """Parquet where it can be written."""
    try:
        manifest.tables.pyarrow(Path())
    except ValueError:
        return "jsonl"
    return "parquet"


def _tell(done, total, name):
    print(f"{done}/{total} {name}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
