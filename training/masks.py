"""Which latent frames a training sample keeps: the mask strategies of Open-Sora's training."""

import numpy
import torch

from ..model.frames import CHUNKS

CHUNK = CHUNKS.chunk_latents


def frame_mask(name, num_frames, rng: numpy.random.Generator):
    """Bool [T], True where a latent frame is generated, for one strategy by its original name (its "intepolate" too).

    `image_*` keep one frame, `quarter_*` up to a quarter of them, `chunk_*` whole chunks (at least one is generated),
    at the head, the tail, both or anywhere; `random` keeps each with a random probability, `intepolate` every second
    one; "identity" keeps none.
    """
    mask = torch.ones(num_frames, dtype=torch.bool)
    if num_frames <= 1 or name == "identity":
        return mask
    if name == "random":
        return _some(torch.from_numpy(rng.random(num_frames) > rng.uniform(0.1, 0.9)))
    if name == "intepolate":
        mask[rng.integers(2) :: 2] = False
        return mask
    kind, place = name.split("_", 1)
    if kind == "chunk":
        sides = 2 if place == "head_tail" and num_frames >= 3 * CHUNK else 1
        place = place if sides == 2 else place.split("_")[0]
        most = (num_frames - CHUNK) // CHUNK // sides
        size = CHUNK * int(rng.integers(1, most + 1)) if most > 0 else 0
    else:
        size = 1 if kind == "image" else int(rng.integers(1, max(num_frames // 4, 1) + 1))
    if place == "random":
        start = int(rng.integers(num_frames - size + 1))
        mask[start : start + size] = False
    if place in ("head", "head_tail"):
        mask[:size] = False
    if place in ("tail", "head_tail"):
        mask[num_frames - size :] = False
    return _some(mask)


def _some(mask):
    """The mask, or where it keeps every frame one that generates the last."""
    mask[-1] |= not mask.any()
    return mask


def draw_frame_mask(num_frames, rng, ratios):
    """Bool [T] of a strategy drawn by `ratios` (name → probability; what is left of 1 generates everything)."""
    if sum(ratios.values()) > 1 + 1e-6:
        raise ValueError(f"ratios add up to {sum(ratios.values()):.3f}; they must not exceed 1")
    names = [*ratios, "identity"]
    return frame_mask(rng.choice(names, p=[*ratios.values(), 1 - sum(ratios.values())]), num_frames, rng)
