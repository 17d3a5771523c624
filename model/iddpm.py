"""The ancestral sampler of Open-Sora 1.0 and 1.1: a respaced diffusion with learned variance, and guidance.

Ho et al. 2020 (DDPM), Nichol & Dhariwal 2021 (IDDPM: respacing, learned range of variances), as
https://github.com/hpcaitech/Open-Sora (branch opensora/v1.1) uses them: noise prediction, no clipping of the clean
latents, guidance on three of the four channels.
"""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

NUM_TIMESTEPS = 1000
BETA_START, BETA_END = 1e-4, 0.02
GUIDANCE_CHANNELS = 3  # of the released configurations; the fourth channel follows the caption without guidance


@dataclass(frozen=True)
class Schedule:
    """A diffusion of `steps` steps out of the 1000 it was trained with; index 0 is nearest to the data.

    Tables are [steps], fp32 like the original's sampler's; use `schedule` to get one.
    """

    timesteps: Tensor  # int64: what the network is told at each index, 0 … 999
    betas: Tensor
    alphas_cumprod: Tensor
    posterior_log_variance: Tensor  # of q(z_{i-1} | z_i, clean); index 0, whose variance is 0, holds index 1's
    posterior_clean: Tensor  # the posterior mean is posterior_clean · clean + posterior_noisy · z
    posterior_noisy: Tensor

    def add_noise(self, clean: Tensor, noise: Tensor, index: int) -> Tensor:
        """Clean latents as they are at `index`: √ᾱ · clean + √(1 - ᾱ) · noise. All of one shape."""
        kept = self.alphas_cumprod[index]
        return float(kept.sqrt()) * clean + float((1 - kept).sqrt()) * noise

    def clean(self, z: Tensor, eps: Tensor, index: int) -> Tensor:
        """The clean latents that z at `index` and its noise `eps` add up to, unclipped."""
        kept = self.alphas_cumprod[index]
        return float((1 / kept).sqrt()) * z - float((1 / kept - 1).sqrt()) * eps

    def step(self, z: Tensor, eps: Tensor, variance: Tensor, index: int, noise: Tensor) -> Tensor:
        """One ancestral step, from `index` to index - 1; index 0 ends at the clean latents.

        Args:
            z: latents at `index`, [B, C, T, H, W].
            eps: the predicted noise in them, after guidance; likewise.
            variance: the network's variance half, likewise: -1 … 1 from the smallest to the largest variance.
            noise: a fresh standard normal draw, likewise; not used at index 0.
        """
        mean = float(self.posterior_clean[index]) * self.clean(z, eps, index) + float(self.posterior_noisy[index]) * z
        if index == 0:
            return mean
        share = (variance + 1) / 2
        log_variance = share * float(self.betas[index].log()) + (1 - share) * float(self.posterior_log_variance[index])
        return mean + torch.exp(0.5 * log_variance) * noise


def respaced_timesteps(steps: int) -> Tensor:
    """The timesteps of a run, 999 downward to 0: int64 [steps], spread evenly over the 1000 of the training.

    Raises ValueError when steps is not within 2 … 1000.
    """
    if not 2 <= steps <= NUM_TIMESTEPS:
        nearest = min(max(steps, 2), NUM_TIMESTEPS)
        raise ValueError(
            f"steps is {steps}; the sampler of Open-Sora 1.0 and 1.1 takes 2 to {NUM_TIMESTEPS} (nearest: {nearest})"
        )
    stride = (NUM_TIMESTEPS - 1) / (steps - 1)
    # Summed, not multiplied: where the sum comes near a half, rounding follows the original's.
    rising = itertools.accumulate(itertools.repeat(stride, steps - 1), initial=0.0)
    return torch.tensor([round(value) for value in rising]).flip(0)


@functools.lru_cache(maxsize=8)
def schedule(steps: int, dtype: torch.dtype = torch.float32) -> Schedule:
    """The `Schedule` of `steps` steps, its tables in `dtype`. Raises ValueError as `respaced_timesteps`."""
    timesteps = respaced_timesteps(steps).flip(0)
    trained = torch.linspace(BETA_START, BETA_END, NUM_TIMESTEPS, dtype=torch.float64)
    kept = (1 - trained).cumprod(0)[timesteps]
    # From here on in fp32, for the original's numbers: near the data 1 - ᾱ is 1e-4, so its rounding shows. The weight
    # of the clean latents at index 0, for one, is 0.99983 instead of 1. (1.0 trained in fp64.)
    betas = (1 - kept / torch.cat([kept.new_ones(1), kept[:-1]])).to(dtype)
    alphas_cumprod = (1 - betas).cumprod(0)
    before = torch.cat([alphas_cumprod.new_ones(1), alphas_cumprod[:-1]])
    posterior = betas * (1 - before) / (1 - alphas_cumprod)
    return Schedule(
        timesteps=timesteps,
        betas=betas,
        alphas_cumprod=alphas_cumprod,
        posterior_log_variance=torch.cat([posterior[1:2], posterior[1:]]).log(),
        posterior_clean=betas * before.sqrt() / (1 - alphas_cumprod),
        posterior_noisy=(1 - before) * (1 - betas).sqrt() / (1 - alphas_cumprod),
    )


@dataclass(frozen=True)
class FrameStates:
    """What the frames of a clip do at one index, each bool [B, T]."""

    waking: Tensor  # gets noise of this index before the network sees it
    active: Tensor  # the network is told the timestep; for other frames timestep 0
    moving: Tensor  # takes the step; other frames stay as they are


def frame_states(frame_mask: Tensor, steps: int, index: int, original_masks: bool = False) -> FrameStates:
    """The `FrameStates` at `index` of a run of `steps` steps.

    A frame of mask value m sleeps, clean, while index > int(m · steps); then it gets its noise and is denoised with the
    rest. frame_mask is [B, T] in 0…1, 1 = generate. The original wakes even frames of m = 0, at index 0, so that they
    end near, not at, what they were; `original_masks` asks for that.
    """
    wakes_at = (frame_mask.float() * steps).to(torch.int64)
    waking, active = wakes_at == index, wakes_at > index
    if not original_masks:
        waking = waking & (wakes_at > 0)
    return FrameStates(waking=waking, active=active, moving=waking | active)


def guide(
    prediction: Tensor, channels: int, guidance: float, guidance_channels: int | None = GUIDANCE_CHANNELS
) -> tuple[Tensor, Tensor]:
    """The guided noise and the variance half, each [B, C, T, H, W], of a prediction [2B, 2C, T, H, W].

    The first half of the batch is the caption's, the second the null caption's. Channels from `guidance_channels` on,
    and the variance, are the caption's own. None guides all channels.
    """
    conditional, unconditional = prediction.chunk(2)
    guided = channels if guidance_channels is None else guidance_channels
    pushed = unconditional[:, :guided] + guidance * (conditional[:, :guided] - unconditional[:, :guided])
    return torch.cat([pushed, conditional[:, guided:channels]], dim=1), conditional[:, channels:]


@torch.no_grad()
def sample(
    transformer: Callable[..., Tensor],
    z: Tensor,
    caption: Tensor,
    null_caption: Tensor,
    *,
    caption_mask: Tensor | None = None,
    steps: int = 100,
    guidance: float,
    guidance_channels: int | None = GUIDANCE_CHANNELS,
    frame_mask: Tensor | None = None,
    noise: Callable[..., Tensor] | None = None,
    original_masks: bool = False,
    **sizes: float | Tensor | None,
) -> Tensor:
    """Denoise z with classifier-free guidance, as the original's ancestral loop does.

    Arguments and result as `flow.sample`, and

    Args:
        transformer: STDiT or STDiT2, or anything called like them.
        steps: how many, 2 … 1000.
        guidance: 1 follows the caption without guidance; the original's configurations use 7.
        guidance_channels: how many channels guidance acts on, 3 in the released configurations; None: all.
        frame_mask: [B, T] in 0…1; 1 generates a frame, 0 keeps it bit for bit, values between re-generate it from that
            share of the steps on (see `frame_states`).
        noise: (draw, shape) -> tensor, the draws in their order, `draw` from 0 on: one a step, and with frame_mask
            two, first that of waking frames. shape is [2B, C, T, H, W], the rows the original draws; the first B count.
            Left out: torch.randn.
        original_masks: let frames of mask value 0 move at the last step, as the original does.

    Raises:
        ValueError: steps or guidance_channels out of range, or a transformer that predicts no variance.
    """
    B, C = z.shape[:2]
    table = schedule(steps)
    if guidance_channels is not None and not 0 <= guidance_channels <= C:
        raise ValueError(f"guidance_channels is {guidance_channels}; these latents have {C}, so it must be 0 to {C}")
    if null_caption.ndim == 2:
        null_caption = null_caption[None].expand(B, -1, -1)
    captions = torch.cat([caption, null_caption.to(caption)])
    mask2 = None if caption_mask is None else caption_mask.repeat(2, 1)
    sizes = {name: torch.as_tensor(value).reshape(-1).repeat(2) for name, value in sizes.items() if value is not None}
    count = itertools.count()

    def draw():
        return torch.randn_like(z) if noise is None else noise(next(count), (2 * B, *z.shape[1:]))[:B].to(z)

    for index in reversed(range(steps)):
        states, rest = None, z
        if frame_mask is not None:
            states = frame_states(frame_mask.to(z.device), steps, index, original_masks)
            z = torch.where(_frames(states.waking), table.add_noise(z, draw(), index), z)
        prediction = transformer(
            torch.cat([z, z]),
            torch.full((2 * B,), float(table.timesteps[index]), device=z.device),
            captions,
            caption_mask=mask2,
            frame_mask=None if states is None else states.active.repeat(2, 1),
            **sizes,
        )
        if prediction.shape[1] != 2 * C:
            raise ValueError(
                f"the transformer returns {prediction.shape[1]} channels for latents of {C}; this sampler needs "
                f"{2 * C}: the noise and its variance (pred_sigma)"
            )
        eps, variance = guide(prediction, C, guidance, guidance_channels)
        moved = table.step(z, eps, variance, index, draw())
        z = moved if states is None else torch.where(_frames(states.moving), moved, rest)
    return z


def _frames(mask):
    """[B, T] for latents [B, C, T, H, W]."""
    return mask[:, None, :, None, None]
