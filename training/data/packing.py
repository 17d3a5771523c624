"""Which samples share a call of the network where each keeps its own shape: in a pack, or filled up to one another.

Packing lays samples end to end (NaViT, Dehghani et al. 2023): what fits a budget of tokens goes together, whatever its
shape. Padding fills samples up to the largest of their batch, so those go together whose shapes are near.
Both look at a window of the shuffled samples at a time, so that epochs differ and what is drawn late is not seen early.
"""

import math
from collections.abc import Iterable, Sequence

from ...model.frames import Counting

Grid = tuple[int, int, int]  # frames, rows and columns of tokens
WINDOW = 256  # samples among which those that go together are looked for


def grid_of(frames: int, height: int, width: int, counting: Counting, patch_size: Sequence[int] = (1, 2, 2)) -> Grid:
    """Frames, rows and columns of tokens of a clip of so many frames, and of height x width pixels.

    counting: the VAE's; patch_size: latents a token spans in time, height and width. Raises ValueError for a clip that
    is smaller than a latent.
    """
    latents = counting.latent_frames(frames), counting.latent_side(height), counting.latent_side(width)
    if min(latents) < 1:
        raise ValueError(
            f"a clip of {frames} frames of {height} x {width} pixels makes {latents} latents (frames, height, width); "
            "it must make at least 1 of each, the nearest is 1 frame of 8 x 8 pixels"
        )
    T, H, W = (-(-length // patch) for length, patch in zip(latents, patch_size))
    return T, H, W


def tokens_of(frames: int, height: int, width: int, counting: Counting, patch_size: Sequence[int] = (1, 2, 2)) -> int:
    """The tokens of a clip; arguments and errors as `grid_of`."""
    return math.prod(grid_of(frames, height, width, counting, patch_size))


def packs(tokens: Sequence[int], budget: int, order: Sequence[int], window: int = WINDOW) -> list[list[int]]:
    """Samples that share a pack, by first fit, the largest of a window first.

    Args:
        tokens: of each sample.
        budget: tokens of a pack at most. A sample that has more is alone in its pack.
        order: the shuffled numbers of the samples to pack, each once.

    Returns numbers of samples, each of `order` exactly once; packs, and samples in them, by their place in `order`. The
    result is a function of the arguments alone. Raises ValueError for a budget, a window or tokens below 1, and for
    numbers that are none, or there twice.
    """
    _at_least_one(budget=budget, window=window)
    _check_order(order, tokens)
    return [pack for part in _windows(order, window) for pack in _in_order(_first_fit(tokens, budget, part), part)]


def _first_fit(tokens, budget, part):
    found, room = [], []
    for one in sorted(part, key=lambda one: -tokens[one]):
        place = next((number for number, left in enumerate(room) if left >= tokens[one]), None)
        if place is None:
            found.append([one])
            room.append(budget - tokens[one])
        else:
            found[place].append(one)
            room[place] -= tokens[one]
    return found


def near_shapes(
    grids: Sequence[Grid],
    batch_size: int,
    order: Sequence[int],
    *,
    waste: float = 0.25,
    budget: int | None = None,
    window: int = WINDOW,
) -> list[list[int]]:
    """Samples to be filled up to one another: of a window the largest, then always what wastes the fewest tokens.

    Args:
        grids: frames, rows and columns of tokens of each sample.
        batch_size: samples in a batch at most.
        order: the shuffled numbers of the samples, each once.
        waste: the share of a batch's tokens that may be filled in, 0 … 1; 0 joins samples of one shape alone.
        budget: tokens of a batch at most, what is filled in included. A sample that has more is alone in its batch.

    Returns and raises as `packs`; ValueError, too, for a waste outside 0 … 1.
    """
    _at_least_one(batch_size=batch_size, window=window, **({} if budget is None else {"budget": budget}))
    if not 0 <= waste <= 1:
        raise ValueError(f"waste is {waste:g}; it must be within 0 … 1, the nearest is {min(max(waste, 0), 1):g}")
    tokens = [math.prod(grid) for grid in grids]
    _check_order(order, tokens)
    limits = batch_size, waste, math.inf if budget is None else budget
    return [
        batch for part in _windows(order, window) for batch in _in_order(_nearest(grids, tokens, part, *limits), part)
    ]


def _nearest(grids, tokens, part, batch_size, waste, budget):
    left, found = sorted(part, key=lambda one: -tokens[one]), []
    while left:
        batch = [left.pop(0)]
        largest, own = grids[batch[0]], tokens[batch[0]]
        while left and len(batch) < batch_size:
            with_it = {one: tuple(map(max, largest, grids[one])) for one in left}
            whole = {one: (len(batch) + 1) * math.prod(sides) for one, sides in with_it.items()}
            nearest = min(left, key=lambda one: whole[one] - tokens[one])
            own += tokens[nearest]
            if whole[nearest] > budget or whole[nearest] - own > waste * whole[nearest]:
                break
            batch.append(nearest)
            left.remove(nearest)
            largest = with_it[nearest]
        found.append(batch)
    return found


def padded_tokens(grids: Iterable[Grid]) -> int:
    """Tokens that a batch of these grids has, filled up to the largest of each side; 0 without any."""
    grids = list(grids)
    return len(grids) * math.prod(max(sides) for sides in zip(*grids)) if grids else 0


def wasted(grids: Sequence[Grid], batches: Iterable[Sequence[int]]) -> int:
    """Tokens that padding fills in, computed and thrown away, in these batches of numbers of samples."""
    return sum(
        padded_tokens(grids[one] for one in batch) - sum(math.prod(grids[one]) for one in batch) for batch in batches
    )


def unused(tokens: Sequence[int], packed: Iterable[Sequence[int]], budget: int) -> int:
    """Tokens that packs leave of their budget: not computed, but room for more samples."""
    return sum(max(0, budget - sum(tokens[one] for one in pack)) for pack in packed)


def _windows(order, window):
    return [order[start : start + window] for start in range(0, len(order), window)]


def _in_order(batches, part):
    """The batches of a window, and what is in them, by the place in `part`."""
    place = {one: number for number, one in enumerate(part)}
    return sorted((sorted(batch, key=place.__getitem__) for batch in batches), key=lambda batch: place[batch[0]])


def _at_least_one(**numbers):
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} is {number}; it must be a whole number from 1 on, the nearest is 1")


def _check_order(order, tokens):
    """ValueError for numbers of samples that are none or there twice, and for samples without tokens."""
    seen = set()
    for one in order:
        if not 0 <= one < len(tokens):
            raise ValueError(f"order names sample {one}, but the samples are 0 … {len(tokens) - 1}")
        if one in seen:
            raise ValueError(f"order names sample {one} twice; each sample must be there once")
        if tokens[one] < 1:
            raise ValueError(f"sample {one} has {tokens[one]} tokens; it must have at least 1")
        seen.add(one)
