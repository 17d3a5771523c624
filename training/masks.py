"""Which latent frames a training sample keeps: the mask strategies of Open-Sora's training.

A mask is bool [T], True where a frame is generated. Strategies and their draws are those of Open-Sora 1.1 to 1.3
(https://github.com/hpcaitech/Open-Sora, utils/train_utils.py), by their names, "intepolate" included; `version` None
means this pack's own rules: something is always generated, short clips raise nothing, and `chunk_*` keep whole chunks
of the VAE, as a video that goes on does.
"""

import difflib
import random
from collections.abc import Mapping

import torch

from ..model.frames import CHUNKS

CHUNK = CHUNKS.chunk_latents
PLACES = ("random", "head", "tail", "head_tail")
RUNS = tuple(f"{kind}_{place}" for kind in ("quarter", "image") for place in PLACES)
NOISY = "_noisy"
CONDITIONS = ("i2v_head", "i2v_tail", "i2v_loop", "v2v_head", "v2v_tail", "other", "none")


def strategies(version: str | None = None) -> tuple[str, ...]:
    """The names of the strategies of a version."""
    if version == "1.1":
        return ("mask_no", *(f"mask_{name}" for name in RUNS))
    known = ("identity", *RUNS, "random", "intepolate")
    return known if version else (*known, "chunk_head", "chunk_tail", "chunk_head_tail")


def frame_mask(
    name: str, num_frames: int, rng: random.Random, generator: torch.Generator | None = None, version: str | None = None
) -> torch.Tensor:
    """Bool [T] of one strategy.

    `image_*` keep one frame, `quarter_*` up to a quarter of them, `chunk_*` whole chunks, at the head, the tail, both
    or anywhere; `random` keeps each with a random probability, `intepolate` every second one; "identity" keeps none.

    Args:
        rng: draws numbers; generator: draws the frames of "random"; left out: one that `rng` seeds.
        version: whose rules. Of the originals 1.3 alone sees to it that something is generated, whatever the strategy.

    Raises ValueError for an unknown strategy, and by an original's rules for quarters of fewer than 4 frames.
    """
    _refuse_unknown(name, version)
    name = {"mask_no": "identity"}.get(name, name.removeprefix("mask_"))
    mask = torch.ones(num_frames, dtype=torch.bool)
    if num_frames <= 1 or name == "identity":
        return mask
    if name == "random":
        ratio = rng.uniform(0.1, 0.9)
        generator = generator or torch.Generator().manual_seed(rng.getrandbits(63))
        return _some(torch.rand(num_frames, generator=generator) > ratio)
    if name == "intepolate":
        mask[rng.randint(0, 1) :: 2] = False
    else:
        kind, place = name.split("_", 1)
        size, place = (
            _chunks(num_frames, place, rng) if kind == "chunk" else (_size(kind, num_frames, rng, version), place)
        )
        if place == "random":
            start = rng.randint(0, num_frames - size)
            mask[start : start + size] = False
        if place in ("head", "head_tail"):
            mask[:size] = False
        if place in ("tail", "head_tail"):
            mask[num_frames - size :] = False
    return mask if version in ("1.1", "1.2") else _some(mask)


def _size(kind, num_frames, rng, version):
    """Frames of a run."""
    if kind == "image":
        return 1
    quarter = num_frames // 4
    if version and not quarter:
        raise ValueError(
            f"a quarter of {num_frames} latent frames is none; Open-Sora {version} needs 4 for this strategy"
        )
    return rng.randint(1, max(1, quarter))


def _chunks(num_frames, place, rng):
    """(latent frames of the whole chunks that are kept, where), so that at least one chunk is generated."""
    sides = 2 if place == "head_tail" and num_frames >= 3 * CHUNK else 1
    most = (num_frames - CHUNK) // CHUNK // sides
    return CHUNK * rng.randint(1, most) if most > 0 else 0, place if sides == 2 else place.split("_")[0]


def _some(mask):
    """The mask, or where it keeps every frame one that generates the last."""
    mask[-1] |= not mask.any()
    return mask


def draw(
    ratios: Mapping[str, float],
    frames: int,
    batch: int,
    *,
    version: str | None = "1.2",
    rng: random.Random,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Bool [batch, frames]: for each sample a strategy drawn by `ratios` (name → probability), then its mask.

    What `ratios` leaves of 1 generates everything; 1.1 must list all of it. Raises ValueError for what `check_ratios`
    refuses.
    """
    check_ratios(ratios, version)
    return torch.stack([_draw(ratios, frames, version, rng, generator) for _ in range(batch)])


def _draw(ratios, frames, version, rng, generator):
    name = choose(ratios, rng)
    return torch.ones(frames, dtype=torch.bool) if name is None else frame_mask(name, frames, rng, generator, version)


def choose(ratios: Mapping[str, float], rng: random.Random) -> str | None:
    """A name by its probability, from one draw; None where the draw falls into what `ratios` leaves of 1."""
    chance, total = rng.random(), 0.0
    for name, ratio in ratios.items():
        total += ratio
        if total > chance:
            return name
    return None


def check_ratios(ratios: Mapping[str, float], version: str | None = None) -> None:
    """ValueError for an unknown strategy, a probability outside 0…1, and probabilities that do not add up."""
    for name, ratio in ratios.items():
        _refuse_unknown(name, version)
        if not 0 <= ratio <= 1:
            raise ValueError(
                f"the ratio of {name} is {ratio:g}; it must be within 0 … 1, the nearest is {int(ratio > 1)}"
            )
    total = sum(ratios.values())
    whole = version == "1.1" or "identity" in ratios
    if total > 1 + 1e-6 or (whole and total < 1 - 1e-6):
        rest = "" if total > 1 else f", or leave {strategies(version)[0]} out" if version != "1.1" else ""
        raise ValueError(f"the ratios add up to {total:.3f}; they must add up to 1{rest}")


def _refuse_unknown(name, version):
    known = strategies(version)
    if name not in known:
        near = difflib.get_close_matches(str(name), known, 1, 0) or known[:1]
        raise ValueError(
            f"the mask strategy is {name!r}; it must be one of {', '.join(known)}; the nearest is {near[0]}"
        )


def check_conditions(ratios: Mapping[str, float]) -> None:
    """As `check_ratios`, for the kinds of condition that Open-Sora 1.3 can be trained with here.

    Those with "_noisy" behind their name are none: the original mixes noise into the pixels of the reference before it
    encodes them, each time anew, and here clips are encoded once.
    """
    for kind, ratio in ratios.items():
        _refuse_unknown_condition(kind)
        if kind.endswith(NOISY):
            raise ValueError(
                f"the kind of condition is {kind!r}, which mixes noise into the pixels of kept frames; here clips are "
                f"encoded once, without noise; the nearest is {kind.removesuffix(NOISY)}"
            )
        if not 0 <= ratio <= 1:
            raise ValueError(
                f"the ratio of {kind} is {ratio:g}; it must be within 0 … 1, the nearest is {int(ratio > 1)}"
            )
    if sum(ratios.values()) > 1 + 1e-6:
        raise ValueError(f"the ratios add up to {sum(ratios.values()):.3f}; they must add up to 1 at most")


def _refuse_unknown_condition(kind):
    plain = kind.removesuffix(NOISY)
    if plain not in CONDITIONS:
        near = difflib.get_close_matches(plain, CONDITIONS, 1, 0)[0]
        raise ValueError(
            f"the kind of condition is {kind!r}; it must be one of {', '.join(CONDITIONS)}; the nearest is {near}"
        )


def condition_frames(kind: str, frames: int, rng: random.Random) -> list[int]:
    """The latent frames that a batch of Open-Sora 1.3 is conditioned on, a list of indices, for one kind of condition.

    The first, the last or both (`i2v_*`), the first half or the rest (`v2v_*`), a run of any length at the head or up
    to the tail ("other"), none. "_noisy" behind the name says that noise is mixed into them, not which they are.
    """
    _refuse_unknown_condition(kind)
    plain = kind.removesuffix(NOISY)
    least = {"other": 3, "none": 1}.get(plain, 2)
    if frames < least:
        raise ValueError(f"{kind} keeps some of {frames} latent frames and leaves some; it needs {least} at least")
    if plain == "other":
        at_tail = rng.choices([False, True])[0]
        cut = rng.randint(1, frames - 2)
        return list(range(cut, frames) if at_tail else range(cut))
    half = frames // 2
    return {
        "i2v_head": [0],
        "i2v_tail": [frames - 1],
        "i2v_loop": [0, frames - 1],
        "v2v_head": list(range(half)),
        "v2v_tail": list(range(half, frames)),
        "none": [],
    }[plain]
