"""Clips of different shapes in one sequence of tokens, end to end: nothing is filled up (NaViT, Dehghani et al. 2023).

A pack is to the network a clip of N frames of one token each, [1, N, 1, C]: layers that see one token at a time run
once over all of them. Attention (within a frame of a clip, across the frames of a place of a clip, from a clip to its
own caption) and modulation go clip by clip, on views of the pack.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import torch
from einops import rearrange
from torch import Tensor

from .kernels import turns
from .layers import CrossAttention, SelfAttention
from .mixed_shapes import ClipInputs, check_clips, frame_masks, refuse_family, timesteps
from .skeleton import ClipSizes
from .stdit3 import STDiT3


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a pack are: clip after clip, each frame by frame; `grids`: (frames, rows, columns) of each.

    Neighbours of like shape attend in one call: a group is (clips, frames, places).
    """

    grids: tuple[tuple[int, int, int], ...]

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(frames, places) of each clip."""
        return [(T, rows * columns) for T, rows, columns in self.grids]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each clip."""
        return [T * S for T, S in self.shapes]

    @property
    def space(self) -> list[tuple[int, int, int]]:
        """Groups whose frames attend alike: neighbours with as many places, however many frames they have."""
        return [(1, sum(T for T, _ in same), S) for S, same in groupby(self.shapes, lambda shape: shape[1])]

    @property
    def time(self) -> list[tuple[int, int, int]]:
        """Groups whose places attend alike: neighbours with as many places and frames."""
        return [(len(list(same)), *shape) for shape, same in groupby(self.shapes)]

    def rows(self, device: torch.device | str | None = None) -> tuple[Tensor, Tensor]:
        """The clip of each token, and the frame, counted from the clip's first: whole numbers, each [N]."""
        clips = torch.arange(len(self.grids)).repeat_interleave(torch.tensor(self.lengths))
        frames = torch.cat([torch.arange(T).repeat_interleave(S) for T, S in self.shapes])
        return clips.to(device), frames.to(device)


def forward_packed(network: STDiT3, clips: Sequence[ClipInputs]) -> list[Tensor]:
    """The predictions for clips of different shapes, each [2C, T, H, W] (only C where pred_sigma is off), fp32.

    Raises ValueError for a family other than stdit3, for no clips, and for masks that do not fit.
    """
    refuse_family(network, "packing")
    check_clips(clips)
    order = sorted(range(len(clips)), key=lambda number: _shape(network, clips[number]))  # like beside like
    found = _forward(network, [clips[number] for number in order])
    return [prediction for _, prediction in sorted(zip(order, found), key=lambda pair: pair[0])]


def _shape(network, clip):
    """(places, frames) in tokens."""
    T, rows, columns = (-(-side // patch) for side, patch in zip(clip.size, network.config.patch_size))
    return rows * columns, T


def _forward(network, clips):
    dtype = network.x_embedder.proj.weight.dtype
    padded = [network.pad_to_patches(clip.x[None].to(dtype)) for clip in clips]
    layout = Layout(tuple(network.grid(x) for x in padded))
    device = padded[0].device
    clip_of, frame_of = layout.rows(device)

    t, t_kept, t_block, frame_mask = _told(network, clips, padded[0], clip_of, frame_of)
    each = partial(_each, shapes=layout.shapes, told=[1 if frame_mask is None else T for T, _ in layout.shapes])
    tokens = network.x_embedder(_patches(padded, network.config.patch_size)) + _positions(network, clips, layout, dtype)
    caption, caption_lengths = _captions(clips)
    caption, _ = network.embed_caption(caption, None, 1, dtype)
    rotation = turns(frame_of, network.rope.freqs)[None, :, None, None]
    shared = {"each": each, "read": partial(_read, lengths=layout.lengths, caption_lengths=caption_lengths)}
    spatial = partial(_attend, groups=layout.space, across="T")
    temporal = partial(_attend, groups=layout.time, across="S", rotation=rotation)
    tokens = network.run_blocks(tokens, caption, t_block, {**shared, "attend": spatial}, {**shared, "attend": temporal})
    tokens = network.final_layer(tokens, t, t_kept, frame_mask)
    return _unpack(network, tokens[0, :, 0], layout, [clip.size for clip in clips])


def _told(network, clips, like, clip_of, frame_of):
    """What `embed_time` gives, by token: t [1, N, C], t_kept alike or None, and the frame mask [1, N, 1, 1] or None.

    Third, t_block [1, R, 6, C]: a row for each clip, or, where there is a frame mask, for each frame of each clip.
    """
    fps = torch.tensor([clip.known_fps for clip in clips], device=like.device)
    mask = frame_masks(clips)
    rows = like.expand(len(clips), -1, -1, -1, -1)  # embed_time asks them for their number, device and dtype
    t, t_kept, t_block, _ = network.embed_time(rows, timesteps(clips), fps, mask)
    t = t[:, 0].index_select(0, clip_of)[None]
    if mask is None:
        return t, None, t_block.transpose(0, 1), None
    t_kept = t_kept[:, 0].index_select(0, clip_of)[None]
    t_block = torch.cat([told[: clip.size[0]] for told, clip in zip(t_block, clips)])[None]
    return t, t_kept, t_block, mask[clip_of, frame_of][None, :, None, None]


def _patches(padded, patch_size):
    """All patches of latents [1, C, T, H, W] as those of one clip a patch high and wide, [1, C, N · pt, ph, pw]."""
    pt, ph, pw = patch_size
    patches = [
        rearrange(x[0], "C (T pt) (h ph) (w pw) -> C (T h w pt) ph pw", pt=pt, ph=ph, pw=pw) for x in padded
    ]  # fmt: skip
    return torch.cat(patches, dim=1)[None]


def _positions(network, clips, layout, dtype):
    """The positions of each token in its own clip, [1, N, 1, C]."""
    found = []
    for clip, grid in zip(clips, layout.grids):
        scale = network.position_scale(clip.x[None], ClipSizes(None, clip.height, clip.width))
        found.append(network.positions(grid, scale, clip.x.to(dtype)).expand(grid[0], -1, -1).flatten(0, 1))
    return torch.cat(found)[None, :, None]


def _captions(clips):
    """The real tokens of all captions, [1, L, caption_channels], and how many are whose."""
    captions = [clip.caption[clip.real_caption()] for clip in clips]
    return torch.cat(captions)[None], [len(caption) for caption in captions]


def _each(function, tokens: tuple[Tensor, ...], *rows: Tensor, shapes, told) -> Tensor:
    """function clip by clip: on [1, T, S, C] of each of `tokens` [1, N, 1, C], and its own `told` rows of [1, R, C].

    Rows spread over all tokens at once would be kept for the gradient, as large as the tokens.
    """
    lengths = [T * S for T, S in shapes]
    parts = zip(*(x[0, :, 0].split(lengths) for x in tokens))
    found = []
    for own, (T, S), *own_rows in zip(parts, shapes, *(row.split(told, dim=1) for row in rows)):
        found.append(function(*(part.reshape(1, T, S, -1) for part in own), *own_rows).flatten(0, 2))
    return torch.cat(found)[None, :, None]


def _attend(attention: SelfAttention, x: Tensor, groups, across, rotation=None) -> Tensor:
    """Attention within the groups of x [1, N, 1, C]: of rows that differ by frame ("T") or by place ("S")."""
    q, k, v = (each[0, :, 0] for each in attention.heads(x, rotation))
    rows, along = f"(B {across})", "S" if across == "T" else "T"
    out = []
    lengths = [B * T * S for B, T, S in groups]
    for (B, T, S), *parts in zip(groups, q.split(lengths), k.split(lengths), v.split(lengths)):
        sides = dict(B=B, T=T, S=S)
        parts = [rearrange(part, f"(B T S) n d -> {rows} n {along} d", **sides) for part in parts]
        out.append(rearrange(attention.attention(*parts, None), f"{rows} n {along} d -> (B T S) (n d)", **sides))
    return attention.proj(torch.cat(out))[None, :, None]


def _read(attention: CrossAttention, x: Tensor, caption: Tensor, lengths, caption_lengths) -> Tensor:
    """Cross-attention of each clip in x [1, N, 1, C] to its own part of the captions [1, L, C]."""
    q = attention.q_linear(x[0, :, 0]).unflatten(-1, (attention.num_heads, -1))
    k, v = attention.kv_linear(caption[0]).unflatten(-1, (2, attention.num_heads, -1)).unbind(1)
    out = []
    for parts in zip(q.split(lengths), k.split(caption_lengths), v.split(caption_lengths)):
        q_own, k_own, v_own = (part.transpose(0, 1)[None] for part in parts)
        out.append(attention.attention(q_own, k_own, v_own, None)[0].transpose(0, 1).flatten(1))
    return attention.proj(torch.cat(out))[None, :, None]


def _unpack(network, tokens, layout, sizes):
    """The predictions [2C, T, H, W] of tokens [N, patch volume · 2C]: a list."""
    found = []
    for part, grid, (T, H, W) in zip(tokens.split(layout.lengths), layout.grids, sizes):
        prediction = network.unpatchify(part.unflatten(0, (1, grid[0], -1)), *grid[1:])
        found.append(prediction[0, :, :T, :H, :W].float())
    return found
