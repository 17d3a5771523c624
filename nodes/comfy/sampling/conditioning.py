"""CONDITIONING of these models: prompts, the learned null caption, and what holds from a segment of a long video on."""

import comfy.sd
from comfy.model_patcher import ModelPatcher

from ....model.text import add_scores
from ..text.encoder import refuse_other_clip, refuse_other_width
from ..transformer.base_model import base_model_of

DEFAULT_VERSION, SCORE_VERSIONS = "1.2", ("1.2", "1.3")
SEGMENT = "opensora_segment"  # the segment from which an entry holds; an entry without it holds everywhere


def encode_prompt(
    clip: comfy.sd.CLIP,
    prompt: str,
    aesthetic: float = 0.0,
    motion: float = 0.0,
    camera: str | None = None,
    clean: bool = True,
    model: ModelPatcher | None = None,
) -> list:
    """CONDITIONING for `prompt`: features [1, L, channels] and `attention_mask` [1, L] (1 = a real token).

    Args:
        clip: a CLIP from Load Open-Sora Text Encoder.
        aesthetic, motion: scores for the suffixes, 0 leaves one out; camera: a camera motion or None.
        clean: clean the caption as in training.
        model: the MODEL whose token length and wording to use; None is Open-Sora 1.2 with the encoder's own length.
            1.3 has words for scores; older generations have none of their own and get 1.2's numbers.

    Raises ValueError for a CLIP or MODEL of another family, or where the two do not belong together.
    """
    refuse_other_clip(clip)
    max_length, version = None, DEFAULT_VERSION
    if model is not None:
        network = base_model_of(model).diffusion_model
        refuse_other_width(clip, network)
        max_length, version = network.max_caption_length, network.version
    wording = version if version in SCORE_VERSIONS else DEFAULT_VERSION
    prompt = add_scores(prompt, aesthetic or None, motion or None, camera, version=wording)
    tokens = clip.tokenize(prompt, clean=clean, max_length=max_length)
    return clip.encode_from_tokens_scheduled(tokens)


def null_conditioning(model: ModelPatcher, positive: list) -> list:
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


def from_segment(conditioning: list, segment: int) -> list:
    """The same CONDITIONING, to hold from this segment on."""
    return [[caption, {**extra, SEGMENT: segment}] for caption, extra in conditioning]


def for_segment(conditioning: list, segment: int) -> list:
    """The entries of a CONDITIONING that hold in a segment: of those with a beginning, the latest to begin by it."""
    starts = [extra[SEGMENT] for _, extra in conditioning if SEGMENT in extra]
    latest = max((start for start in starts if start <= segment), default=None)
    return [entry for entry in conditioning if entry[1].get(SEGMENT, latest) == latest]


def refuse_beyond(conditioning: list, name: str, segments: int) -> None:
    """ValueError where an entry of CONDITIONING, the node's input `name`, begins behind the last of the segments."""
    starts = {extra[SEGMENT] for _, extra in conditioning if SEGMENT in extra}
    if starts and max(starts) >= segments:
        there_are = "is segment 0 alone" if segments == 1 else f"are segments 0 to {segments - 1}"
        raise ValueError(
            f"{name} has a prompt that begins at segment {max(starts)}, but here {there_are}: the last number that is "
            f"used is {segments - 1}. Take the prompt out, or make more segments: more frames, or a smaller segment"
        )
