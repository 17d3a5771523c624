"""CONDITIONING of these models: the learned null caption, and prompts that hold from a segment of a long video on."""

from .run import base_model_of

SEGMENT = "opensora_segment"  # the segment from which an entry holds; an entry without it holds everywhere


def null_conditioning(model, positive):
    """CONDITIONING for the unconditional half of guidance.

    The checkpoint's null caption [1, L, C] takes the place of every caption in `positive`, whose attention mask (and
    anything else an entry carries) stays: the null half reads as many tokens as the prompt has.

    Raises ValueError where `model` is no Open-Sora model or `positive` is longer than its null caption.
    """
    null = base_model_of(model).diffusion_model.null_caption
    entries = []
    for caption, extra in positive:
        length = caption.shape[1]
        if length > null.shape[0]:
            raise ValueError(
                f"positive has {length} tokens, this model takes at most {null.shape[0]}; connect the model to "
                "Open-Sora Text Encode too, so that it pads prompts to the right length"
            )
        rows = null[:length].to(device=caption.device, dtype=caption.dtype)
        entries.append([rows.unsqueeze(0).repeat(caption.shape[0], 1, 1), dict(extra)])
    return entries


def from_segment(conditioning, segment):
    """The same CONDITIONING, to hold from this segment on."""
    return [[caption, {**extra, SEGMENT: segment}] for caption, extra in conditioning]


def for_segment(conditioning, segment):
    """The entries of a CONDITIONING that hold in a segment: of those that begin somewhere, the latest to begin by it."""
    starts = [extra[SEGMENT] for _, extra in conditioning if SEGMENT in extra]
    latest = max((start for start in starts if start <= segment), default=None)
    return [entry for entry in conditioning if entry[1].get(SEGMENT, latest) == latest]


def refuse_beyond(conditioning, name, segments):
    """ValueError where an entry of CONDITIONING, the node's input `name`, begins behind the last of so many segments."""
    starts = {extra[SEGMENT] for _, extra in conditioning if SEGMENT in extra}
    if starts and max(starts) >= segments:
        there_are = "is segment 0 alone" if segments == 1 else f"are segments 0 to {segments - 1}"
        raise ValueError(
            f"{name} has a prompt that begins at segment {max(starts)}, but here {there_are}: the last number that is "
            f"used is {segments - 1}. Take the prompt out, or make more segments: more frames, or a smaller segment"
        )
