"""Long videos, segment by segment: which latents each run makes, and which of its neighbours it sees.

A network sees a window of the clip: context that is kept, then the latents that it makes, then perhaps context again.
Windows hold whole chunks of the VAE, so the clip never leaves latent space. This is the loop of Open-Sora 1.1 and later
(https://github.com/hpcaitech/Open-Sora, branch opensora/v1.2), whose windows have 5 latents of context in front.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from .frames import Counting


@dataclass(frozen=True)
class Segment:
    """One run. Indices of latents: those it makes, all it sees (in that order), and all there are when it is done."""

    new: range
    window: tuple
    done: range

    @property
    def made(self) -> slice:
        """The places in the window of the latents that it makes: a slice."""
        start = self.window.index(self.new.start)
        return slice(start, start + len(self.new))


def forward(
    known: int, stop: int, counting: Counting, size: int, context: int, after: Sequence[int] = ()
) -> list[Segment]:
    """The runs that make latents `known` … `stop` - 1 of a clip, from front to back.

    Args:
        known: how many latents there are; a chunk that they leave unfinished is finished by the first run.
        counting: the VAE's `frames.Counting`.
        size: new chunks a run.
        context: whole chunks that a run sees in front of its own, where the clip has them.
        after: latents that the last run sees behind its own.
    """
    found, step = [], size * counting.chunk_latents
    for begin in range(known // counting.chunk_latents * counting.chunk_latents, stop, step):
        end = min(begin + step, stop)
        window = range(max(0, begin - context * counting.chunk_latents), end)
        found.append(Segment(range(max(begin, known), end), (*window, *(after if end == stop else ())), range(end)))
    return found


def backward(stop: int, total: int, counting: Counting, size: int, context: int) -> list[Segment]:
    """The runs that make the first `stop` of `total` latents, from back to front; arguments as `forward`."""
    found, step = [], size * counting.chunk_latents
    for end in range(stop, 0, -step):
        begin = max(0, end - step)
        window = range(begin, min(total, end + context * counting.chunk_latents))
        found.append(Segment(range(begin, end), tuple(window), range(begin, total)))
    return found


def frames_of(latents: Sequence[int], groups: Sequence[range], counting: Counting) -> int:
    """How many video frames the latents of these indices are, seen one after the other.

    Args:
        latents: indices, ascending but for a jump from the end of a loop to its beginning.
        groups: the video frames behind each latent, as the VAE's `groups` tells them.
    """
    jumps = [place for place in range(1, len(latents)) if latents[place] != latents[place - 1] + 1]
    starts, stops = [0, *jumps], [*jumps, len(latents)]
    frames = (groups[latents[stop - 1]].stop - groups[latents[start]].start for start, stop in zip(starts, stops))
    return sum(frames) - counting.overlap * len(jumps)
