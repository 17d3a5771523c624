"""Footage of the graph: prepared in ComfyUI's midst, filtered, and told of in pictures and words."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import comfy.model_management as management
import comfy.utils
import numpy
import torch

from ....training.data.footage import manifest
from ....training.data.footage.captions import Captions
from ....training.data.footage.cuts.scenes import cutter
from ....training.data.footage.measures.aesthetic import Aesthetic
from ....training.data.footage.measures.named import measures_named
from ....training.data.footage.prepare import Settings, on_threads, prepare
from ....training.data.footage.report import page, strips
from ....training.data.footage.report.account import account, lasting
from ....training.data.footage.thresholds import Thresholds, filtered
from ....training.data.panels import counted
from .encoders import key_of
from .folders import FOOTAGE, NO_HEAD, base_folder, footage_folder, head_path, in_input, plain, source_of
from .pictures import image_of
from .result import digest_of

if TYPE_CHECKING:
    from comfy.clip_vision import ClipVisionModel

WIDTH = 1400  # pixels of the pictures
# Of measures: the module that they import when they are first used, and its package.
OPENCV = ("cv2", "opencv-python-headless")
PACKAGES = {"flow_dis": OPENCV, "cmotion": OPENCV, "ocr": ("rapidocr_onnxruntime", "rapidocr-onnxruntime")}


@dataclasses.dataclass(frozen=True)
class Choices:
    """What the artist chose: how shots are found, how short they may be, what is measured, and their caption."""

    cuts: str = "1.2"
    transitions: float = 0.0
    shortest: float = 0.5
    measures: tuple[str, ...] = ()
    caption: str = ""


def source(folder: str, path: str = "") -> Path:
    """The folder of footage that the inputs name. ValueError where there is none, with the nearest."""
    if not plain(path):
        return in_input(folder, FOOTAGE)
    found = source_of(folder, path)
    if found is None or not found.is_dir():
        raise ValueError(
            f"path is {str(found)!r}, a file; it must be a folder of footage; the nearest is {found.parent}"
        )
    return found


def settings_of(choices: Choices, clip_vision: ClipVisionModel | None = None, head: str = NO_HEAD) -> Settings:
    """How footage is prepared by these choices. ValueError for what cannot be, or for a package that is missing."""
    try:
        cuts = cutter(choices.cuts, choices.transitions or None)
        measures = measures_named(choices.measures)
    except ValueError as error:
        raise ValueError(_with_python(str(error))) from error
    check_pair(clip_vision is not None, head)
    if clip_vision is not None:
        measures.append(Aesthetic(head_path(head), Features(clip_vision), key_of(clip_vision.patcher)))
    return Settings(cuts, measures, choices.shortest, Captions(choices.caption))


def check_cuts(cuts: str, transitions: float) -> None:
    """ValueError for a way to find shots that there is not, or whose package is missing."""
    settings_of(Choices(cuts, transitions))


def check_measures(measures: tuple[str, ...]) -> None:
    """ValueError where a package that one of them needs is missing."""
    settings_of(Choices("none", measures=measures))
    for measure in measures:
        module, package = PACKAGES.get(measure, ("sys", ""))
        if importlib.util.find_spec(module) is None:
            raise ValueError(_with_python(f"{measure} needs the package {package}: pip install {package}"))


def check_pair(connected: bool, head: str) -> None:
    """ValueError where one of the two that the aesthetic score needs is missing, or the head is not there."""
    if connected != (head != NO_HEAD):
        raise ValueError(
            f"aesthetic_head is {head!r}, and clip_vision is {'' if connected else 'not '}connected; the aesthetic "
            "score needs both, a CLIP ViT-L/14 from Load CLIP Vision and its head; or leave out both"
        )
    if connected:
        head_path(head)


def _with_python(words):
    """An error that says how to install a package, for the Python that runs ComfyUI."""
    return words.replace("pip install", f'"{sys.executable}" -m pip install')


class Features:
    """ComfyUI's CLIP_VISION as `Aesthetic` takes it: one call at a time, whichever thread asks."""

    def __init__(self, model: ClipVisionModel) -> None:
        self.model, self.lock = model, threading.Lock()

    def __call__(self, frames: Sequence[numpy.ndarray]) -> torch.Tensor:
        """[N, C] of frames uint8 [H, W, 3]."""
        with self.lock, torch.inference_mode():
            pixels = [torch.from_numpy(numpy.ascontiguousarray(frame))[None].float() / 255 for frame in frames]
            return torch.cat([self.model.encode_image(one)["image_embeds"].float().cpu() for one in pixels])


# --- prepare


def prepared(folder: Path, settings: Settings) -> Path:
    """The manifest of a folder, with its report beside it; an interrupt keeps what is done, and the next run goes on.

    What was found out is noted by folder and cutter, so that other measures, captions or lengths begin nothing anew.
    """
    place = footage_folder() / f"{folder.name}-{digest_of([str(folder.absolute()), settings.cutter.key])}"
    bar = comfy.utils.ProgressBar(1)
    look = management.throw_exception_if_processing_interrupted

    def tell(done: int, total: int, name: str) -> None:
        look()
        bar.update_absolute(done, max(total, 1))

    working = prepare(folder, place / "footage.jsonl", settings, tell, each=functools.partial(on_threads, look=look))
    path = place / f"footage-{digest_of(list(manifest.rows(working)))}.jsonl"
    working.replace(path)
    rows, seen_from = seen(path)
    page.write(report_of(path), rows, seen_from, folder.name, progress=lambda done, total: look())
    return path


def report_of(path: Path) -> Path:
    """Where the report on a manifest is."""
    return path.with_suffix(".html")


# --- filter


def manifest_at(path: str) -> Path:
    """The manifest that an input names. ValueError where there is none."""
    if not plain(path):
        raise ValueError("manifest is empty; connect that of Open-Sora Prepare Clips, or give the path of one")
    found = source_of("", path)
    if found is None or not os.path.isfile(found):
        raise ValueError(f"manifest is {str(found)!r}, a folder; it must be a table that Open-Sora Prepare Clips wrote")
    return found


def kept(path: Path, thresholds: Thresholds) -> Path:
    """Another manifest, with what of one passes the thresholds; that one stays as it is.

    It is written beside it where that is one of ours, or else into ComfyUI's output folder. Raises ValueError for
    thresholds that cannot be, and where they ask for what was not measured.
    """
    rows = list(manifest.rows(path))
    thresholds.check_measured(rows)
    ours = path.absolute().is_relative_to(base_folder().absolute())
    name = f"{path.stem}-{digest_of([str(path.absolute()), dataclasses.asdict(thresholds)])}"
    target = (path.parent if ours else footage_folder() / name) / f"{name}.jsonl"
    return manifest.write(target, filtered(rows, thresholds, path, target))


def check_thresholds(*values: object) -> None:
    """ValueError for a least above its most, another word for the camera, and an expression that cannot be read."""
    names = ("min_motion", "max_motion", "min_seconds", "max_seconds", "camera", "expression")
    Thresholds(**dict(zip(names, values))).check()


# --- what is shown


def seen(path: Path) -> tuple[list[manifest.Row], Path]:
    """The rows of a manifest with paths as short as they can be, and the folder that these are seen from."""
    rows = list(manifest.rows(path))
    files = {manifest.file_of(row, path) for row in rows}
    folder = Path(os.path.commonpath([file.parent for file in files])) if files else path.parent
    start = f"{folder.as_posix()}/"
    shortened = ("reason", "duplicate_of")
    return [
        {**row, "path": manifest.file_of(row, path).as_posix().removeprefix(start)}
        | {name: row[name].replace(start, "") for name in shortened}
        for row in rows
    ], folder


def heart(path: Path) -> torch.Tensor:
    """IMAGE [1, H, W, 3]: what a manifest holds at a glance."""
    return image_of(strips.heart(*seen(path), WIDTH))


def film(path: Path) -> torch.Tensor:
    """IMAGE [1, H, W, 3]: its shots as strips of film, kept and left out."""
    return image_of(strips.strips(*seen(path), WIDTH))


def said(path: Path, *more: str) -> str:
    """In words: how much is kept, and how many are left out for which reason; `more` lines at the end."""
    held = account(seen(path)[0])
    lines = [f"{held.kept} of {counted(held.shots, 'shot')} kept of {counted(held.files, 'file')}"]
    if held.seconds:
        lines[0] += f", {lasting(held.seconds_kept)} of {lasting(held.seconds)}"
    lines += [f"{len(group.rows)} left out: {group.reason}" for group in held.groups]
    return "\n".join([*lines, f"manifest: {path}", *more])
