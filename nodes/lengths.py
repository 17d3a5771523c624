"""How many frames Extend, Connect and Loop may add, and in which steps; other numbers are refused with the nearest."""

from ..model.frames import Counting
from .comfy.vae.network import HostedVAE


def chunks_of(name: str, frames: int, counting: Counting) -> int:
    """How many chunks the node's input `name` means. ValueError, with the nearest choices, for a part of one.

    Where chunks share a frame, it may be counted or not: one chunk of Open-Sora 1.3 is 16 frames or 17.
    """
    chunks = counting.whole_chunks(frames) or counting.whole_chunks(frames + counting.overlap)
    if chunks is None:
        raise ValueError(
            f"{name} is {frames}; this VAE works in chunks of {counting.chunk_frames} frames, so it must be whole "
            f"chunks: the nearest {_are(counting.nearest_chunks(frames))}"
        )
    return chunks


def check_forward(frames: int, own: int, network: HostedVAE) -> None:
    """ValueError where `frames` behind a clip of `own` frames do not make a length that its VAE can represent."""
    what = f"the {own + frames} frames of the whole are no length that this VAE can represent ({network.valid_counts})"
    _check(frames, own, network.nearest_frames(_wanted(frames, own)), what)


def check_backward(frames: int, own: int, network: HostedVAE) -> None:
    """ValueError where `frames` in front of a clip of `own` frames are no whole chunks, or it cannot be led to."""
    check_target(own, network, "latent")
    what = f"in front of a clip only whole chunks of {network.counting.step} fit"
    _check(frames, 0, _multiples(_wanted(frames), network.counting), what)


def check_target(own: int, network: HostedVAE, name: str) -> None:
    """ValueError where new frames cannot lead to a clip of `own` frames, the node's input `name`.

    Where chunks share a frame, a lone image is only that frame: what comes before would end in it.
    """
    if own <= network.counting.overlap:
        raise ValueError(
            f"{name} has 1 frame; with this VAE a clip that new frames lead to needs at least "
            f"{network.counting.chunk_frames}. For one picture use Open-Sora Keyframe at frame -1 instead"
        )


def check_bridge(frames: int, own: int, network: HostedVAE) -> None:
    """ValueError where a first clip of `own` frames and `frames` are no whole chunks, for another clip to follow."""
    counting = network.counting
    what = f"with the {own} frames of first that is {own + frames}, and it must be a multiple of {counting.step}"
    _check(frames, own, _multiples(_wanted(frames, own), counting), what)


def check_loop(frames: int, own: int, network: HostedVAE) -> None:
    """ValueError where a clip of `own` frames is less than a chunk, or it and `frames` are no whole chunks."""
    least = network.counting.chunk_frames
    if own < least:
        raise ValueError(f"latent has {own} frames; a clip that is to return to its beginning needs at least {least}")
    what = f"with the clip's {own} frames that is {own + frames}, and it must be whole chunks of {least}"
    _check(frames, own, network.counting.nearest_chunks(_wanted(frames, own)), what)


def _wanted(frames, own=0):
    """The whole, of which at least a frame is new."""
    return own + max(1, frames)


def _multiples(total, counting):
    """What whole chunks add to a clip, around `total`, low to high; itself alone where it is one."""
    return [frames - counting.overlap for frames in counting.nearest_chunks(total + counting.overlap)]


def _check(frames, own, totals, what):
    """ValueError where `frames` are none, or with `own` none of the possible `totals` next to it; `what` says why."""
    if frames < 1 or own + frames not in totals:
        nearest = [total - own for total in totals if total > own]
        why = "there must be something to make" if frames < 1 else what
        raise ValueError(f"frames is {frames}; {why}: the nearest {_are(nearest)}")


def _are(numbers):
    return f"are {numbers[0]} and {numbers[1]}" if len(numbers) > 1 else f"is {numbers[0]}"
