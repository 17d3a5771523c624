"""How the timesteps of a batch are drawn."""

import torch

from ..model import flow


def sample(
    batch: int,
    *,
    height: int,
    width: int,
    num_frames: int,
    version: str = "1.2",
    method: str = "uniform",
    discrete: bool = False,
    transform: bool = False,
    loc: float = 0.0,
    scale: float = 1.0,
    transform_scale: float = 1.0,
    scale_temporal: bool = True,
    uniform_over_threshold: float | None = None,
    quantiles: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
    **base: float,
) -> torch.Tensor:
    """Float [batch] in 0…1000, as Open-Sora's rectified flow draws them (Esser et al. 2024 for both methods).

    Args:
        height, width, num_frames: pixels and video frames of the batch, one size.
        method: "uniform", or "logit-normal", the sigmoid of a normal of mean `loc` and deviation `scale`.
        discrete: whole numbers 0…999; of "uniform" only.
        transform: move them towards noise for larger and longer clips (`flow.shift_ratio`), by `transform_scale` more.
            Open-Sora 1.3 trains with 1, whatever this says, and without `scale_temporal` shifts as for an image.
        quantiles: [batch] in 0…1, where in their distribution timesteps lie; None: that is drawn, too.
        uniform_over_threshold: videos of 1.3, in 0…1: what is shifted above it is drawn again, uniformly above it.
        base: base_resolution and base_num_frames, where a model was made for others than the official ones.

    Raises ValueError for another method or version, and for a length that has no shift.
    """
    if method not in ("uniform", "logit-normal"):
        raise ValueError(f"method is {method!r}; it must be 'uniform' or 'logit-normal', the usual one is 'uniform'")
    if discrete and method != "uniform":
        raise ValueError(f"discrete timesteps are drawn uniformly; method is {method!r}, and it must be 'uniform'")
    if version not in flow.LENGTHS:
        raise ValueError(f"version is {version!r}; rectified flow is that of {' and '.join(flow.LENGTHS)}")
    if transform_scale <= 0:
        raise ValueError(f"transform_scale is {transform_scale:g}; it must be above 0, the usual one is 1")
    if discrete:
        t = torch.randint(0, flow.NUM_TIMESTEPS, (batch,), generator=generator).float()
    elif method == "uniform":
        t = (torch.rand(batch, generator=generator) if quantiles is None else quantiles) * flow.NUM_TIMESTEPS
    elif quantiles is not None:
        t = (loc + scale * torch.special.ndtri(quantiles)).sigmoid() * flow.NUM_TIMESTEPS
    else:
        normal = torch.normal(torch.full((batch,), float(loc)), torch.full((batch,), float(scale)), generator=generator)
        t = normal.sigmoid() * flow.NUM_TIMESTEPS
    if not transform:
        return t
    image = num_frames == 1 or (version == "1.3" and not scale_temporal)
    ratio = flow.shift_ratio(
        height,
        width,
        1 if image else num_frames,
        scale=1.0 if version == "1.3" else transform_scale,
        version=version,
        **base,
    )
    if ratio <= 0:
        fewest = flow.LENGTHS[version][1]
        raise ValueError(f"num_frames is {num_frames}; the shift is defined for 1 frame and from {fewest} on")
    t = flow.shift_timesteps(t, ratio)
    if uniform_over_threshold is None or image:
        return t
    again = torch.rand(batch, generator=generator) * (1 - uniform_over_threshold) + uniform_over_threshold
    return torch.where(t > uniform_over_threshold * flow.NUM_TIMESTEPS, again * flow.NUM_TIMESTEPS, t)
