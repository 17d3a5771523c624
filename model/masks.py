"""The mask strategy text of Open-Sora 1.1 and later: which latent frames references fill, and how firmly.

An entry is "loop,reference,reference_start,target_start,length,edit_ratio"; entries are separated by ";", and what an
entry leaves out at its end is 0,0,0,0,1,0. Positions and lengths are latent frames. Defined by
https://github.com/hpcaitech/Open-Sora (branch opensora/v1.2, opensora/utils/inference_utils.py).
"""

FIELDS = ("loop", "reference", "reference_start", "target_start", "length", "edit_ratio")
DEFAULTS = (0, 0, 0, 0, 1, 0.0)


def parse(strategy):
    """The entries of a mask strategy: a list of 6-tuples (FIELDS), empty for "" and None.

    Raises ValueError that quotes the entry and says where in the text it begins.
    """
    entries, place = [], 0
    for text in strategy.split(";") if strategy else ():
        entries.append(_entry(text, f"strategy is {strategy!r}; its entry {text!r} (character {place + 1})"))
        place += len(text) + 1
    return entries


def _entry(text, where):
    words = text.split(",")
    if len(words) > len(FIELDS):
        raise ValueError(f"{where} has {len(words)} values; the most are {len(FIELDS)}: {', '.join(FIELDS)}")
    values = list(DEFAULTS)
    for index, (word, name) in enumerate(zip(words, FIELDS)):
        kind, wanted = (float, "a number from 0 to 1") if name == "edit_ratio" else (int, "a whole number")
        try:
            values[index] = kind(word)
        except ValueError:
            raise ValueError(f"{where} has {word.strip()!r} for {name}; it must be {wanted}") from None
    if values[4] < 0:
        raise ValueError(f"{where} has the length {values[4]}; it must be 0 or more")
    if not 0 <= values[5] <= 1:
        raise ValueError(f"{where} has the edit_ratio {values[5]:g}; it must be from 0 (keep) to 1 (generate)")
    return tuple(values)


def nearest(value, point, max_value):
    """The multiple of `point` near `value` that 1.2 snaps a position to, in a clip of `max_value` latent frames.

    It rounds down, and up only past the middle and where another whole chunk follows: -1 of 15 (14) becomes 10.
    """
    multiple = value // point
    if value % point > point / 2 and multiple < max_value // point - 1:
        multiple += 1
    return multiple * point


def apply(latents, references, entries, loop=0, align=None):
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
    mask = latents.new_ones(latents.shape[1])
    for entry in parse(entries) if isinstance(entries, str) else entries or ():
        own_loop, number, *positions, length, edit_ratio = entry
        if own_loop != loop:
            continue
        if not -len(references) <= number < len(references):
            raise ValueError(
                f"strategy entry {_text(entry)} asks for reference {number}; there are {len(references)}, numbered from 0"
            )
        reference = references[number]
        source, target = (
            _position(entry, name, position, clip.shape[1], align)
            for name, position, clip in zip(FIELDS[2:4], positions, (reference, latents))
        )
        length = min(length, latents.shape[1] - target, reference.shape[1] - source)
        latents[:, target : target + length] = reference[:, source : source + length].to(latents)
        mask[target : target + length] = edit_ratio
    return latents, mask


def _position(entry, name, position, frames, align):
    """A position in 0 … frames, counted from the end where it is negative, aligned where asked for."""
    found = position + frames if position < 0 else position
    if not 0 <= found <= frames:
        raise ValueError(
            f"strategy entry {_text(entry)} has the {name} {position}, but that clip has {frames} latent frames; allowed "
            f"are {-frames} to {frames - 1}, the nearest is {frames - 1 if position > 0 else -frames}"
        )
    return nearest(found, align, frames) if align else found


def continue_loop(strategy, loop, reference, length=5, edit_ratio=0.0):
    """The strategy with one more entry: loop `loop` begins with the last `length` latent frames of a reference.

    This is how a long video goes on from what was generated before.
    """
    return ";".join(filter(None, (strategy, f"{loop},{reference},-{length},0,{length},{edit_ratio}")))


def _text(entry):
    return ",".join(f"{value:g}" for value in entry)
