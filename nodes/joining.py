"""Clips laid on one timeline with a gap for the model to fill: what Extend, Connect and Loop share."""

from dataclasses import dataclass, replace

import torch

from ..model.pins import encode_groups
from ..model.segments import frames_of
from .comfy.latent import DEFAULT_FPS, Sizes, with_sizes
from .comfy.sampling import long_run as runner
from .comfy.vae import video_vae
from .pinning import KEYFRAMES, clip_sizes

FPS_STEP = 0.01  # of the nodes' fps inputs: 29.97 typed and 30000 / 1001 read from a file are one rate


@dataclass(frozen=True)
class Clip:
    """A LATENT with its VAE, as the nodes for long videos see it."""

    latent: dict
    sizes: object
    vae: object
    network: object

    @property
    def counting(self):
        """How its VAE counts: a `model.frames.Counting`."""
        return self.network.counting

    @property
    def samples(self):
        """[B, C, T, h, w]."""
        return self.latent["samples"]


def clip_of(latent, vae, model, name="latent"):
    """The Clip of a LATENT, the node's input `name`. ValueError where it, the VAE and the MODEL do not belong together."""
    network = video_vae.network_of(vae)
    runner.refuse_mismatch(model, network)
    return Clip(latent, clip_sizes(latent, network, name), vae, network)


def foreseen(network, frames):
    """A Clip of which nothing but its length is known, for the checks of `frames`; None where that is not known."""
    if network is None or frames is None:
        return None
    return Clip(None, Sizes(DEFAULT_FPS, frames, 0, 0), None, network)


def refuse_unlike(first, second):
    """ValueError, saying both, where two Clips cannot be one: another size, frame rate or number of clips."""
    a, b = first.sizes, second.sizes
    if (a.width, a.height) != (b.width, b.height) or first.samples.shape[3:] != second.samples.shape[3:]:
        raise ValueError(
            f"first is {a.width} x {a.height} and second {b.width} x {b.height}; both must have one size: Open-Sora Fit "
            "Image brings pictures to a size before Open-Sora VAE Encode"
        )
    if abs(a.fps - b.fps) >= FPS_STEP:
        raise ValueError(
            f"first has {a.fps:g} frames per second and second {b.fps:g}; both must have one frame rate: it is set in "
            "Open-Sora VAE Encode and Empty Open-Sora Latent"
        )
    if len(first.samples) != len(second.samples):
        raise ValueError(
            f"first is a batch of {len(first.samples)} clips and second of {len(second.samples)}; both must have as "
            "many: stock Repeat Latent Batch and Latent From Batch change that"
        )


def chunks_of(name, frames, counting):
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


def check_forward(frames, clip):
    """ValueError where `frames` behind the Clip do not make a length that its VAE can represent."""
    total = clip.sizes.frames + frames
    what = f"the {total} frames of the whole are no length that this VAE can represent ({clip.network.valid_counts})"
    _check(frames, clip.network.nearest_frames, clip.sizes.frames, what)


def check_backward(frames, clip):
    """ValueError where `frames` in front of the Clip are no whole chunks, or it cannot be led to."""
    check_target(clip, "latent")
    _check(frames, _multiples_of(clip.counting), 0, f"in front of a clip only whole chunks of {clip.counting.step} fit")


def check_target(clip, name):
    """ValueError where new frames cannot lead to the Clip, the node's input `name`.

    Where chunks share a frame, a lone image is only that frame: what comes before would end in it.
    """
    least = clip.counting.chunk_frames
    if clip.sizes.frames <= clip.counting.overlap:
        raise ValueError(
            f"{name} has 1 frame; with this VAE a clip that new frames lead to needs at least {least}. For one picture "
            "use Open-Sora Keyframe at frame -1 instead"
        )


def check_bridge(frames, first):
    """ValueError where the first Clip and `frames` are no whole chunks, for another clip to follow."""
    total = first.sizes.frames + frames
    what = f"with the {first.sizes.frames} frames of first that is {total}, and it must be a multiple of {first.counting.step}"
    _check(frames, _multiples_of(first.counting), first.sizes.frames, what)


def check_loop(frames, clip):
    """ValueError where the Clip is less than a chunk, or it and `frames` are no whole chunks."""
    own, counting = clip.sizes.frames, clip.counting
    least = counting.chunk_frames
    if own < least:
        raise ValueError(f"latent has {own} frames; a clip that is to return to its beginning needs at least {least}")
    what = f"with the clip's {own} frames that is {own + frames}, and it must be whole chunks of {least}"
    _check(frames, counting.nearest_chunks, own, what)


def _multiples_of(counting):
    """total -> the whole chunks around it, low to high; itself alone where it is one."""

    def around(total):
        return [frames - counting.overlap for frames in counting.nearest_chunks(total + counting.overlap)]

    return around


def _check(frames, around, there, what):
    """ValueError where `frames` are none, or `there` + `frames` is not possible; `what` says why.

    `around`(total) -> the nearest totals that are possible.
    """
    totals = around(there + max(1, frames))
    if frames < 1 or there + frames not in totals:
        nearest = [total - there for total in totals if total > there]
        why = "there must be something to make" if frames < 1 else what
        raise ValueError(f"frames is {frames}; {why}: the nearest {_are(nearest)}")


def _are(numbers):
    return f"are {numbers[0]} and {numbers[1]}" if len(numbers) > 1 else f"is {numbers[0]}"


@dataclass(frozen=True)
class Timeline:
    """A clip that is known in parts. `samples` [B, C, T, h, w]; `mask` [T] is 0 where a latent is kept, 1 in the gap.

    `known` latents at the front stay as they are; `frames` is the length of the whole.
    """

    clip: Clip
    samples: torch.Tensor
    mask: torch.Tensor
    frames: int
    known: int

    @property
    def groups(self):
        """The video frames behind each latent."""
        return self.clip.network.counting.groups(self.frames)

    def frames_of(self, latents):
        """How many video frames these latents are."""
        return frames_of(latents, self.groups, self.clip.counting)


def begun_by(clip, frames):
    """A Timeline of `frames` frames that begins with the clip.

    Latents that stand for the same frames there stay as they are. Others, those of a chunk that the clip only begins,
    are decoded and encoded again as the beginning of that chunk; what does not fill a latent goes into the gap.
    """
    groups, own = clip.network.counting.groups(frames), clip.network.counting.groups(clip.sizes.frames)
    known = next(
        (index for index, pair in enumerate(zip(own, groups)) if pair[0] != pair[1]), min(len(own), len(groups))
    )
    B, C, _, h, w = clip.samples.shape
    samples = clip.samples.new_zeros(B, C, len(groups), h, w)
    samples[:, :, :known] = clip.samples[:, :, :known]
    again = _begun_chunk(clip, own, groups, known) if known < len(own) else {}
    for index, content in again.items():
        samples[:, :, index] = content.to(samples)
    mask = runner.as_mask(len(groups), [*range(known), *again])
    return Timeline(clip, samples, mask, frames, known)


def _begun_chunk(clip, own, groups, start):
    """Latents [B, C, h, w] by index for the frames from latent `start` on, laid into the chunk that they begin."""
    chunk = groups[start : start + clip.counting.chunk_latents]
    first = own[start].start
    left = clip.sizes.frames - first
    if left == 1:  # encoded again it would count as a lone image, which fills its group
        return {}
    images = video_vae.decode(clip.vae, clip.samples[:, :, start:], left)
    inside = [range(group.start - first, group.stop - first) for group in chunk]
    laid = [
        encode_groups(lambda piece: video_vae.encode(clip.vae, piece), pixels, inside, 0, len(inside))
        for pixels in images.unflatten(0, (-1, left))
    ]
    return {start + index: torch.stack([found[index] for found in laid]) for index in laid[0]}


def ended_by(clip, frames):
    """A Timeline that ends with the whole clip and has `frames` frames, whole chunks, in front of it."""
    gap = clip.counting.whole_chunks(frames + clip.counting.overlap) * clip.counting.chunk_latents
    B, C, T, h, w = clip.samples.shape
    samples = torch.cat([clip.samples.new_zeros(B, C, gap, h, w), clip.samples], dim=2)
    mask = runner.as_mask(gap + T, range(gap, gap + T))
    return Timeline(clip, samples, mask, frames + clip.sizes.frames, 0)


def followed_by(timeline, clip):
    """The Timeline of whole chunks with a clip behind it."""
    samples = torch.cat([timeline.samples, clip.samples.to(timeline.samples)], dim=2)
    mask = torch.cat([timeline.mask, torch.zeros(clip.samples.shape[2])])
    frames = timeline.frames + clip.sizes.frames - clip.counting.overlap
    return replace(timeline, samples=samples, mask=mask, frames=frames)


def generate(timeline, segments, run, rest=""):
    """The LATENT of a Timeline whose gap the model has filled, or of the part that an interrupt left.

    Args:
        segments: `model.segments.Segment`s that fill it, in order.
        run: `long_run.Run`.
        rest: for the log: what a part lacks beside the frames of the gap.
    """
    clip = timeline.clip
    gone = ("noise_mask", KEYFRAMES)  # they speak of the clip as it came in
    latent = {key: value for key, value in clip.latent.items() if key not in gone}
    whole = {**latent, "samples": timeline.samples}

    def window_sizes(segment):
        return replace(clip.sizes, frames=timeline.frames_of(segment.window))

    finished = runner.fill(run, whole, timeline.mask, segments, window_sizes)
    samples, frames = whole["samples"], timeline.frames
    if finished < len(segments):
        part = segments[finished - 1].done
        samples, frames = samples[:, :, part.start : part.stop].clone(), timeline.frames_of(part)
        runner.warn_cut_short(frames, timeline.frames, rest)
    return with_sizes(latent, replace(clip.sizes, frames=frames), samples=samples)
