"""Clips of different shapes filled up to the largest, with an attention that leaves out what was filled in.

A clip lies in the corner of its latents: its first frames, upper rows and left columns. Tokens outside of it are
computed and thrown away; no token of the clip attends to them.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .layers import SelfAttention
from .mixed_shapes import ClipInputs, check_clips, fps_of, frame_masks, refuse_family, timesteps
from .skeleton import ClipSizes
from .stdit3 import STDiT3

ByClip = float | Sequence[float | None] | Tensor | None


def pad_clips(clips: Sequence[ClipInputs]) -> dict[str, Any]:
    """The arguments of `forward_padded` behind the network, the clips filled up with zeros, captions masked there.

    Raises ValueError for no clips, and for masks that do not fit.
    """
    check_clips(clips)
    largest = [max(sides) for sides in zip(*(clip.size for clip in clips))]
    length = max(len(clip.caption) for clip in clips)

    def filled(x: Tensor) -> Tensor:
        return F.pad(x, [end for side, most in zip(x.shape[:0:-1], largest[::-1]) for end in (0, most - side)])

    return {
        "x": torch.stack([filled(clip.x) for clip in clips]),
        "timestep": timesteps(clips),
        "caption": torch.stack([F.pad(clip.caption, (0, 0, 0, length - len(clip.caption))) for clip in clips]),
        "caption_mask": torch.stack(
            [F.pad(clip.real_caption(), (0, length - len(clip.caption))) for clip in clips]
        ),
        "frame_mask": frame_masks(clips),
        "fps": [clip.fps for clip in clips],
        "height": [clip.height for clip in clips],
        "width": [clip.width for clip in clips],
        "latent_sizes": [clip.size for clip in clips],
    }  # fmt: skip


def crop(x: Tensor, latent_sizes: Sequence[tuple[int, int, int]]) -> list[Tensor]:
    """Each clip's own part [C, T, H, W] of padded x [B, C, T, H, W]: a list of views."""
    return [clip[:, :T, :H, :W] for clip, (T, H, W) in zip(x, latent_sizes)]


def forward_padded(
    network: STDiT3,
    x: Tensor,
    timestep: Tensor,
    caption: Tensor,
    caption_mask: Tensor | None = None,
    frame_mask: Tensor | None = None,
    fps: ByClip = None,
    height: ByClip = None,
    width: ByClip = None,
    *,
    latent_sizes: Sequence[tuple[int, int, int]],
) -> Tensor:
    """The prediction for clips of different shapes in the corners of x; fp32, zero outside of them.

    Args:
        x: noisy latents [B, C, T, H, W], as large as the largest side of each; outside of a clip nothing is looked at.
        timestep, caption, caption_mask: as `network.forward` takes them.
        frame_mask: bool [B, T]; behind the end of a clip it says nothing.
        fps, height, width: numbers, by clip or one for all; left out, or None in a list, what the clip's own latents
            say. (Of a tensor on a GPU, all that was queued there is waited for.)
        latent_sizes: (T, H, W) of each clip.

    Returns:
        [B, 2C, T, H, W] (only C where pred_sigma is off).

    Raises:
        ValueError: a family other than stdit3; sizes that x does not hold; fps, height, width of another number.
    """
    refuse_family(network, "padding")
    sizes = _checked(latent_sizes, x)
    x = x.to(network.x_embedder.proj.weight.dtype)
    inside = _inside(sizes, x.shape[2:], x.device)[:, None]
    x = torch.where(inside, x, 0)
    rates = [fps_of(one, T) for one, (T, _, _) in zip(_by_clip("fps", fps, x), sizes)]
    t, t_kept, t_block, frame_mask = network.embed_time(
        x, timestep, torch.tensor(rates, device=x.device), frame_mask
    )  # fmt: skip
    caption, caption_mask = network.embed_caption(caption, caption_mask, x.shape[0], x.dtype)

    padded = network.pad_to_patches(x)
    grid = network.grid(padded)
    own = [part[None] for part in crop(x, sizes)]
    grids = [network.grid(network.pad_to_patches(clip)) for clip in own]
    pixels = zip(_by_clip("height", height, x), _by_clip("width", width, x))
    scales = [network.position_scale(clip, ClipSizes(None, *sides)) for clip, sides in zip(own, pixels)]
    tokens = network.x_embedder(padded)
    tokens = tokens + torch.stack([_positions(network, *each, grid, x) for each in zip(grids, scales)])
    spatial, temporal = _attentions(grids, grid, network.frame_rotation(tokens))
    read = {"caption_mask": caption_mask}
    tokens = network.run_blocks(tokens, caption, t_block, {**read, "attend": spatial}, {**read, "attend": temporal})
    tokens = network.final_layer(tokens, t, t_kept, frame_mask)
    T, H, W = x.shape[2:]
    return torch.where(inside, network.unpatchify(tokens, *grid[1:])[:, :, :T, :H, :W], 0).float()


def _checked(latent_sizes, x):
    """latent_sizes as tuples of whole numbers; ValueError where x [B, C, T, H, W] does not hold them."""
    sizes = [tuple(int(side) for side in size) for size in latent_sizes]
    if len(sizes) != x.shape[0]:
        raise ValueError(f"latent_sizes has {len(sizes)} entries, but x has {x.shape[0]} clips; give one for each")
    most = tuple(x.shape[2:])
    for number, size in enumerate(sizes):
        nearest = tuple(min(max(side, 1), length) for side, length in zip(size, most))
        if size != nearest:
            raise ValueError(
                f"latent_sizes of clip {number} is {size}; it must be (T, H, W) of at least 1 and at most {most}, the "
                f"nearest is {nearest}"
            )
    return sizes


def _by_clip(name, value, x):
    """A list of a number or None for each clip of x: `value` where it is a list or a tensor, else `value` for all."""
    count = x.shape[0]
    if value is None or isinstance(value, (int, float)):
        return [value] * count
    values = value.tolist() if isinstance(value, Tensor) else list(value)
    if len(values) != count:
        raise ValueError(f"{name} has {len(values)} entries, but x has {count} clips; give one for each, or a number")
    return values


def _inside(sizes, most, device):
    """bool [B, T, H, W], as large as `most`: what lies within each of `sizes`."""
    T, H, W = (
        torch.arange(length, device=device) < torch.tensor([size[axis] for size in sizes], device=device)[:, None]
        for axis, length in enumerate(most)
    )
    return T[:, :, None, None] & H[:, None, :, None] & W[:, None, None]


def _positions(network, own, scale, grid, like):
    """The positions of a clip's own grid, in the corner of the largest: [1, S, C]."""
    positions = network.positions(own, scale, like).unflatten(1, own[1:])
    return F.pad(positions, (0, 0, 0, grid[2] - own[2], 0, grid[1] - own[1])).flatten(1, 2)


def _attentions(grids, grid, rotation):
    """What attends within frames, and what across them, each to the tokens of its own clip.

    A frame that a clip does not have attends to the places that the clip has, and such a place to its frames: no row of
    an attention is without keys, and what comes of it is thrown away.
    """
    real = _inside(grids, grid, rotation.device).flatten(2)
    T, S = real.shape[1:]
    places = real[:, 0].repeat_interleave(T, 0)[:, None, None]
    frames = real[:, :, 0].repeat_interleave(S, 0)[:, None, None]
    space = None if len({own[1:] for own in grids}) == 1 else places
    time = None if len({own[0] for own in grids}) == 1 else frames
    return partial(_attend_space, mask=space), partial(_attend_time, mask=time, rotation=rotation)


def _attend_space(attention: SelfAttention, x: Tensor, mask: Tensor | None) -> Tensor:
    """Within each frame of x [B, T, S, C], to the places of `mask`, bool [B · T, 1, 1, S]."""
    B = x.shape[0]
    q, k, v = (rearrange(each, "B T S n d -> (B T) n S d") for each in attention.heads(x))
    out = attention.attention(q, k, v, mask)
    return attention.proj(rearrange(out, "(B T) n S d -> B (T S) (n d)", B=B)).unflatten(1, x.shape[1:3])


def _attend_time(attention: SelfAttention, x: Tensor, mask: Tensor | None, rotation: Tensor) -> Tensor:
    """Across the frames of each place of x [B, T, S, C], to those of `mask`, bool [B · S, 1, 1, T]."""
    B = x.shape[0]
    q, k, v = (rearrange(each, "B T S n d -> (B S) n T d") for each in attention.heads(x, rotation))
    out = attention.attention(q, k, v, mask)
    return attention.proj(rearrange(out, "(B S) n T d -> B (T S) (n d)", B=B)).unflatten(1, x.shape[1:3])
