"""STDiT3 as Open-Sora 1.3 has it: temporal blocks attend in windows of space and time, and frames can be a condition.

What changed since 1.2 (stdit3.py): 16 latent channels; rotary positions over time, height and width, in both kinds of
block; a temporal block's window spans 8 x 8 tokens and all frames, where it was one token; kept frames come in beside
the noise, through embedders of their own, and read the null caption. Defined by https://github.com/hpcaitech/Open-Sora
(branch opensora/v1.3).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..shapes_of import StateDict
from .kernels import Rotation, rotations
from .layers import Attention, Mask, SelfAttention, repeat_rows, rope_frequencies
from .skeleton import ClipSizes
from .stdit3 import STDiT3, STDiT3Block, STDiT3Config

TIME, HEIGHT, WIDTH = range(3)
Grid = tuple[int, int, int]  # tokens along these axes
Captions = list[tuple[Any, Tensor]]  # what `STDiT3v13.captions` gives: a caption for each group of frames


@dataclass(frozen=True)
class STDiT3v13Config(STDiT3Config):
    """Configuration of an STDiT3 of 1.3; field names are the original's configuration keys.

    `kernel_size` is the window of the temporal blocks in tokens, in the original's order height, width, time; -1 takes
    the whole axis. None means temporal blocks as in 1.2, across the frames of one place.
    """

    in_channels: int = 16
    kernel_size: tuple | None = (8, 8, -1)
    use_spatial_rope: bool = True

    @property
    def rope_axes(self) -> tuple[int, ...]:
        """The axes whose positions rotate a head; each turns an equal share of the channels."""
        return (TIME,) if self.kernel_size is None else (TIME, HEIGHT, WIDTH)

    @property
    def rope_dim(self) -> int:
        """How many channels of a head each axis turns."""
        return self.hidden_size // self.num_heads // len(self.rope_axes)

    @classmethod
    def from_weights(cls, state_dict: StateDict, config: Mapping[str, Any] | None = None) -> "STDiT3v13Config":
        """The configuration of these weights; `config` supplies what they cannot tell. ValueError if they disagree."""
        config = config or {}
        rope = state_dict.get("rope.freqs")
        others = {key: value for key, value in state_dict.items() if key != "rope.freqs"}
        found = super().from_weights(others, config)
        found = replace(found, kernel_size=_kernel_size(config.get("kernel_size", cls.kernel_size)))
        if rope is not None:
            if not found.qk_norm and not config.get("num_heads"):
                channels = 2 * max(1, rope.numel()) * len(found.rope_axes)
                found = replace(found, num_heads=max(1, found.hidden_size // channels))
            other = replace(found, kernel_size=cls.kernel_size if found.kernel_size is None else None)
            if other.rope_dim // 2 == rope.numel() != found.rope_dim // 2:
                if "kernel_size" in config:
                    raise ValueError(
                        f"config says kernel_size = {config['kernel_size']}, but the weights' rope.freqs has "
                        f"{rope.numel()} frequencies, which means {other.kernel_size}"
                    )
                found = other
        windowed = found.kernel_size is not None
        spatial = config.get("use_spatial_rope")
        if spatial and not windowed:
            raise ValueError("config says use_spatial_rope, which needs a kernel_size, but that is None")
        return replace(found, use_spatial_rope=windowed if spatial is None else bool(spatial))


def _kernel_size(given):
    """A window as a tuple of three, height, width, time, or None."""
    if given is None:
        return None
    if len(given) != 3 or 0 in given:
        raise ValueError(f"config says kernel_size = {given}; it is tokens of height, width, time (-1: all), or None")
    return tuple(int(size) for size in given)


@dataclass(frozen=True)
class Windows:
    """How the tokens of a clip fall into windows: in up to eight pieces, since the last window of an axis may be cut.

    (The original fills that up and masks what it filled in.) A piece is its place, a slice of each axis of `grid`; the
    tokens of its windows along each; and how positions turn their queries and keys, [1, tokens, 1, P, 2, 2] or None.
    """

    grid: Grid
    pieces: list[tuple[tuple[slice, ...], Grid, Rotation | None]]

    @classmethod
    def of(cls, grid: Grid, window: Grid, rotation: Callable[[Grid], Rotation | None]) -> "Windows":
        """Those of `window` tokens; `rotation` gives what turns a window of a size."""
        pieces = []
        for axes in product(*(_window_pieces(length, size) for length, size in zip(grid, window))):
            place, sizes = zip(*axes)
            pieces.append((place, sizes, rotation(sizes)))
        return cls(grid, pieces)

    @property
    def frames(self) -> bool:
        """Whether every frame is a window: then tokens lie in windows as they are."""
        return self.pieces[0][1] == (1, *self.grid[1:])

    def finer(self, count: int) -> "Windows":
        """The same windows in about `count` times as many pieces."""
        pieces = []
        for place, sizes, rotation in self.pieces:
            axis = max(range(3), key=lambda axis: (place[axis].stop - place[axis].start) // sizes[axis])
            start, stop = place[axis].start, place[axis].stop
            step = max(1, -(-(stop - start) // (sizes[axis] * count))) * sizes[axis]
            for first in range(start, stop, step):
                part = slice(first, min(first + step, stop))
                pieces.append(((*place[:axis], part, *place[axis + 1 :]), sizes, rotation))
        return Windows(self.grid, pieces)


def _window_pieces(length, size):
    """Split an axis into whole windows and the rest: a list of (slice, tokens a window)."""
    whole = length // size * size
    pieces = [(slice(0, whole), size), (slice(whole, length), length - whole)]
    return [(piece, tokens) for piece, tokens in pieces if piece.start < piece.stop]


def window_rotation(frequencies: Tensor, axes: Sequence[int], window: Grid, scale: float, head_dim: int) -> Rotation:
    """How positions within a window turn queries and keys [B, rows, tokens, heads, head_dim]: [1, tokens, 1, P, 2, 2].

    Each of `axes` turns an equal share of the channels, or as many of them as `frequencies` reach. Height and width are
    divided by `scale`, so that a token's place in the picture counts and not its number. Positions start anew in each
    window: only differences count there, and small angles round less. A list, an entry for each axis, where shares are
    odd.
    """
    angles = []
    for axis in axes:
        positions = torch.arange(window[axis], device=frequencies.device).float()
        positions = positions if axis == TIME else positions / scale
        shape = [1, 1, 1, -1]
        shape[axis] = window[axis]
        turned = (positions[:, None] * frequencies.float()).view(shape)
        angles.append(turned.expand(*window, -1).flatten(0, 2)[None, :, None])
    shares = [len(share) for share in torch.arange(head_dim).chunk(len(axes))]
    if any(share % 2 for share in shares):
        return [rotations(each) for each in angles]
    filled = [F.pad(each, (0, share // 2 - each.shape[-1])) for each, share in zip(angles, shares)]
    return rotations(torch.cat(filled, dim=-1))


class WindowAttention(SelfAttention):
    """Self-attention within windows of space and time, with rotary positions along each axis."""

    def forward(self, x: Tensor, windows: Windows) -> Tensor:  # type: ignore[override]
        """x [B, T, S, C] with S = rows · columns of the grid of `windows`."""
        if windows.frames:
            return super().forward(x, windows.pieces[0][2])
        cells = x.unflatten(2, windows.grid[1:])
        out = torch.empty_like(cells)
        for (ts, hs, ws), (t, h, w), rotation in windows.pieces:
            area = out[:, ts, hs, ws]
            sides = dict(B=len(x), T=area.shape[1] // t, H=area.shape[2] // h, t=t, h=h, w=w)
            tokens = rearrange(cells[:, ts, hs, ws], "B (T t) (H h) (W w) C -> 1 (B T H W) (t h w) C", **sides)
            attended = super().forward(tokens, rotation)
            area.copy_(rearrange(attended, "1 (B T H W) (t h w) C -> B (T t) (H h) (W w) C", **sides))
        return out.flatten(2, 3)


class STDiT3v13Block(STDiT3Block):
    """One transformer block: attention in windows, cross-attention to the captions, MLP."""

    SelfAttention = WindowAttention

    def forward(  # type: ignore[override]
        self, x: Tensor, captions: Captions, t: Tensor, caption_mask: Mask, windows: Windows
    ) -> Tensor:  # fmt: skip
        """x [B, T, S, C]; captions as `STDiT3v13.captions`; t [B, T or 1, 6, C]; of its kind of block the windows."""
        modulation = self.scale_shift_table.to(x) + t
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = modulation.unbind(2)
        modulated_norm, gated_sum = self.kernels.modulated_norm, self.kernels.gated_sum
        x = gated_sum(x, self.attn(modulated_norm(x, shift_attn, scale_attn), windows), gate_attn)
        x = x + self.read(x, captions, caption_mask)
        return gated_sum(x, self.mlp(modulated_norm(x, shift_mlp, scale_mlp)), gate_mlp)

    def read(self, x: Tensor, captions: Captions, caption_mask: Mask) -> Tensor:
        """Cross-attention, the frames of each group to the caption of their group."""
        read = []
        for frames, caption in captions:
            tokens = rearrange(x[:, frames], "B T S C -> B (T S) C")
            read.append(self.cross_attn(tokens, caption, caption_mask).unflatten(1, (-1, x.shape[2])))
        if len(read) == 1:
            return read[0]
        return torch.cat(read, dim=1)[:, torch.cat([frames for frames, _ in captions]).argsort()]


class STDiT3v13(STDiT3):
    """Predicts the rectified-flow velocity (data minus noise) of 16-channel video latents. Arguments as `STDiT3`."""

    family = "stdit3_v1_3"
    version = "1.3"
    Config = STDiT3v13Config
    Block = STDiT3v13Block
    x_embedder_cond: nn.Module
    x_embedder_cond_mask: nn.Module

    def add_layers(self, operations: Any, attention: Attention, **weights: Any) -> None:
        super().add_layers(operations, attention, **weights)
        config = self.config
        for name in ("x_embedder_cond", "x_embedder_cond_mask"):
            embedder = self.Patches(config.patch_size, config.in_channels, config.hidden_size, operations, **weights)
            for weight in embedder.parameters():  # as in the original: without training a condition changes nothing
                nn.init.zeros_(weight)
            self.add_module(name, embedder)

    def computed(self) -> dict[str, Tensor]:
        dim = self.config.rope_dim
        return {"rope.freqs": rope_frequencies(dim)[: dim // 2]}

    def run(
        self, x: Tensor, timestep: Tensor, caption: Tensor, caption_mask: Mask, frame_mask: Mask, clip: ClipSizes,
        condition: Tensor | None = None, condition_mask: Tensor | None = None,
        condition_frames: Sequence[int] | None = None, null_caption: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Velocity of x, in x's own dtype; as 1.2's, and

        Args:
            condition: clean latents of the kept frames, zero elsewhere, [B, C, T, H, W].
            condition_mask: 1 on the kept frames, 0 elsewhere, [B, C, T, H, W].
            condition_frames: which latent frames are kept, a list; they read the null caption, under the caption's
                mask. None: there is no condition, and the two above are not looked at.
            null_caption: [B, L, caption_channels]; left out: the checkpoint's own.

        Raises ValueError for condition frames without condition or mask, and for frames that x does not have.
        """
        T, H, W = x.shape[2:]
        t, t_kept, t_block, frame_mask = self.embed_time(x, timestep, clip.fps, frame_mask)
        captions, caption_mask = self.captions(x, caption, caption_mask, condition_frames, null_caption)
        scale = self.position_scale(x, clip)
        padded = self.pad_to_patches(x)
        grid = self.grid(padded)
        x = self.x_embedder(padded)
        if condition_frames is not None:
            if condition is None or condition_mask is None:
                raise ValueError("condition_frames is given without condition or condition_mask; give all three")
            for embedder, values in ((self.x_embedder_cond, condition), (self.x_embedder_cond_mask, condition_mask)):
                x = x + embedder(self.pad_to_patches(repeat_rows(values, x.shape[0]).to(padded)))
        x = x + self.positions(grid, scale, x)

        spatial, temporal = (
            {"caption_mask": caption_mask, "windows": windows} for windows in self.windows(grid, scale, x.device)
        )
        x = self.run_blocks(x, captions, t_block, spatial, temporal)
        x = self.final_layer(x, t, t_kept, frame_mask)
        return self.unpatchify(x, *grid[1:])[:, :, :T, :H, :W]

    def windows(self, grid: Grid, scale: float, device: torch.device | str | None = None) -> tuple[Windows, Windows]:
        """Those of the spatial blocks, where every frame is one, and of the temporal ones."""
        config, frequencies = self.config, cast(Tensor, self.rope.freqs).to(device=device)

        def rotation(window: Grid) -> Rotation:
            head_dim = config.hidden_size // config.num_heads
            return window_rotation(frequencies, config.rope_axes, window, scale, head_dim)

        height, width, time = config.kernel_size or (1, 1, -1)
        window = cast(Grid, tuple(size if size > 0 else length for size, length in zip((time, height, width), grid)))
        in_frames = rotation if config.use_spatial_rope else lambda window: None
        return Windows.of(grid, (1, *grid[1:]), in_frames), Windows.of(grid, window, rotation)

    def captions(
        self, x: Tensor, caption: Tensor, caption_mask: Mask, condition_frames: Sequence[int] | None = None,
        null_caption: Tensor | None = None,
    ) -> tuple[Captions, Mask]:  # fmt: skip
        """What each frame of x reads: ([(frames, caption [B, L, C]), …], mask); the groups hold every frame."""
        B, T = x.shape[0], -(-x.shape[2] // self.config.patch_size[0])
        caption, mask = self.embed_caption(caption, caption_mask, B, x.dtype)
        kept = sorted(set(condition_frames or ()))
        if not kept:
            return [(slice(None), caption)], mask
        if kept[0] < 0 or kept[-1] >= T:
            raise ValueError(
                f"condition_frames is {list(condition_frames or ())}; the latents have frames 0 to {T - 1}"
            )
        null_caption = self.null_caption[None] if null_caption is None else null_caption
        if mask is not None:
            null_caption = null_caption[:, : mask.shape[-1]]
        null_caption, _ = self.embed_caption(null_caption.to(caption.device), None, B, x.dtype)
        rest = [frame for frame in range(T) if frame not in kept]
        groups = [(kept, null_caption), (rest, caption)]
        return [(torch.tensor(frames, device=x.device), text) for frames, text in groups if frames], mask
