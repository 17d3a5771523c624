"""Long videos, segment by segment: which latents each run makes, and which of its neighbours it sees.

A network sees a window of the clip: context that is kept, then the latents that it makes, then perhaps context again.
Windows hold whole chunks of the VAE, so the clip never leaves latent space. This is the loop of Open-Sora 1.1 and later
(https://github.com/hpcaitech/Open-Sora, branch opensora/v1.2), whose windows have 5 latents of context in front.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Chunk:
    """What a clip's latents can be cut into: pieces of `latents`, each of which adds `frames` to the clip.

    A piece shares `shared` frames with the one before.
    """

    latents: int
    frames: int
    shared: int = 0

    @classmethod
    def of(cls, vae):
        """The chunk of a video VAE: 17 frames as 5 latents in 1.2, 16 more frames in 1.3, a frame in 1.0 and 1.1."""
        if vae.chunk_latents == vae.chunk_frames:  # every frame stands alone, however many are worked on at once
            return cls(1, 1)
        shared = getattr(vae, "overlap", 0)
        return cls(vae.chunk_latents, vae.chunk_frames - shared, shared)

    def whole(self, frames):
        """How many whole chunks a clip of so many frames is; None where it is not made of whole ones."""
        chunks, rest = divmod(frames - self.shared, self.frames)
        return chunks if rest == 0 and chunks > 0 else None

    def nearest(self, frames):
        """The frame counts of whole chunks around `frames`, low to high; `frames` alone where it is one."""
        if self.whole(frames):
            return (frames,)
        low = max(0, (frames - self.shared) // self.frames)
        return tuple(self.frames * chunks + self.shared for chunks in (low, low + 1) if chunks > 0)


@dataclass(frozen=True)
class Segment:
    """One run. Indices of latents: those it makes, all it sees (in that order), and all there are when it is done."""

    new: range
    window: tuple
    done: range

    @property
    def made(self):
        """The places in the window of the latents that it makes: a slice."""
        start = self.window.index(self.new.start)
        return slice(start, start + len(self.new))


def forward(known, stop, chunk, size, context, after=()):
    """The runs that make latents `known` … `stop` - 1 of a clip, from front to back.

    Args:
        known: how many latents there are; a chunk that they leave unfinished is finished by the first run.
        size: new chunks a run.
        context: whole chunks that a run sees in front of its own, where the clip has them.
        after: latents that the last run sees behind its own.
    """
    found, step = [], size * chunk.latents
    for begin in range(known // chunk.latents * chunk.latents, stop, step):
        end = min(begin + step, stop)
        window = range(max(0, begin - context * chunk.latents), end)
        found.append(Segment(range(max(begin, known), end), (*window, *(after if end == stop else ())), range(end)))
    return found


def backward(stop, total, chunk, size, context):
    """The runs that make the first `stop` of `total` latents, from back to front; arguments as `forward`."""
    found, step = [], size * chunk.latents
    for end in range(stop, 0, -step):
        begin = max(0, end - step)
        window = range(begin, min(total, end + context * chunk.latents))
        found.append(Segment(range(begin, end), tuple(window), range(begin, total)))
    return found


def frames_of(latents, groups, chunk):
    """How many video frames the latents of these indices are, seen one after the other.

    Args:
        latents: indices, ascending but for a jump from the end of a loop to its beginning.
        groups: the video frames behind each latent, as the VAE's `groups` tells them.
    """
    jumps = [place for place in range(1, len(latents)) if latents[place] != latents[place - 1] + 1]
    starts, stops = [0, *jumps], [*jumps, len(latents)]
    frames = (groups[latents[stop - 1]].stop - groups[latents[start]].start for start, stop in zip(starts, stops))
    return sum(frames) - chunk.shared * len(jumps)
