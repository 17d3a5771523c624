"""The data set of the graph: clips from folders, tables and wires, encoded into the cache by ComfyUI's own models."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.model_management as management
import comfy.utils
import torch

from ....training.config import from_mapping
from ....training.data import preflight
from ....training.data.dataset import Clip, LeftOut, clip_of_images, read_folder, read_manifest
from ....training.data.examples import Examples
from ....training.setup import default_buckets, examples_of, preflight_rows, shapes_of
from ..text.encoder import refuse_other_width
from ..transformer.base_model import base_model_of
from .encoders import TextEncoder, VideoEncoder
from .folders import cache_folder
from .pictures import image_of

if TYPE_CHECKING:
    import comfy.sd
    from comfy.model_patcher import ModelPatcher

VERSION_OF_VAE = {"vae_2d": "1.1", "vae_v1_2": "1.2", "vae_v1_3": "1.3"}


@dataclasses.dataclass(frozen=True)
class DataSet:
    """What the data set node hands to the one that trains: clips, how they are taken apart, and what encodes them.

    `sections`: the `data` and `shape` of a `training.config.Config`, as mappings.
    """

    clips: list[Clip]
    left_out: list[LeftOut]
    sections: dict[str, dict[str, Any]]
    vae: comfy.sd.VAE
    clip: comfy.sd.CLIP


@dataclasses.dataclass(frozen=True)
class Choices:
    """What the artist chose; 0 and empty text leave it to the files."""

    resolution: str = ""
    frames: int = 0
    batch_size: int = 0
    way: str = "buckets"
    trigger: str = ""


def collect(
    source: Path | None, images: Sequence[torch.Tensor], captions: str, trigger: str = ""
) -> tuple[list[Clip], list[LeftOut]]:
    """The clips of a folder or table, or none, and IMAGE batches [T, H, W, 3], one clip each, by a line of captions.

    Raises ValueError where nothing can be used, and for more or fewer captions than batches.
    """
    clips, left_out = [], []
    if source is not None:
        clips, left_out = (read_folder if source.is_dir() else read_manifest)(source, trigger.strip())
    lines = [line.strip() for line in captions.splitlines() if line.strip()]
    if len(lines) != len(images):
        raise ValueError(
            f"captions has {len(lines)} lines, and {len(images)} of images_1, images_2, … are connected; it must "
            "have one line for each of them, in their order"
        )
    clips = [*clips, *(clip_of_images(each, line, name=line) for each, line in zip(images, lines))]
    if not clips and source is None:
        raise ValueError(
            "folder is 'no folder', and no images_1 … images_4 are connected; choose one, or connect clips"
        )
    if not clips:
        reasons = "; ".join(f"{one.name}: {one.reason}" for one in left_out[:5])
        raise ValueError(f"folder: of {len(left_out)} files in {source} none can be used: {reasons}")
    return clips, left_out


def data_set(
    clips: list[Clip],
    left_out: list[LeftOut],
    vae: comfy.sd.VAE,
    clip: comfy.sd.CLIP,
    choices: Choices,
    model: ModelPatcher | None = None,
) -> tuple[DataSet, Examples]:
    """A DataSet by the artist's choices, and its examples, encoded into the cache.

    Raises ValueError for choices that the VAE or the tables of sizes do not know, and for models that do not match.
    """
    video, network = VideoEncoder(vae), None if model is None else base_model_of(model).diffusion_model
    text = TextEncoder(clip, network and network.max_caption_length)
    about = {**(video.network.opensora or {}), **({} if model is None else base_model_of(model).metadata)}
    version = VERSION_OF_VAE[video.network.family]
    if network is not None:
        refuse_other_width(clip, network)
        version = network.version
    _check_frames(video, choices.frames)
    buckets = default_buckets(
        about, clips, video.counting, version,
        resolution=choices.resolution, frames=choices.frames, batch_size=choices.batch_size,
    )  # fmt: skip
    sections = {"data": {"trigger": choices.trigger}, "shape": {"way": choices.way, "buckets": buckets}}
    found = DataSet(clips, left_out, sections, vae, clip)
    examples, _ = examples_in(found, {"data": {"validation": 0}}, about, version, video)
    examples.prepare(video, text, progress_of_encoding())
    return found, examples


def _check_frames(encoder, frames):
    network = encoder.network
    if frames and frames not in network.nearest_frames(frames):
        near = " and ".join(map(str, network.nearest_frames(frames)))
        raise ValueError(
            f"frames is {frames}, which this VAE cannot represent; the nearest are {near} (valid are 0 for auto, "
            f"{network.valid_counts})"
        )


def examples_in(
    data: DataSet, settings: Mapping[str, Any], about: Mapping[str, Any], version: str, encoder: VideoEncoder
) -> tuple[Examples, Examples]:
    """(what is trained on, what is held back) of a DataSet, by `settings` that win over its own; nothing is encoded."""
    config = from_mapping(merged(data.sections, {"data": {"cache": str(cache_folder())}}, settings))
    return examples_of(config, data.clips, shapes_of(config, about, data.clips, encoder.counting, version))


def merged(*trees: Mapping[str, Any]) -> dict[str, Any]:
    """One tree of mappings out of several; later ones win, field by field. A field that is a table is one value."""
    found: dict[str, Any] = {}
    for tree in trees:
        for section, fields in tree.items():
            both = isinstance(fields, Mapping) and isinstance(found.get(section), Mapping)
            found[section] = {**found[section], **fields} if both else fields
    return found


def progress_of_encoding() -> Callable[[int, int, str], None]:
    """What `Examples.prepare` tells how far it is: ComfyUI's bar; an interrupt keeps what is done."""
    bar = comfy.utils.ProgressBar(1)

    def tell(done: int, total: int, name: str) -> None:
        management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, max(total, 1))

    return tell


def picture(examples: Examples, data: DataSet, lines: Sequence[str] = ()) -> torch.Tensor:
    """IMAGE [1, H, W, 3]: each clip with its crop and frames, and what is left out; `lines` above."""
    return image_of(preflight.picture(preflight_rows(examples), data.left_out, lines=lines))


def said(examples: Examples, data: DataSet, estimated: Sequence[str] = ()) -> str:
    """The same in words: how many clips in which bucket, `estimated` of time and memory, what is left out and why."""
    rows = preflight_rows(examples)
    lines = [f"{len(rows)} clips, {len({row.clip.caption for row in rows})} captions"]
    lines += [f"{count} in {name}" for name, count in Counter(row.bucket for row in rows).items()]
    lines += estimated
    lines += [f"{Path(row.clip.source).name}: {row.note}" for row in rows if row.note]
    lines += [f"left out: {one.name}: {one.reason}" for one in data.left_out]
    return "\n".join(lines)
