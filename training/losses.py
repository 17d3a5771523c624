"""What a network is trained to bring down: rectified flow (1.2, 1.3) and improved diffusion (1.0, 1.1).

Liu et al. 2022 (rectified flow), Nichol & Dhariwal 2021 (IDDPM: noise and variance together), as Open-Sora trains:
kept frames enter the network clean and count in no loss.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..model import flow
from ..model.iddpm import NUM_TIMESTEPS, schedule


def rectified_flow(
    predict: Callable[[Tensor, Tensor], Tensor],
    x0: Tensor,
    t: Tensor,
    noise: Tensor,
    *,
    frame_mask: Tensor | None = None,
    weights: Tensor | None = None,
    version: str = "1.2",
    target: Tensor | None = None,
    condition_frames: Sequence[int] = (),
    condition_weight: float = 1,
) -> Tensor:
    """Mean squared error of the velocity, per sample [B].

    Args:
        predict: (x_t, t) -> the network's output, of which the first C channels are the velocity.
        x0, noise: [B, C, T, H, W]; t: [B] in 0…1000.
        frame_mask: bool [B, T], True = generated; the mean is over these frames.
        weights: [1000] by whole timestep.
        target: the clean latents to learn, where x0 was augmented (1.3); left out: x0.
        condition_frames, condition_weight: 1.3's frames that are given as a condition, and how much they count; the
            others count as much more or less as keeps the sum.

    Raises ValueError where every frame is a condition and none is left to learn.
    """
    velocity = predict(noised(x0, t, noise, frame_mask), t)
    return velocity_error(
        velocity, x0, t, noise, frame_mask=frame_mask, weights=weights, target=target,
        condition_frames=condition_frames, condition_weight=condition_weight,
    )  # fmt: skip


def noised(x0: Tensor, t: Tensor, noise: Tensor, frame_mask: Tensor | None = None) -> Tensor:
    """What the network is handed at t: x0 [B, C, T, H, W] on its way to noise, kept frames (False) as they are."""
    x_t = flow.add_noise(x0, noise, t)
    return x_t if frame_mask is None else torch.where(frame_mask[:, None, :, None, None], x_t, x0)


def velocity_error(
    prediction: Tensor,
    x0: Tensor,
    t: Tensor,
    noise: Tensor,
    *,
    frame_mask: Tensor | None = None,
    weights: Tensor | None = None,
    target: Tensor | None = None,
    condition_frames: Sequence[int] = (),
    condition_weight: float = 1,
) -> Tensor:
    """The loss [B] of a prediction whose first C channels are the velocity; arguments as `rectified_flow`."""
    velocity = prediction[:, : x0.shape[1]]
    error = (velocity - ((x0 if target is None else target) - noise)).square()
    if weights is not None:
        error = error * weights.to(t.device)[t.long()].view(-1, 1, 1, 1, 1)
    if condition_frames:
        error = error * _frame_weights(x0.shape[2], condition_frames, condition_weight).view(1, 1, -1, 1, 1).to(error)
    return _mean(error, frame_mask)


def _frame_weights(frames, condition_frames, condition_weight):
    others = frames - len(set(condition_frames))
    if others <= 0:
        raise ValueError(f"condition_frames names all {frames} latent frames; at least one must be left to generate")
    weights = torch.full((frames,), (frames - len(condition_frames) * condition_weight) / others)
    weights[list(condition_frames)] = float(condition_weight)
    return weights


def _mean(values, frame_mask):
    """[B] of [B, C, T, H, W], over the frames of the mask."""
    if frame_mask is None:
        return values.flatten(1).mean(1)
    return (values.mean((1, 3, 4)) * frame_mask).sum(1) / frame_mask.sum(1)


def iddpm(
    predict: Callable[[Tensor, Tensor], Tensor],
    x0: Tensor,
    t: Tensor,
    noise: Tensor,
    *,
    frame_mask: Tensor | None = None,
    version: str = "1.1",
) -> dict[str, Tensor]:
    """{"mse", "vb", "loss"}, each [B]: the error of the noise, the variational bound in bits, and both together.

    The bound teaches the variance alone. Kept frames (False in frame_mask, bool [B, T]) enter as at the first of the
    1000 steps, a little noisy, as the original has it. predict: (x_t, t) -> [B, 2C, T, H, W]; t: whole numbers [B].
    1.0 keeps its tables in fp64, 1.1 in fp32; near t = 0 the difference shows.
    """
    tables = schedule(NUM_TIMESTEPS, torch.float64 if version == "1.0" else torch.float32)
    t = t.long()

    def at(table: Tensor, index: Tensor = t) -> Tensor:
        return table[index.to(table.device)].float().view(-1, 1, 1, 1, 1).to(x0.device)

    kept = tables.alphas_cumprod

    def noisy(index: Tensor) -> Tensor:
        return at(kept.sqrt(), index) * x0 + at((1 - kept).sqrt(), index) * noise

    x_t = noisy(t)
    if frame_mask is not None:
        x_t = torch.where(frame_mask[:, None, :, None, None], x_t, noisy(torch.zeros_like(t)))
    eps, variance = predict(x_t, t).chunk(2, dim=1)

    def posterior_mean(clean: Tensor) -> Tensor:
        return at(tables.posterior_clean) * clean + at(tables.posterior_noisy) * x_t

    clean = at((1 / kept).sqrt()) * x_t - at((1 / kept - 1).sqrt()) * eps.detach()
    share = (variance + 1) / 2
    least = at(tables.posterior_log_variance)
    log_variance = share * at(tables.betas.log()) + (1 - share) * least
    mean = posterior_mean(clean)
    divergence = _mean(_gaussian_divergence(posterior_mean(x0), least, mean, log_variance), frame_mask)
    likelihood = _mean(_discrete_log_likelihood(x0, mean, 0.5 * log_variance), frame_mask)
    vb = torch.where(t.to(x0.device) == 0, -likelihood, divergence) / math.log(2)
    mse = _mean((noise - eps).square(), frame_mask)
    return {"mse": mse, "vb": vb, "loss": mse + vb}


def _gaussian_divergence(mean_1, log_variance_1, mean_2, log_variance_2):
    """KL(1 ‖ 2) of normal distributions, in nats."""
    spread = (log_variance_1 - log_variance_2).exp() + (mean_1 - mean_2).square() * (-log_variance_2).exp()
    return 0.5 * (log_variance_2 - log_variance_1 - 1 + spread)


def _discrete_log_likelihood(x, mean, log_deviation):
    """Of x in bins of 1/255 in -1…1, in nats; the outermost bins are open. The bins are images': latents keep them."""
    centered, sharpness = x - mean, (-log_deviation).exp()
    above = _normal_cdf(sharpness * (centered + 1 / 255))
    below = _normal_cdf(sharpness * (centered - 1 / 255))
    inside = (above - below).clamp(min=1e-12).log()
    outside = torch.where(x < 0, above.clamp(min=1e-12).log(), (1 - below).clamp(min=1e-12).log())
    return torch.where(x.abs() > 0.999, outside, inside)


def _normal_cdf(x):
    """By the tanh approximation that GELU has made known."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
