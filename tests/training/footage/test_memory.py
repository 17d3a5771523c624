"""What a manifest takes of memory does not grow with its rows, but for their names."""

import hashlib
import json
import tracemalloc

import pytest
from opensora_comfy.training.data.footage import filters, manifest
from opensora_comfy.training.data.footage.cuts.scenes import Whole
from opensora_comfy.training.data.footage.measures.likeness import PerceptualHash
from opensora_comfy.training.data.footage.prepare import Jobs, Settings, rows

SHOTS = 5  # of a file
FEW, MANY = 100, 10_000  # rows
NAMES = 500  # bytes of a row: its name, what tells copies, and where it is in the folder
GROUP = 4_000_000  # bytes of the rows that Parquet writes at once


def surveyed(folder, count):
    """`count` rows of files, as they are when all of them are surveyed."""
    (folder / "raw").mkdir(parents=True)
    for number in range(count // SHOTS):
        (folder / "raw" / f"{number:05}.mp4").touch()
    jobs, settings = Jobs(folder / "raw", folder / "set.jsonl"), Settings(Whole(), (PerceptualHash(),))
    for job in jobs:
        shots = [[100 * shot, 100 * shot + 100] for shot in range(SHOTS)]
        lines = [{"state": {}, "cutter": "none", "holds": [100 * SHOTS, 480, 640, 24.0], "reason": "", "shots": shots}]
        for shot in range(SHOTS):
            code = hashlib.sha256(f"{job.name} {shot}".encode()).hexdigest()[:48]
            lines.append({"shot": shot, "scores": {PerceptualHash.key: {"phash": code}}})
        job.notes.parent.mkdir(parents=True, exist_ok=True)
        job.notes.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return settings


def assemble(path, settings):
    manifest.write(path, rows(Jobs(path.parent / "raw", path.with_name("set.jsonl")), settings))


def keep(path, kept):
    manifest.write(kept, filters.keep(manifest.rows(path), "num_frames >= 100"))


def peak(work, *arguments):
    """Bytes of memory at most, beyond those from before."""
    tracemalloc.start()
    try:
        work(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def footage_of(tmp_path_factory):
    """By how many rows it has: its folder, and the settings. The first of them imports what is needed."""
    folder = tmp_path_factory.mktemp("footage")
    return {count: (folder / f"{count}", surveyed(folder / f"{count}", count)) for count in (20, FEW, MANY)}


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_memory_is_flat_from_100_to_10000_rows(footage_of, kind):
    found = {}
    for count, (folder, settings) in footage_of.items():
        path, kept = folder / f"set.{kind}", folder / f"kept.{kind}"
        # Of two goes the smaller: in the other, Python's table of all names may have grown, which is of no row.
        assembled = min(peak(assemble, path, settings) for _ in range(2))
        found[count] = [assembled, peak(keep, path, kept), peak(manifest.summary, kept)]
        assert sum(row["kept"] for row in manifest.rows(kept)) == count
    grown = [many - few for few, many in zip(found[FEW], found[MANY])]
    print(kind, found, grown, [size / (MANY - FEW) for size in grown])
    group = GROUP if kind == "parquet" else 0
    assert grown[0] < NAMES * (MANY - FEW) + group and max(grown[1:]) < 100 * MANY + group
