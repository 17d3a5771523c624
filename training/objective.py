"""What a network learns from an example: the draws that belong to it, and the loss.

Which frames are kept, whether the caption is dropped, the timestep and the noise are a function of (seed, epoch,
example) alone: workers, processes and restarts change nothing.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..model.transformers.mixed_shapes import ClipInputs
from ..model.transformers.packed import forward_packed
from ..model.transformers.padded import crop, forward_padded, pad_clips
from . import losses, masks, timesteps
from .data.draws import seed_of
from .data.examples import Example

VALIDATION_TIMESTEPS = torch.linspace(0, 1000, 12)[1:-1]  # the original's ten
# The noise bands of reports: what a timestep decides. Colour and motion are decided high up, outlines low down.
BANDS = {"low": (0, 333), "middle": (333, 667), "high": (667, 1000)}


@dataclass(frozen=True)
class Objective:
    """What is drawn for an example, by a model's generation.

    Args:
        version: "1.0" … "1.3", whose loss, and in 1.3 whose conditions, are meant.
        ratios: mask strategy → probability; of 1.3 kind of condition → probability.
        caption_dropout: how often the null caption stands for the caption.
        stills: how often a lone kept frame is a lone image's encoding, as one pinned in a graph is.
        method, transform: as in `timesteps.sample`; flow: the model's base_resolution, base_num_frames and scale.
        way: "buckets", "padding" or "packing".
    """

    version: str = "1.2"
    ratios: Mapping[str, float] = field(default_factory=dict)
    caption_dropout: float = 0.1
    stills: float = 0.0
    method: str = "logit-normal"
    transform: bool = True
    flow: Mapping[str, float] = field(default_factory=dict)
    way: str = "buckets"

    @property
    def is_flow(self) -> bool:
        return self.version in ("1.2", "1.3")


@dataclass(frozen=True)
class Drawn:
    """An example with its draws: clean and noise [C, T, h, w], t, frame_mask bool [T], the caption, and its sizes."""

    clean: Tensor
    noise: Tensor
    t: float
    frame_mask: Tensor
    caption: Tensor
    caption_mask: Tensor
    sizes: dict[str, float]
    condition_frames: tuple[int, ...] = ()


def draw(example: Example, objective: Objective, null_caption: Tensor, *, seed: int, epoch: int) -> Drawn:
    """The draws of an example in an epoch."""
    rng = random.Random(seed_of(seed, epoch, example.identity))
    generator = torch.Generator().manual_seed(rng.getrandbits(63))
    kept = _kept(example, objective, rng, generator)
    T = example.latents.shape[1]
    mask, condition_frames = (
        (torch.ones(T, dtype=torch.bool), tuple(kept)) if objective.version == "1.3" else (kept, ())
    )
    clean = _with_stills(example, mask, objective.stills, rng)
    dropped = rng.random() < objective.caption_dropout
    caption = null_caption[: len(example.features)].to(example.features) if dropped else example.features
    return Drawn(
        clean,
        torch.randn(clean.shape, generator=generator),
        _timestep(example, objective, generator),
        mask,
        caption,
        example.mask,
        example.sizes,
        condition_frames,
    )


def fixed(example: Example, t: float) -> Drawn:
    """The example as validation looks at it: every frame generated, at timestep t, always the same noise."""
    generator = torch.Generator().manual_seed(seed_of("validation", example.identity, f"{t:.3f}"))
    noise = torch.randn(example.latents.shape, generator=generator)
    mask = torch.ones(example.latents.shape[1], dtype=torch.bool)
    return Drawn(example.latents, noise, t, mask, example.features, example.mask, example.sizes)


def _kept(example, objective, rng, generator):
    """The frame mask of an example, bool [T]; of 1.3 the frames of its condition, a list."""
    T = example.latents.shape[1]
    if objective.version != "1.3":
        return masks.draw(objective.ratios, T, 1, version=None, rng=rng, generator=generator)[0]
    kind = masks.choose(objective.ratios, rng)
    return masks.condition_frames(kind, T, rng) if kind and T > 2 else []


def _with_stills(example, mask, stills, rng):
    """Latents whose kept frames, where they are one or two, are partly what a lone image there encodes to."""
    kept = [index for index in range(len(mask)) if not mask[index]]
    clean = example.latents
    if not stills or not 0 < len(kept) <= 2:
        return clean
    clean = clean.clone()
    for index in kept:
        if example.has_still[index] and rng.random() < stills:
            clean[:, index] = example.stills[:, index]
    return clean


def _timestep(example, objective, generator):
    if not objective.is_flow:
        return float(torch.randint(0, 1000, (1,), generator=generator))
    sizes = {name: int(example.sizes[name]) for name in ("height", "width", "num_frames")}
    base = {name: value for name, value in objective.flow.items() if name.startswith("base_")}
    drawn = timesteps.sample(
        1, **sizes, version=objective.version, method=objective.method, transform=objective.transform,
        transform_scale=objective.flow.get("scale", 1.0), generator=generator, **base,
    )  # fmt: skip
    return float(drawn)


def loss(network: nn.Module, batch: Sequence[Drawn], objective: Objective) -> Tensor:
    """The loss of each example of a batch, [B], in their order; all on the network's device."""
    if objective.way != "buckets":
        return _loss_of_any_shape(network, batch, objective)
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, drawn in enumerate(batch):
        groups.setdefault(drawn.condition_frames, []).append(index)
    found: list[Any] = [None] * len(batch)
    for frames, places in groups.items():
        values = _loss_of_one_shape(network, [batch[place] for place in places], frames, objective)
        for place, value in zip(places, values):
            found[place] = value
    return torch.stack(found)


def _loss_of_one_shape(network, batch, condition_frames, objective):
    """[B] of examples that share a shape and the frames of their condition."""
    clean, noise, frame_mask = (_stack(network, batch, name) for name in ("clean", "noise", "frame_mask"))
    t = torch.tensor([drawn.t for drawn in batch], device=clean.device)
    given = _conditions(network, batch)
    if condition_frames:
        condition_mask = torch.zeros_like(clean)
        condition_mask[:, :, list(condition_frames)] = 1
        given |= {"condition": clean * condition_mask, "condition_mask": condition_mask}
        given["condition_frames"] = list(condition_frames)
    masked = None if bool(frame_mask.all()) else frame_mask

    def predict(noisy: Tensor, t: Tensor) -> Tensor:
        return network(noisy, t, frame_mask=masked, **given)

    if not objective.is_flow:
        return losses.iddpm(predict, clean, t, noise, frame_mask=masked, version=objective.version)["loss"]
    return losses.rectified_flow(
        predict, clean, t, noise, frame_mask=masked, version=objective.version, condition_frames=condition_frames
    )


def _loss_of_any_shape(network, batch, objective):
    """[B] of examples of different shapes, in one call of the network."""
    device = _device(network)
    clips, inputs = [], []
    for drawn in batch:
        clean, noise, mask = (value[None].to(device) for value in (drawn.clean, drawn.noise, drawn.frame_mask))
        t = torch.tensor([drawn.t], device=device)
        clips.append((clean, t, noise, mask))
        told = {name: drawn.sizes[name] for name in ("fps", "height", "width")}
        noisy = losses.noised(clean, t, noise, mask)[0]
        caption, caption_mask = drawn.caption.to(device), drawn.caption_mask.to(device)
        inputs.append(ClipInputs(noisy, t, caption, caption_mask, None if mask.all() else mask[0], **told))
    if objective.way == "packing":
        predictions = forward_packed(network, inputs)
    else:
        predictions = crop(forward_padded(network, **pad_clips(inputs)), [each.size for each in inputs])
    return torch.cat(
        [
            losses.velocity_error(prediction[None], clean, t, noise, frame_mask=mask)
            for prediction, (clean, t, noise, mask) in zip(predictions, clips)
        ]
    )


def _device(network):
    return next(network.parameters()).device


def _stack(network, batch, name):
    return torch.stack([getattr(drawn, name) for drawn in batch]).to(_device(network))


def _conditions(network, batch):
    """Captions padded to the longest, their mask, and the sizes of the clips: what the network is told."""
    length = max(int(drawn.caption_mask.sum()) for drawn in batch)
    caption = torch.stack([_padded(drawn.caption, length) for drawn in batch])
    mask = torch.stack([_padded(drawn.caption_mask, length) for drawn in batch])
    told = {"caption": caption, "caption_mask": mask}
    for name in batch[0].sizes:
        told[name] = torch.tensor([drawn.sizes[name] for drawn in batch])
    return {name: value.to(_device(network)) for name, value in told.items()}


def _padded(values, length):
    """The first `length` rows, zeros where there are fewer."""
    values = values[:length]
    return torch.cat([values, values.new_zeros(length - len(values), *values.shape[1:])])
