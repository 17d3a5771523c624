"""Sampling as Open-Sora 1.3 does it: Euler steps under guidance by the prompt and by kept frames.

The pieces (`oscillate`, `image_weights`, `combine`, `fix_flaw`) are pure functions of a step's velocities, for hosts
that run their own loop. Defined by https://github.com/hpcaitech/Open-Sora (branch opensora/v1.3); the flaw fix is the
rescaling of Lin et al. 2023 (arXiv 2305.08891).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from .flow import NUM_TIMESTEPS, add_noise

FLAW_FIX = 0.7  # how much of the way back to the spread of the conditional velocity


@dataclass(frozen=True)
class Options:
    """What 1.3's sampler can do beside plain guidance.

    `image_cfg` is the guidance by kept frames: with `image_cfg_falls` it falls over the steps and grows over the
    frames (see `image_weights`), to and from `image_cfg_floor`; else it is the same throughout. `oscillation` lets
    guidance rest on every other step (see `oscillate`), that of the prompt and that of the frames unless the two below
    say otherwise; `force_num` steps come first without a rest. `flaw_fix` is for videos without kept frames. `sdedit`
    lays the kept frames into the noise before every step.
    """

    image_cfg: float = 5.0
    image_cfg_falls: bool = True
    image_cfg_floor: float = 1.0
    oscillation: bool = False
    oscillation_for_text: bool | None = None
    oscillation_for_image: bool | None = None
    force_num: int = 10
    flaw_fix: bool = False
    sdedit: bool = False

    def text_guidance(self, guidance: float, step: int) -> float:
        """The prompt's guidance at this step."""
        rests = self.oscillation if self.oscillation_for_text is None else self.oscillation_for_text
        return oscillate(guidance, step, self.force_num) if rests else guidance

    def image_guidance(self, step: int, steps: int, num_latents: int) -> Tensor:
        """The kept frames' guidance at this step, fp32 [num_latents]."""
        rests = self.oscillation if self.oscillation_for_image is None else self.oscillation_for_image
        value = oscillate(self.image_cfg, step, self.force_num) if rests else self.image_cfg
        if self.image_cfg_falls and value > self.image_cfg_floor:
            return image_weights(value, step, steps, num_latents, self.image_cfg_floor)
        return torch.full((num_latents,), float(value))


OFFICIAL = Options(oscillation=True, flaw_fix=True, sdedit=True)  # of the published configurations


def oscillate(guidance: float, step: int, force_num: int = 10) -> float:
    """The guidance at this step: whole on the first `force_num` steps and on even ones, 1 (none) on the others."""
    return guidance if step < force_num or step % 2 == 0 else 1.0


def image_weights(guidance: float, step: int, steps: int, num_latents: int, floor: float = 1.0) -> Tensor:
    """The guidance by kept frames, one for each latent frame, fp32 [num_latents].

    It rises from `floor` at the first frame to its peak at the last; the peak falls from `guidance` at the first step
    to `floor` at the last.
    """
    peak = torch.linspace(guidance, floor, steps)[step]
    return torch.linspace(floor, float(peak), num_latents)


def combine(
    none: Tensor, text: Tensor, guidance: float, image: Tensor | None = None, image_guidance: float | Tensor = 1.0
) -> Tensor:
    """The guided velocity: v_none + image_guidance · (v_image - v_none) + guidance · (v_text - v_image).

    Args:
        none: velocity [B, C, T, H, W] without the prompt, and without kept frames where there are any.
        text: velocity with the prompt, and with the kept frames.
        image: velocity with the kept frames alone; None without any, which leaves plain guidance by the prompt.
        image_guidance: a number, or one for each latent frame, [T].
    """
    if image is None:
        return none + guidance * (text - none)
    if isinstance(image_guidance, Tensor):
        image_guidance = image_guidance.to(none).view(1, 1, -1, 1, 1)
    return none + image_guidance * (image - none) + guidance * (text - image)


def fix_flaw(velocity: Tensor, conditional: Tensor) -> Tensor:
    """Bring the spread of a guided velocity [B, …] back toward that of the conditional one, sample by sample."""
    dims = tuple(range(1, velocity.ndim))
    ratio = conditional.std(dim=dims, keepdim=True) / velocity.std(dim=dims, keepdim=True)
    return velocity * (FLAW_FIX * ratio + (1 - FLAW_FIX))


def guided(
    none: Tensor,
    text: Tensor,
    guidance: float,
    step: int,
    steps: int,
    image: Tensor | None = None,
    options: Options = Options(),
) -> Tensor:
    """`combine` with the guidance that `options` give this step of `steps`, and the flaw fix where they ask for it."""
    guidance = options.text_guidance(guidance, step)
    if image is not None:
        return combine(none, text, guidance, image, options.image_guidance(step, steps, none.shape[2]))
    velocity = combine(none, text, guidance)
    return fix_flaw(velocity, text) if options.flaw_fix else velocity


def lay_in(z: Tensor, condition: Tensor, condition_mask: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """SDEdit: kept frames noised to t [B] and put into z; condition, its mask and noise are shaped as z."""
    return torch.where(condition_mask == 1, add_noise(condition, noise, t), z)


@torch.no_grad()
def sample(
    transformer: Callable[..., Tensor],
    z: Tensor,
    caption: Tensor,
    null_caption: Tensor,
    *,
    caption_mask: Tensor | None = None,
    timesteps: Tensor | Sequence[float],
    guidance: float,
    frame_mask: Tensor | None = None,
    noise: Callable[..., Tensor] | None = None,
    condition: Tensor | None = None,
    condition_mask: Tensor | None = None,
    condition_frames: Sequence[int] | None = None,
    negative_caption: Tensor | None = None,
    negative_mask: Tensor | None = None,
    options: Options = Options(),
    **sizes: float | Tensor | None,
) -> Tensor:
    """Open-Sora 1.3's guided Euler loop; arguments and result as `flow.sample`, and

    Args:
        transformer: an STDiT3v13, called on [caption, unconditional] halves; on thirds [caption and condition,
            condition alone, neither] where frames are kept.
        noise: (step, shape) -> tensor, called where a step needs a draw: for `frame_mask`, then for SDEdit.
        condition, condition_mask, condition_frames: the kept frames as `STDiT3v13.forward` takes them. Without frames
            there is no condition. The loop does not hold them in z; the result has what the network made of them.
        negative_caption: features of a negative prompt, [B, L, caption_channels], in place of the null caption (which
            the kept frames read all the same); negative_mask: its own mask, [B, L].
        options: `Options`.
    """
    B = z.shape[0]
    timesteps = torch.as_tensor(timesteps, dtype=torch.float32)
    ends = torch.cat([timesteps[1:], timesteps.new_zeros(1)])
    parts = 3 if condition_frames else 2
    if null_caption.ndim == 2:
        null_caption = null_caption[None].expand(B, -1, -1)
    null_caption = null_caption.to(caption)
    arguments: dict[str, Any] = {
        name: torch.as_tensor(value).reshape(-1).repeat(parts) for name, value in sizes.items() if value is not None
    }
    unconditional = null_caption if negative_caption is None else negative_caption.to(caption)
    arguments["caption_mask"] = _masks(caption, caption_mask, negative_caption, negative_mask, parts)
    captions = torch.cat([caption, *[unconditional] * (parts - 1)])
    if condition_frames:
        condition = (cast(Tensor, condition) * cast(Tensor, condition_mask)).to(z)
        arguments["condition"] = torch.cat([condition, condition, torch.zeros_like(condition)])
        arguments["condition_mask"] = cast(Tensor, condition_mask).to(z).repeat(parts, 1, 1, 1, 1)
        arguments["condition_frames"] = condition_frames
        arguments["null_caption"] = null_caption.repeat(parts, 1, 1)

    def draw(step):
        return torch.randn_like(z) if noise is None else noise(step, z.shape).to(z)

    frame_mask = None if frame_mask is None else frame_mask.to(z.device)
    awake = None if frame_mask is None else frame_mask == 1
    for step, (t, t_next) in enumerate(zip(timesteps, ends)):
        rows = t.to(z.device).repeat(B)
        active = None
        if frame_mask is not None:
            active = frame_mask * NUM_TIMESTEPS >= rows[:, None]
            waking = (active & ~cast(Tensor, awake))[:, None, :, None, None]
            z = torch.where(waking, add_noise(z, draw(step), rows), z)
            awake = active
            arguments["frame_mask"] = active.repeat(parts, 1)
        if condition_frames and options.sdedit:
            z = lay_in(z, cast(Tensor, condition), cast(Tensor, condition_mask).to(z), rows, draw(step))

        inputs = z.repeat(parts, 1, 1, 1, 1)
        velocities = transformer(inputs, rows.repeat(parts), captions, **arguments)[:, : z.shape[1]].chunk(parts)
        image = velocities[1] if condition_frames else None
        velocity = guided(velocities[-1], velocities[0], guidance, step, len(timesteps), image, options)
        moved = z + velocity * ((t - t_next) / NUM_TIMESTEPS)
        z = moved if active is None else torch.where(active[:, None, :, None, None], moved, z)
    return z


def _masks(caption, caption_mask, negative_caption, negative_mask, parts):
    """The captions' masks for all parts of the batch, [parts · B, L]; None where no token is masked."""
    if negative_caption is None:
        return None if caption_mask is None else caption_mask.repeat(parts, 1)
    if caption_mask is None and negative_mask is None:
        return None
    masks = [
        torch.ones(text.shape[:2], device=caption.device) if mask is None else mask.to(caption.device)
        for text, mask in ((caption, caption_mask), (negative_caption, negative_mask))
    ]
    return torch.cat([masks[0], *[masks[1].to(masks[0])] * (parts - 1)])
