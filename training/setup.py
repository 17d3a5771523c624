"""From a configuration to what a run is made of: the network, the data, the objective, and the file it ends in."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from ..model import load_transformer
from ..model.files import read_model
from ..model.frames import Counting
from . import checkpoints, lora
from .config import Config, TrainConfig, to_mapping
from .data import aspect_ratios
from .data.batches import Shapes
from .data.cache import Cache
from .data.dataset import Clip, with_trigger
from .data.examples import Examples, split_by_source
from .data.preflight import Row
from .masks import check_conditions, check_ratios
from .objective import Objective
from .start import FAMILIES, from_image_model

BUNDLED = Path(__file__).parents[1] / "model" / "bundled" / "transformer.safetensors"
# What a model keeps of keyframes while it learns something else: most examples generate everything.
MASKS = {"image_head": 0.1, "image_tail": 0.03, "image_head_tail": 0.1, "quarter_head": 0.02, "random": 0.02}
CONDITIONS = {"i2v_head": 0.1, "i2v_loop": 0.05, "v2v_head": 0.05}  # the same for 1.3
OFFICIAL = {"height": 240, "width": 426, "num_frames": 51}  # what files are made for that do not say so
LATENTS = 8 * 5 * 8 * 8  # of a batch by default: eight clips of the bundled model's size


def open_network(config: Config) -> tuple[nn.Module, dict[str, Any]]:
    """The transformer to train, fp32 on the CPU, and what its file says of itself.

    Raises ValueError for a file that is none, and for an image model that does not fit the version.
    """
    if config.model.start_from:
        state_dict, _, _ = read_model(config.model.start_from)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.train.seed)
            return load_transformer(from_image_model(state_dict, config.model.version)), {}
    path = BUNDLED if config.model.transformer == "bundled" else Path(config.model.transformer)
    state_dict, metadata, settings = read_model(path)
    about = metadata.get("opensora") or {}
    weights = {key: value.float() if value.is_floating_point() else value for key, value in state_dict.items()}
    return load_transformer(weights, about.get("config") or settings), about


def make_trainable(network: nn.Module, train: TrainConfig) -> nn.Module:
    """The network with what learns: LoRA layers (on weights in bf16, where asked for), or all of it."""
    if train.kind == "full":
        return network.requires_grad_(True)
    if train.precision == "bf16":
        for parameter in network.parameters():  # tables of frequencies stay as exact as they are
            parameter.data = parameter.data.to(torch.bfloat16)
    lora.inject(network, train.rank, train.alpha, train.branches, train.seed)
    return network


def objective_of(config: Config, network: Any, about: Mapping[str, Any]) -> Objective:
    """What is drawn for this network; `about`: what its file says, of which the flow settings count.

    Raises ValueError for masks that its generation does not know, and for a way that its family cannot be trained in.
    """
    given, version = config.objective, network.version if network.version in FAMILIES else "1.1"
    ratios = given.masks or (CONDITIONS if version == "1.3" else MASKS)
    for name, ratio in ratios.items():
        if isinstance(ratio, bool) or not isinstance(ratio, (int, float)):
            raise ValueError(
                f"objective.masks: {name} is {ratio!r}; it must be a probability within 0 … 1, such as 0.1"
            )
    try:
        (check_conditions if version == "1.3" else check_ratios)(ratios)
    except ValueError as error:
        raise ValueError(f"objective.masks: {error}") from error
    if config.shape.way != "buckets" and network.family != "stdit3":
        raise ValueError(
            f"shape.way is {config.shape.way!r}; {network.family} can only be trained in buckets: Open-Sora 1.2 "
            "(stdit3) can be padded and packed"
        )
    return Objective(
        version=version, ratios=ratios, caption_dropout=given.caption_dropout, stills=given.stills,
        method=given.timesteps, transform=float(given.shift), flow=dict(about.get("flow") or {}),
        way=config.shape.way, stratified=given.stratified,
    )  # fmt: skip


def refuse_misfits(network: Any, latent_channels: int, caption_channels: int) -> None:
    """ValueError where a VAE's latents or a text encoder's features are none that this transformer reads."""
    if latent_channels != network.in_channels:
        raise ValueError(
            f"model.vae makes latents of {latent_channels} channels; this {network.family} reads "
            f"{network.in_channels}: take the VAE of its generation (1.0 to 1.2 have 4 channels, 1.3 has 16)"
        )
    if caption_channels != network.caption_channels:
        raise ValueError(
            f"model.text_encoder makes features of width {caption_channels}; this {network.family} reads "
            f"{network.caption_channels}: take the T5 that it was trained with (the official models' is t5xxl, 4096)"
        )


def default_buckets(
    about: Mapping[str, Any],
    clips: Sequence[Clip],
    counting: Counting,
    version: str = "1.2",
    *,
    resolution: str = "",
    frames: int = 0,
    batch_size: int = 0,
) -> dict[str, dict[int, int]]:
    """Buckets for clips and a model whose file says what it was `made_for`: its size, its length, and images.

    resolution, frames and batch_size are chosen where they are not empty. Raises ValueError for a resolution that the
    `version` has no table of.
    """
    made_for = about.get("made_for") or OFFICIAL
    version = version if version in aspect_ratios.VERSIONS else "1.2"  # as Shapes does
    area = aspect_ratios.area(resolution, version) if resolution else made_for["height"] * made_for["width"]
    longest = max((clip.frames for clip in clips), default=1)
    video = frames or counting.nearest(min(longest, made_for["num_frames"]))[0]
    lengths = {video, *([1] if any(clip.frames == 1 for clip in clips) else [])}
    side = math.sqrt(area)
    latents = counting.latent_side(round(side)) ** 2
    batch = {length: batch_size or max(1, LATENTS // (counting.latent_frames(length) * latents)) for length in lengths}
    return {resolution or f"{made_for['height']}x{made_for['width']}": dict(sorted(batch.items()))}


def shapes_of(
    config: Config, about: Mapping[str, Any], clips: Sequence[Clip], counting: Counting, version: str
) -> Shapes:
    """The shapes that the configuration asks for, or those that suit model and clips."""
    buckets = config.shape.buckets or default_buckets(about, clips, counting, version)
    return Shapes(buckets, counting, config.shape.way, version, config.data.frame_interval)


def examples_of(config: Config, clips: Sequence[Clip], shapes: Shapes) -> tuple[Examples, Examples]:
    """(what is trained on, what is held back to judge by); the cache is yet to be filled."""
    folder = Path(config.data.cache or Path(config.save.folder) / "cache")
    trigger = config.data.trigger.strip()
    if trigger:
        clips = [dataclasses.replace(clip, caption=with_trigger(clip.caption, trigger)) for clip in clips]
    training, held_back = split_by_source(clips, config.data.validation, config.train.seed)
    made = [
        Examples(part, shapes, Cache(folder), windows=config.data.windows, seed=config.train.seed)
        for part in (training, held_back)
    ]
    return made[0], made[1]


def preflight_rows(examples: Examples, held_back: Examples | None = None) -> list[Row]:
    """All clips as the pre-flight picture shows them, those of a shape together, those held back last."""
    found = []
    for part, aside in ((examples, ""), *([(held_back, "held back, to judge by")] if held_back else [])):
        rows = []
        for index, clip in enumerate(part.clips):
            shape = part.shape(index, 0)
            cuts = part.cuts(index, shape)
            note = "; ".join(filter(None, (aside, shape.note)))
            shown = cuts.pop(len(cuts) // 2)
            rows.append(Row(clip, shape.name, shown, note, () if aside else tuple(cuts)))
        found += sorted(rows, key=lambda row: row.bucket)
    return found


def belongs_to(config: Config, examples: Examples, network: nn.Module) -> dict[str, Any]:
    """What a checkpoint must agree with for a run to go on from it: name → value."""
    names = ("kind", "rank", "alpha", "branches", "optimizer", "seed")
    chosen = {f"train.{name}": getattr(config.train, name) for name in names}
    size = sum(value.numel() for value in network.parameters())
    return {**chosen, "data set": examples.fingerprint, "model": f"{getattr(network, 'family', '')} of {size} weights"}


def write_result(network: Any, config: Config, about: Mapping[str, Any], path: Path, **more: str) -> Path:
    """Write what was trained: a LoRA that ComfyUI's loaders take, or the whole transformer.

    `more`: metadata of the file, such as the workflow that made it. A LoRA's own entry, `opensora_lora`, has the
    settings, the data set's fingerprint, and the trigger words.
    """
    if config.train.kind == "lora":
        tensors = {key: value.cpu().contiguous() for key, value in lora.state_dict(network).items()}
        metadata = {"format": "pt", **more}
    else:
        tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
        metadata = {"format": "pt", "opensora": json.dumps(dict(about)), **more}
    checkpoints.write(path, lambda file: safetensors.torch.save_file(tensors, file, metadata=metadata))
    return path


def settings_in_file(config: Config, examples: Examples, result: Mapping[str, float]) -> dict[str, str]:
    """The metadata that a result carries of how it was made."""
    loss = result.get("loss", math.nan)
    told = {
        "settings": to_mapping(config),
        "trigger": config.data.trigger,
        "data_fingerprint": examples.fingerprint,
        "clips": len(examples),
        "step": result.get("step"),
        "validation": loss if math.isfinite(loss) else None,  # without clips that are held back there is none
    }
    return {"opensora_lora" if config.train.kind == "lora" else "opensora_training": json.dumps(told)}
