"""Settings of a run as a graph gives them: widgets, lines of text, and YAML over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import comfy.model_management as management

from ....training.config import from_mapping
from ....training.masks import check_conditions, check_ratios

# What the graph itself says: field → the input that does.
OF_GRAPH = {
    "model": "model, and the data set's vae and clip", "data.path": "the data set's folder", "data.cache": "ComfyUI",
    "save.folder": "name",
}  # fmt: skip


def tree_of(text: str) -> dict[str, Any]:
    """The sections of a configuration in YAML. ValueError for what is none, or has a field that a graph cannot set."""
    import yaml

    try:
        found = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"settings is no YAML: {error}") from error
    if not isinstance(found, Mapping):
        raise ValueError(f"settings is {text!r}; it must be sections with fields, such as train: {{warmup: 20}}")
    refuse_of_graph(found)
    try:
        from_mapping(found)
    except ValueError as error:
        raise ValueError(f"settings: {error}") from error
    return dict(found)


def refuse_of_graph(tree: Mapping[str, Any]) -> None:
    """ValueError for a field that a node's input, and not text, decides."""
    for name, by in OF_GRAPH.items():
        section, _, field = name.partition(".")
        fields = tree.get(section) or {}
        if section in tree and (not field or (isinstance(fields, Mapping) and field in fields)):
            raise ValueError(f"settings: {name} is not for this text: here {by} decides it; take it out")
    train = tree.get("train") or {}
    if isinstance(train, Mapping) and train.get("kind", "lora") != "lora":
        raise ValueError(
            f"settings: train.kind is {train['kind']!r}; the graph trains a LoRA, so it must be lora; python run.py "
            "train trains all weights"
        )


def masks_of(text: str) -> dict[str, float]:
    """{mask strategy: probability} of lines `name: probability`. ValueError for another text; empty: the default."""
    import yaml

    try:
        found = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"masks is no list of lines such as image_head: 0.1 ({error})") from error
    if not isinstance(found, Mapping):
        raise ValueError(f"masks is {text!r}; it must be lines such as image_head: 0.1")
    _check_masks(found)
    return dict(found)


def _check_masks(ratios):
    """ValueError for names or probabilities that no generation knows; the run itself asks its own generation."""
    errors = []
    for check in (check_ratios, check_conditions):
        try:
            return check(ratios)
        except (ValueError, TypeError) as error:
            errors.append(error)
    of_conditions = any(str(name).startswith(("i2v", "v2v")) for name in ratios)
    raise ValueError(f"masks: {errors[of_conditions]}")


def precision_of(chosen: str) -> str:
    """The precision of a run; auto: bf16 where the device is good at it."""
    if chosen != "auto":
        return chosen
    return "bf16" if management.should_use_bf16(management.get_torch_device()) else "fp32"
