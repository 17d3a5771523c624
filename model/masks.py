"""The mask strategy text of Open-Sora 1.1 and later: which latent frames references fill, and how firmly.

An entry is "loop,reference,reference_start,target_start,length,edit_ratio"; entries are separated by ";", and what an
entry leaves out at its end is 0,0,0,0,1,0. Positions and lengths are latent frames. Defined by
https://github.com/hpcaitech/Open-Sora (branch opensora/v1.2, opensora/utils/inference_utils.py).
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

FIELDS = ("loop", "reference", "reference_start", "target_start", "length", "edit_ratio")
DEFAULTS = (0, 0, 0, 0, 1, 0.0)


def parse(strategy: str | None) -> list[tuple]:
    """The entries of a mask strategy: a list of 6-tuples (FIELDS), empty for "" and None.

    Values are read, not judged: `parse_checked` does that too. Raises ValueError that points at the first character,
    counted from 1, of the word that is wrong.
    """
    return [values for values, _ in _entries(strategy)]


def parse_checked(strategy: str | None) -> list[tuple]:
    """`parse`, and ValueError for a length below 0 and an edit ratio outside 0…1."""
    found = _entries(strategy)
    for values, words in found:
        for index, good, wanted in (
            (4, values[4] >= 0, "it must be 0 or more"),
            (5, 0 <= values[5] <= 1, "it must be from 0 (keep) to 1 (generate)"),
        ):
            if not good:
                character, word = words[index]
                raise ValueError(f"{_at(strategy, character, word)} is the {FIELDS[index]}; {wanted}")
    return [values for values, _ in found]


def _entries(strategy):
    """[(6-tuple, [(character, word) as written, …]), …]"""
    found, character = [], 1
    for text in strategy.split(";") if strategy else ():
        words = []
        for word in text.split(","):
            words.append((character + len(word) - len(word.lstrip()), word.strip()))
            character += len(word) + 1
        found.append((_values(strategy, words), words))
    return found


def _values(strategy, words):
    if len(words) > len(FIELDS):
        raise ValueError(
            f"{_at(strategy, *words[len(FIELDS)])} is value {len(FIELDS) + 1} of its entry; the most are "
            f"{len(FIELDS)}: {', '.join(FIELDS)}"
        )
    values = list(DEFAULTS)
    for index, ((character, word), name) in enumerate(zip(words, FIELDS)):
        kind, wanted = (float, "number") if name == "edit_ratio" else (int, "whole number")
        try:
            values[index] = kind(word)
        except ValueError:
            if not word:
                raise ValueError(
                    f"strategy is {strategy!r}: at character {character} a {wanted} for {name} is missing"
                ) from None
            raise ValueError(f"{_at(strategy, character, word)} is no {wanted} for {name}") from None
    return tuple(values)


def _at(strategy, character, word):
    return f"strategy is {strategy!r}: character {character}, {word!r},"


def nearest(value: int, point: int, max_value: int) -> int:
    """The multiple of `point` near `value` that 1.2 snaps a position to, in a clip of `max_value` latent frames.

    It rounds down, and up only past the middle and where another whole chunk follows: -1 of 15 (14) becomes 10.
    """
    multiple = value // point
    if value % point > point / 2 and multiple < max_value // point - 1:
        multiple += 1
    return multiple * point


def apply(
    latents: Tensor,
    references: Sequence[Tensor],
    entries: str | Iterable[Sequence] | None,
    loop: int = 0,
    align: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Fill a clip with references as the entries of this loop say; later entries overwrite earlier ones.

    Args:
        latents: the clip, [C, T, H, W]; it stays as it is.
        references: a list of [C, T_r, H, W], numbered from 0 as the entries do.
        entries: what `parse` returns, or the text itself.
        loop: the run of a long video that this clip is.
        align: snap positions to multiples of so many latent frames (5 in 1.2); None or 0 leaves them.

    Returns:
        The filled clip [C, T, H, W], and mask values [T]: the edit ratio where a reference lies, 1 elsewhere.

    Raises:
        ValueError: an entry names a reference that is not there, or a position outside a clip.
    """
    latents = latents.clone()
    mask = torch.ones(latents.shape[1], device=latents.device)  # in fp32: halves move the t at which a frame wakes
    parsed: Iterable[Sequence] = parse_checked(entries) if isinstance(entries, str) else entries or ()
    for entry in parsed:
        if entry[0] != loop:
            continue
        number, edit_ratio = entry[1], entry[5]
        if not -len(references) <= number < len(references):
            raise ValueError(
                f"strategy entry {text_of(entry)} asks for reference {number}; there are {len(references)}, "
                "numbered from 0"
            )
        reference = references[number]
        source, target, length = span(entry, reference.shape[1], latents.shape[1], align)
        latents[:, target : target + length] = reference[:, source : source + length].to(latents)
        mask[target : target + length] = edit_ratio
    return latents, mask


def span(entry: Sequence, reference_frames: int, frames: int, align: int | None = None) -> tuple[int, int, int]:
    """(first latent frame in the reference, first one in the clip, how many) that an entry copies.

    Arguments are in latent frames; `align` and ValueError as `apply`.
    """
    if entry[4] < 0:
        raise ValueError(f"strategy entry {text_of(entry)} has the length {entry[4]}; it must be 0 or more")
    source = _position(entry, FIELDS[2], entry[2], reference_frames, align)
    target = _position(entry, FIELDS[3], entry[3], frames, align)
    return source, target, min(entry[4], frames - target, reference_frames - source)


def _position(entry, name, position, frames, align):
    """A position in 0 … frames, counted from the end where it is negative, aligned where asked for."""
    found = position + frames if position < 0 else position
    aligned = nearest(found, align, frames) if align else found
    if found < 0 or aligned > frames:
        raise ValueError(outside(entry, name, position, frames))
    return aligned


def outside(entry: Sequence, name: str, position: int, frames: int) -> str:
    """The words for an entry whose position `name` lies outside a clip of so many latent frames."""
    return (
        f"strategy entry {text_of(entry)} has the {name} {position}, but that clip has {frames} latent frames; allowed "
        f"are {-frames} to {frames - 1}, the nearest is {frames - 1 if position > 0 else -frames}"
    )


def continue_loop(strategy: str | None, loop: int, reference: int, length: int = 5, edit_ratio: float = 0.0) -> str:
    """The strategy with one more entry: loop `loop` begins with the last `length` latent frames of a reference.

    This is how a long video goes on from what was generated before.
    """
    return ";".join(filter(None, (strategy, f"{loop},{reference},-{length},0,{length},{edit_ratio}")))


def text_of(entry: Sequence) -> str:
    """An entry as the strategy writes it, with all its values."""
    return ",".join([*map(str, entry[:5]), f"{entry[5]:g}"])
