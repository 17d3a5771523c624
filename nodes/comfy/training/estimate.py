"""How long a step of training takes, and how much memory, told before there is a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import comfy.model_management as management
import torch

from ....training.config import TrainConfig, from_mapping
from ....training.data.batches import Shape
from ....training.data.examples import Examples
from ....training.estimate import Estimate, estimate
from ....training.setup import objective_of
from ....training.trainer.stopping import Stopped
from ....training.trainer.trial import duration, named
from ..transformer.activations import transformer_bytes
from ..transformer.base_model import base_model_of
from .data import DataSet
from .settings import precision_of

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

WITHOUT_MODEL = "Connect model, and how long a step takes, and how much memory, is said here"
RANK, STEPS = 8, 300  # as Open-Sora Train has them at first
ROOM = 10  # times what a call of the network needs: as much as two blocks with all that they keep


def lines_of(examples: Examples, data: DataSet, model: ModelPatcher | None) -> list[str]:
    """Time and memory of training a LoRA on a data set, in words; without a model, what one would give.

    Raises ValueError for a model that cannot be trained so, and ComfyUI's interrupt where the artist stops it.
    """
    if model is None:
        return [WITHOUT_MODEL]
    shapes = [shape for _, shape in examples.largest()]
    batch = f"A step of the largest batch ({named(shapes, examples.shapes.counting)})"
    base, device = base_model_of(model), management.get_torch_device()
    network, counting = base.diffusion_model, examples.shapes.counting
    objective = objective_of(from_mapping(data.sections), network, base.metadata)
    management.free_memory(_needed(network, shapes, counting), device)
    asked = management.processing_interrupted
    try:
        with torch.inference_mode(False), torch.enable_grad():
            found, spared = (
                estimate(network, objective, _settings(spare), shapes, counting, device, asked)
                for spare in (False, True)
            )
    except Stopped:
        management.throw_exception_if_processing_interrupted()
        raise
    except ValueError as error:
        return [f"{batch} does not fit here: {error}"]
    finally:
        management.soft_empty_cache()
    return [*_said(batch, found, spared, len(examples.steps(0))), *_too_much(found, spared, device)]


def _settings(spare):
    """Those of Open-Sora Train; `spare`: with gradient_checkpointing."""
    precision = precision_of("auto")
    return TrainConfig(rank=RANK, alpha=float(RANK), precision=precision, gradient_checkpointing=spare)


def _needed(network, shapes: Sequence[Shape], counting):
    """Bytes that other models have to leave."""
    needed = 0.0
    for shape in shapes:
        side, frames = counting.latent_side, counting.latent_frames(shape.frames)
        size = (1, network.in_channels, frames, side(shape.height), side(shape.width))
        needed += ROOM * transformer_bytes(network, size, network.max_caption_length, torch.float32)
    return needed


def _said(batch, found: Estimate, spared: Estimate, steps):
    counted = f"{steps} step{'' if steps == 1 else 's'}"
    return [
        f"{batch} takes about {found.seconds:.2g} s and {_bytes(found.memory)}, with gradient_checkpointing "
        f"{_bytes(spared.memory)}",
        f"Once through all clips: {counted}. {STEPS} steps take about {duration(STEPS * found.seconds)} here",
    ]


def _too_much(found, spared, device):
    there = management.get_total_memory(device)
    if found.memory <= there:
        return []
    helps = "turn it on" if spared.memory <= there else "choose a smaller batch_size, frames or resolution"
    return [f"There are {_bytes(there)} here: without gradient_checkpointing it does not fit; {helps}"]


def _bytes(size):
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(1, round(size / 1e6))} MB"
