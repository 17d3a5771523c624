"""Clips laid on one timeline with a gap for the model to fill: what Extend, Connect and Loop share."""

from dataclasses import dataclass, replace

import torch

from ..model.frames import Counting
from ..model.pins import pieces
from .comfy.latent import Sizes, clip_sizes
from .comfy.sampling.long_run import Draft, refuse_mismatch
from .comfy.schema import io
from .comfy.vae import video_vae
from .pinning import KEYFRAMES

FPS_STEP = 0.01  # of the nodes' fps inputs: 29.97 typed and 30000 / 1001 read from a file are one rate


@dataclass(frozen=True)
class Clip:
    """A LATENT with its VAE, as the nodes for long videos see it."""

    latent: dict
    sizes: Sizes
    vae: object
    network: object

    @property
    def counting(self) -> Counting:
        """How its VAE counts: a `model.frames.Counting`."""
        return self.network.counting

    @property
    def samples(self) -> torch.Tensor:
        """[B, C, T, h, w]."""
        return self.latent["samples"]


def clip_of(latent: dict, vae: io.Vae.Type, model: io.Model.Type, name: str = "latent") -> Clip:
    """The Clip of a LATENT, the node's input `name`. ValueError where it, VAE and MODEL do not belong together."""
    network = video_vae.network_of(vae)
    refuse_mismatch(model, network)
    return Clip(latent, clip_sizes(latent, network, name), vae, network)


def refuse_unlike(first: Clip, second: Clip) -> None:
    """ValueError, saying both, where two Clips cannot be one: another size, frame rate or number of clips."""
    a, b = first.sizes, second.sizes
    if (a.width, a.height) != (b.width, b.height) or first.samples.shape[3:] != second.samples.shape[3:]:
        raise ValueError(
            f"first is {a.width} x {a.height} and second {b.width} x {b.height}; both must have one size: Open-Sora "
            "Fit Image brings pictures to a size before Open-Sora VAE Encode"
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


def begun_by(clip: Clip, frames: int) -> Draft:
    """A Draft of `frames` frames that begins with the clip.

    Latents that stand for the same frames there stay as they are. Others, those of a chunk that the clip only begins,
    are decoded and encoded again as the beginning of that chunk; what does not fill a latent goes into the gap.
    """
    groups, own = clip.counting.groups(frames), clip.counting.groups(clip.sizes.frames)
    known = next(
        (index for index, pair in enumerate(zip(own, groups)) if pair[0] != pair[1]), min(len(own), len(groups))
    )
    B, C, _, h, w = clip.samples.shape
    samples = clip.samples.new_zeros(B, C, len(groups), h, w)
    samples[:, :, :known] = clip.samples[:, :, :known]
    again = _begun_chunk(clip, own, groups, known) if known < len(own) else {}
    for index, content in again.items():
        samples[:, :, index] = content.to(samples)
    return _draft(clip, frames, samples, [*range(known), *again], known)


def _begun_chunk(clip, own, groups, start):
    """Latents [B, C, h, w] by index for the frames from latent `start` on, laid into the chunk that they begin."""
    chunk = groups[start : start + clip.counting.chunk_latents]
    first = own[start].start
    left = clip.sizes.frames - first
    if left == 1:  # encoded again it would count as a lone image, which fills its group
        return {}
    images = video_vae.decode(clip.vae, clip.samples[:, :, start:], left).unflatten(0, (-1, left))
    inside = [range(group.start - first, group.stop - first) for group in chunk]
    found = {}
    for shown, places in pieces(inside, 0, left, len(inside)):
        laid = torch.cat([video_vae.encode(clip.vae, pixels[shown]) for pixels in images])
        found |= {start + index: laid[:, :, place] for index, place in places.items()}
    return found


def ended_by(clip: Clip, frames: int) -> Draft:
    """A Draft that ends with the whole clip and has `frames` frames, whole chunks, in front of it."""
    gap = clip.counting.whole_chunks(frames + clip.counting.overlap) * clip.counting.chunk_latents
    B, C, T, h, w = clip.samples.shape
    samples = torch.cat([clip.samples.new_zeros(B, C, gap, h, w), clip.samples], dim=2)
    return _draft(clip, frames + clip.sizes.frames, samples, range(gap, gap + T))


def _draft(clip, frames, samples, kept, known=0):
    """The Draft of a Clip that is to have `frames` frames, of which the latents `kept` are there."""
    gone = ("noise_mask", KEYFRAMES)  # they speak of the clip as it came in
    latent = {key: value for key, value in clip.latent.items() if key not in gone}
    mask = torch.ones(samples.shape[2])
    mask[list(kept)] = 0
    return Draft({**latent, "samples": samples}, replace(clip.sizes, frames=frames), clip.counting, mask, known)


def followed_by(draft: Draft, clip: Clip) -> Draft:
    """The Draft of whole chunks with a clip behind it."""
    samples = torch.cat([draft.samples, clip.samples.to(draft.samples)], dim=2)
    mask = torch.cat([draft.mask, torch.zeros(clip.samples.shape[2])])
    sizes = replace(draft.sizes, frames=draft.sizes.frames + clip.sizes.frames - clip.counting.overlap)
    return replace(draft, latent={**draft.latent, "samples": samples}, sizes=sizes, mask=mask)
