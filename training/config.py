"""The configuration of a training run: one tree of typed fields with their ranges, read from YAML and written back."""

import contextlib
import dataclasses
import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..model.whole_files import write_whole
from .data.batches import WAYS
from .lora import BRANCHES

KINDS = ("lora", "full")
OPTIMIZERS = ("adamw", "adamw8bit", "prodigy")
SCHEDULES = ("constant", "cosine")
PRECISIONS = ("fp32", "bf16")
METHODS = ("logit-normal", "uniform")


def number(default: float | None, low: float, high: float, help: str) -> Any:
    """A field that is a number within low … high; whole where its default is."""
    return field(default=default, metadata={"low": low, "high": high, "help": help})


def choice(default: str, choices: tuple[str, ...], help: str) -> Any:
    """A field that is one of `choices`."""
    return field(default=default, metadata={"choices": choices, "help": help})


def text(default: str, help: str) -> Any:
    """A field that is text."""
    return field(default=default, metadata={"help": help})


def table(default: Mapping[Any, Any], help: str) -> Any:
    """A field that is a mapping."""
    return field(default_factory=lambda: dict(default), metadata={"help": help})


@dataclass(frozen=True)
class ModelConfig:
    """Which files are trained, or train."""

    transformer: str = text("bundled", "file of the transformer, or bundled")
    vae: str = text("bundled", "file of the VAE, or bundled")
    text_encoder: str = text("bundled", "file or folder of the T5 encoder, or bundled")
    tokenizer: str = text("", "folder of the T5 tokenizer; empty: the one that ComfyUI brings")
    start_from: str = text("", "file of a PixArt transformer to start a video model from; transformer is then not read")
    version: str = choice("1.2", ("1.0", "1.1", "1.2", "1.3"), "generation of a model that starts from an image model")


@dataclass(frozen=True)
class DataConfig:
    """Where the clips are, and how they are taken apart."""

    path: str = text("", "folder of clips with captions beside them, or a manifest (.csv, .jsonl, .parquet)")
    trigger: str = text("", "words put in front of every caption, to call the LoRA by")
    cache: str = text("", "folder of encodings; empty: cache beside the run")
    frame_interval: int = number(1, 1, 64, "of so many frames one is taken: 2 halves the frame rate")
    windows: int = number(2, 1, 64, "stretches of a long clip that are cached; an epoch draws one")
    validation: float = number(0.1, 0, 0.5, "share of the source files that are held back, to judge by")


@dataclass(frozen=True)
class ShapeConfig:
    """What sizes and lengths are trained."""

    way: str = choice("buckets", WAYS, "how clips of different shapes share a batch")
    buckets: dict = table({}, "{resolution: {frames: batch size, or [keep probability, batch size]}}")
    budget: int = number(0, 0, 10_000_000, "tokens of a batch, for padding and packing; 0: those of the largest bucket")


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is drawn for an example."""

    masks: dict = table(
        {}, "mask strategy → probability, in 1.3 kind of condition; empty: mostly none, see docs/training.md"
    )
    caption_dropout: float = number(0.1, 0, 1, "how often the null caption stands for the caption")
    stills: float = number(0.0, 0, 1, "how often a lone kept frame is a lone image's encoding")
    timesteps: str = choice("logit-normal", METHODS, "how timesteps are drawn, for rectified flow")
    shift: bool = field(default=True, metadata={"help": "move timesteps towards noise for larger and longer clips"})


@dataclass(frozen=True)
class TrainConfig:
    """How the weights move."""

    kind: str = choice("lora", KINDS, "lora, or full for all weights")
    rank: int = number(16, 1, 1024, "rank of the LoRA")
    alpha: float = number(16.0, 0.001, 1024, "its strength: a layer's change counts alpha / rank")
    branches: str = choice("all", BRANCHES, "all; look: attention in space; motion: attention over time")
    steps: int = number(500, 1, 10_000_000, "optimiser steps")
    learning_rate: float = number(1e-4, 1e-9, 10, "at its highest")
    optimizer: str = choice("adamw", OPTIMIZERS, "adamw; adamw8bit (bitsandbytes); prodigy (prodigyopt)")
    weight_decay: float = number(0.0, 0, 1, "of AdamW")
    eps: float = number(1e-8, 1e-20, 1e-2, "of AdamW; the original's 1.2 and 1.3 use 1e-15")
    warmup: int = number(10, 0, 1_000_000, "steps over which the learning rate rises")
    schedule: str = choice("constant", SCHEDULES, "of the learning rate behind the warm-up")
    clip: float = number(1.0, 0, 1000, "largest norm of the gradient; 0: any")
    accumulate: int = number(1, 1, 1024, "batches of a step")
    ema: float = number(0.99, 0, 0.99999, "decay of the average of the weights; 0: none")
    precision: str = choice("fp32", PRECISIONS, "in which the network computes; weights that learn are fp32")
    gradient_checkpointing: bool = field(default=False, metadata={"help": "less memory, a third more time"})
    seed: int = number(0, 0, 2**63 - 1, "of everything that is drawn")
    workers: int = number(0, 0, 64, "processes that read the cache")


@dataclass(frozen=True)
class SaveConfig:
    """What a run leaves behind, and how often."""

    folder: str = text("training_run", "folder of the run: checkpoints, log, samples, result")
    every_steps: int = number(100, 1, 1_000_000, "steps between checkpoints")
    every_minutes: float = number(10.0, 0.01, 10_000, "minutes between checkpoints at most")
    keep: int = number(2, 1, 100, "checkpoints that are kept")
    validate_every: int = number(50, 1, 1_000_000, "steps between validations")
    sample_every: int = number(0, 0, 1_000_000, "steps between samples; 0: none")
    prompts: list = field(default_factory=list, metadata={"help": "what is sampled; empty: the first captions"})


@dataclass(frozen=True)
class Config:
    """A whole run."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    shape: ShapeConfig = ShapeConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    train: TrainConfig = TrainConfig()
    save: SaveConfig = SaveConfig()


def from_mapping(values: Mapping[str, Any]) -> Config:
    """The configuration of a tree of mappings, as YAML gives it; what is left out has its default.

    Raises ValueError for a name that is none, a value of another type or outside its range, naming field, value, what
    is allowed and the nearest.
    """
    parts = {part.name: part.type for part in dataclasses.fields(Config)}
    _refuse_unknown(values, parts, "")
    found = {name: _part(parts[name], name, {} if values[name] is None else values[name]) for name in values}
    return Config(**found)


def read(path: str | os.PathLike) -> Config:
    """The configuration in a YAML file; paths in it are relative to the file's folder. Errors as `from_mapping`."""
    yaml, path = _yaml(), Path(path)
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [one.name for one in path.parent.glob("*.y*ml")], 1, 0)
        raise ValueError(f"there is no configuration {path}" + (f"; the nearest is {near[0]}" if near else ""))
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    if not isinstance(values, Mapping):
        raise ValueError(f"{path} holds {type(values).__name__}; it must hold sections: {', '.join(_names(Config))}")
    config = from_mapping(values)
    here = path.parent.absolute()
    return dataclasses.replace(
        config,
        model=_placed(config.model, here, ("transformer", "vae", "text_encoder", "tokenizer", "start_from")),
        data=_placed(config.data, here, ("path", "cache")),
        save=_placed(config.save, here, ("folder",)),
    )


def write(config: Config, path: str | os.PathLike) -> None:
    """The configuration as YAML, each field with its meaning behind it."""
    yaml, lines = _yaml(), []
    for part in dataclasses.fields(config):
        lines.append(f"{part.name}:")
        values = getattr(config, part.name)
        for one in dataclasses.fields(values):
            value = yaml.safe_dump(getattr(values, one.name), default_flow_style=True, width=10_000, allow_unicode=True)
            lines.append(f"  {one.name}: {value.removesuffix('...' + chr(10)).strip()}  # {one.metadata['help']}")
    try:
        write_whole(path, lambda file: file.write_text("\n".join(lines) + "\n", encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error}); free space there, or choose another folder") from error


def to_mapping(config: Config) -> dict[str, Any]:
    """The tree as plain mappings."""
    return dataclasses.asdict(config)


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as error:
        raise ValueError("a configuration is YAML, which needs the package PyYAML: pip install pyyaml") from error
    return yaml


def _names(kind):
    return [one.name for one in dataclasses.fields(kind)]


def _refuse_unknown(values, known, section):
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(str(name), list(known), 1, 0)[0]
            raise ValueError(f"{section}{name} is no field; known are {', '.join(known)}; the nearest is {near}")


def _part(kind, section, values):
    if not isinstance(values, Mapping):
        raise ValueError(f"{section} is {values!r}; it must be a section with fields: {', '.join(_names(kind))}")
    fields = {one.name: one for one in dataclasses.fields(kind)}
    _refuse_unknown(values, fields, f"{section}.")
    return kind(**{name: _value(fields[name], f"{section}.{name}", value) for name, value in values.items()})


def _value(one, name, value):
    """The value of a field in its type and range."""
    if one.type in (int, float):
        return _number(one, name, value)
    choices = one.metadata.get("choices")
    if isinstance(value, float) and choices:  # YAML reads 1.2 as a number
        value = str(value)
    if not isinstance(value, one.type) or (one.type is list and not all(isinstance(each, str) for each in value)):
        raise ValueError(f"{name} is {value!r}; it must be {_KINDS_OF_VALUE[one.type]}, such as {_default(one)!r}")
    if choices and value not in choices:
        near = difflib.get_close_matches(value, choices, 1, 0)[0]
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(choices)}; the nearest is {near}")
    return value


_KINDS_OF_VALUE = {str: "text", bool: "true or false", dict: "a mapping", list: "a list of texts"}


def _default(one):
    return one.default if one.default is not dataclasses.MISSING else one.default_factory()


def _number(one, name, value):
    low, high = one.metadata["low"], one.metadata["high"]
    if isinstance(value, str):  # YAML reads 1e-4 as text
        with contextlib.suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise ValueError(f"{name} is {value!r}; it must be a number within {low} … {high}, such as {one.default}")
    if not low <= value <= high:
        near = low if value < low else high
        raise ValueError(f"{name} is {_short(value)}; it must be within {low} … {high}; the nearest is {near}")
    if one.type is int and value != int(value):
        raise ValueError(f"{name} is {_short(value)}; it must be a whole number; the nearest is {round(value)}")
    return one.type(value)


def _short(value):
    return str(value) if isinstance(value, int) else f"{value:g}"


def _placed(part, folder, names):
    """The part with its paths taken from `folder`; names such as bundled, and what is empty, stay."""

    def place(value):
        return value if value in ("", "bundled") else str(folder / value)

    return dataclasses.replace(part, **{name: place(getattr(part, name)) for name in names})
