"""Runs the segments of a long video in turn: one progress bar, and what is finished outlives an interrupt."""

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import comfy.model_management as management
import torch
from comfy.model_patcher import ModelPatcher
from comfy_execution.utils import get_executing_context

from ....model.frames import Counting
from ....model.segments import Segment, frames_of
from ..latent import COUNTING, Sizes, with_sizes
from ..transformer.base_model import base_model_of
from .conditioning import for_segment, null_conditioning, refuse_beyond
from .run import sample

SEEDS = 2**64
_times_cut_short = Counter()  # by node


@dataclass(frozen=True)
class SamplerInputs:
    """What the nodes for long videos hand to the sampler, as their inputs are called; `negative` may be None."""

    model: object
    positive: list
    negative: list | None
    seed: int
    steps: int
    cfg: float
    sampler_name: str

    def prompts(self, segment: int) -> tuple[list, list]:
        """(positive, negative) that hold in a segment."""
        positive = for_segment(self.positive, segment)
        if self.negative is None:
            return positive, null_conditioning(self.model, positive)
        return positive, for_segment(self.negative, segment)


@dataclass(frozen=True)
class Draft:
    """A clip that is known in parts: the LATENT of the whole and its `latent.Sizes`, as its VAE counts.

    `mask` [T] is 0 where a latent is kept and 1 in the gap; `known` latents at the front stay as they are.
    """

    latent: dict
    sizes: Sizes
    counting: Counting
    mask: torch.Tensor
    known: int

    @property
    def samples(self) -> torch.Tensor:
        """[B, C, T, h, w]; zeros where nothing is known."""
        return self.latent["samples"]

    @property
    def groups(self) -> list[range]:
        """The video frames behind each latent."""
        return self.counting.groups(self.sizes.frames)


def refuse_mismatch(model: ModelPatcher, network: object) -> None:
    """ValueError where a VAE's network counts frames in another way than the MODEL does."""
    version = base_model_of(model).version
    if COUNTING[version] != COUNTING[network.family]:
        raise ValueError(
            f"vae is {network.family}, which belongs to another generation than the model, Open-Sora {version}; choose "
            "the model's own VAE in Load Open-Sora VAE"
        )


def times_cut_short() -> int:
    """How often the node that ComfyUI is asking about returned only a part: for its `fingerprint_inputs`.

    So ComfyUI's cache, which never asks whether an output is whole, does not serve a part to the next run.
    """
    return _times_cut_short[_node()]


def _node():
    context = get_executing_context()
    return context and context.node_id


def fill(run: SamplerInputs, draft: Draft, segments: Sequence[Segment], rest: str = "") -> dict:
    """The LATENT of a Draft whose gap the model has filled; of the finished part, where it was interrupted on the way.

    Args:
        run: segment i gets the prompts that hold there and the seed + i.
        segments: `model.segments.Segment`s in the order in which they are made.
        rest: for the log: what a part lacks beside the frames of the gap.

    Raises:
        ValueError: a prompt that holds from a segment that does not exist.
    """
    for name, conditioning in (("positive", run.positive), ("negative", run.negative)):
        refuse_beyond(conditioning or (), name, len(segments))
    samples, mask, groups = draft.samples.clone(), draft.mask.clone(), draft.groups

    def sizes(latents: Sequence[int]) -> Sizes:
        return replace(draft.sizes, frames=frames_of(latents, groups, draft.counting))

    for index, segment in enumerate(segments):
        places = list(segment.window)
        shape = (samples.shape[0], 1, len(places), *samples.shape[3:])
        window = {"samples": samples[:, :, places], "noise_mask": mask[places].view(1, 1, -1, 1, 1).expand(shape)}
        if "batch_index" in draft.latent:
            window["batch_index"] = draft.latent["batch_index"]
        try:
            management.throw_exception_if_processing_interrupted()
            made, _ = sample(
                run.model,
                *run.prompts(index),
                with_sizes(window, sizes(places)),
                (run.seed + index) % SEEDS,
                run.steps,
                run.cfg,
                run.sampler_name,
                progress=(index * run.steps, len(segments) * run.steps),
            )
        except management.InterruptProcessingException:
            if index == 0:
                raise
            _times_cut_short[_node()] += 1
            part = segments[index - 1].done
            frames = sizes(part).frames, draft.sizes.frames
            logging.warning("Open-Sora: interrupted; %d of %d frames are finished and kept%s", *frames, rest)
            return with_sizes(draft.latent, sizes(part), samples=samples[:, :, part.start : part.stop].clone())
        samples[:, :, segment.new.start : segment.new.stop] = made[:, :, segment.made].to(samples)
        mask[segment.new.start : segment.new.stop] = 0
    return with_sizes(draft.latent, draft.sizes, samples=samples)


@contextlib.contextmanager
def last_touch() -> Iterator[None]:
    """A block that improves a finished clip: where it is interrupted the clip stays, and counts as cut short."""
    try:
        yield
    except management.InterruptProcessingException:
        _times_cut_short[_node()] += 1
        logging.warning("Open-Sora: interrupted at the last touch; the clip is whole, but may jump at a seam")
