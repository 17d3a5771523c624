"""Runs the segments of a long video one after the other: one progress bar, and what is finished outlives an interrupt."""

import logging
from collections import Counter
from dataclasses import dataclass

import comfy.model_management as management
import torch
from comfy_execution.utils import get_executing_context

from ..latent import COUNTING, with_sizes
from ..transformer.base_model import base_model_of
from .conditioning import for_segment, null_conditioning, refuse_beyond
from .run import sample

SEEDS = 2**64
_times_cut_short = Counter()  # by node


@dataclass(frozen=True)
class Run:
    """What the nodes for long videos hand to the sampler, as their inputs are called; `negative` may be None."""

    model: object
    positive: list
    negative: list | None
    seed: int
    steps: int
    cfg: float
    sampler_name: str


def refuse_mismatch(model, network):
    """ValueError where a VAE's network counts frames in another way than the MODEL does."""
    version = base_model_of(model).version
    if COUNTING[version] != COUNTING[network.family]:
        raise ValueError(
            f"vae is {network.family}, which belongs to another generation than the model, Open-Sora {version}; choose the "
            "model's own VAE in Load Open-Sora VAE"
        )


def times_cut_short():
    """How often the node that ComfyUI is asking about returned only a part: for its `fingerprint_inputs`.

    So ComfyUI's cache, which never asks whether an output is whole, does not serve a part to the next run.
    """
    return _times_cut_short[_node()]


def _node():
    context = get_executing_context()
    return context and context.node_id


def fill(run, latent, mask, segments, window_sizes):
    """Make the new latents of a clip.

    Args:
        run: a Run. Segment i gets the prompts that hold there and the seed + i.
        latent: LATENT of the whole clip, samples [B, C, T, h, w]; they are changed in place.
        mask: [T], 0 where a latent is kept and 1 where it is made.
        segments: `model.segments.Segment`s in the order in which they are made.
        window_sizes: Segment to the `latent.Sizes` of its window.

    Returns:
        How many segments are finished: fewer than there are where the run was interrupted behind the first.

    Raises:
        ValueError: a prompt that holds from a segment that does not exist.
    """
    for name, conditioning in (("positive", run.positive), ("negative", run.negative)):
        refuse_beyond(conditioning or (), name, len(segments))
    samples, mask = latent["samples"], mask.clone()
    for index, segment in enumerate(segments):
        places = list(segment.window)
        shape = (samples.shape[0], 1, len(places), *samples.shape[3:])
        window = {"samples": samples[:, :, places], "noise_mask": mask[places].view(1, 1, -1, 1, 1).expand(shape)}
        if "batch_index" in latent:
            window["batch_index"] = latent["batch_index"]
        positive = for_segment(run.positive, index)
        negative = null_conditioning(run.model, positive)
        if run.negative is not None:
            negative = for_segment(run.negative, index)
        try:
            management.throw_exception_if_processing_interrupted()
            made, _ = sample(
                run.model,
                positive,
                negative,
                with_sizes(window, window_sizes(segment)),
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
            return index
        samples[:, :, segment.new.start : segment.new.stop] = made[:, :, segment.made].to(samples)
        mask[segment.new.start : segment.new.stop] = 0
    return len(segments)


def unless_interrupted(improve, latent, *arguments):
    """improve(latent, *arguments), or where that is interrupted the LATENT as it is, which counts as cut short."""
    try:
        return improve(latent, *arguments)
    except management.InterruptProcessingException:
        _times_cut_short[_node()] += 1
        logging.warning("Open-Sora: interrupted at the last touch; the clip is whole, but may jump at a seam")
        return latent


def as_mask(length, kept):
    """fp32 [length]: 0 for the indices in `kept`, 1 elsewhere."""
    mask = torch.ones(length)
    mask[list(kept)] = 0
    return mask


def warn_cut_short(frames, wanted, rest=""):
    """Tell the log how much of a clip there is; `rest` says what else is missing."""
    logging.warning("Open-Sora: interrupted; %d of %d frames are finished and kept%s", frames, wanted, rest)
