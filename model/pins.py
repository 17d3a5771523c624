"""Images pinned to a clip: which latents they hold, and the encodings that stand there."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor


def pinned(groups: Sequence[range], frame: int, count: int) -> list[int]:
    """Which latents `count` images laid from `frame` on pin: a list of latent indices, ascending.

    A single image pins every group it falls into (chunks of Open-Sora 1.3 share a frame); of a clip, the groups that
    it covers entirely.

    Args:
        groups: the video frames behind each latent, as `frames.Counting.groups` tells them.
    """
    if count == 1:
        return [index for index, group in enumerate(groups) if frame in group]
    return [index for index, group in enumerate(groups) if frame <= group[0] and group[-1] < frame + count]


def pieces(
    groups: Sequence[range], frame: int, count: int, chunk_latents: int
) -> Iterator[tuple[Tensor, dict[int, int]]]:
    """What to encode for the latents of `pinned`: yields (images [T], {latent index: where among what they encode to}).

    Each chunk that the images touch is encoded on its own; where they do not reach, their first or last image is
    repeated, so a lone image fills its chunk.

    Args:
        groups: as for `pinned`; every `chunk_latents` of them are one chunk.
    """
    indices = pinned(groups, frame, count)
    for start in range(0, len(groups), chunk_latents):
        chunk = groups[start : start + chunk_latents]
        wanted = {index: index - start for index in indices if start <= index < start + chunk_latents}
        if not wanted:
            continue
        images = (torch.arange(chunk[0][0], chunk[-1][-1] + 1) - frame).clamp(0, count - 1)
        first = next(iter(wanted))
        if count == 1 and len(groups[first]) == 1:  # a frame that is a latent of its own is encoded as a single image
            images, wanted = images[:1], {first: 0}
        yield images, wanted


def encode_groups(
    encode: Callable[[Tensor], Tensor], pixels: Tensor, groups: Sequence[range], frame: int, chunk_latents: int
) -> dict[int, Tensor]:
    """{latent index: [C, h, w]} for the latents of `pinned`.

    Args:
        encode: IMAGE [T, H, W, C] to latents [1, C, T', h, w].
        groups, chunk_latents: as for `pieces`.
    """
    found: dict[int, Tensor] = {}
    for images, wanted in pieces(groups, frame, len(pixels), chunk_latents):
        latents = encode(pixels[images])
        found.update((index, latents[0, :, at]) for index, at in wanted.items())
    return found
