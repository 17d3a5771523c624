"""The causal 3D autoencoder of Open-Sora 1.3: space and time in one network, 16 channels, a 4 x 8 x 8 compression.

Videos are [B, 3, T, H, W] in -1…1; latents are [B, 16, T', H / 8, W / 8], normalised to about unit variance. A video
goes through in chunks of 17 frames, of which neighbours share one: 17 frames make 5 latents, and every 16 more make 5
more. Defined by https://github.com/hpcaitech/Open-Sora (branch opensora/v1.3).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..frames import OVERLAPPING, Counts
from ..shapes_of import StateDict, count_blocks, shape_of
from .spatial import draw_posterior, draws
from .v1_3_network import Decoder, Encoder
from .v1_3_stats import VIDEO_5FRAMES_MEAN, VIDEO_5FRAMES_STD, VIDEO_MEAN, VIDEO_STD

STATISTICS = {
    "video": (VIDEO_MEAN, VIDEO_STD),
    "video_5frames": (VIDEO_5FRAMES_MEAN, VIDEO_5FRAMES_STD),
    None: ((0.0,), (1.0,)),
}


@dataclass(frozen=True)
class CausalVAEConfig:
    """Configuration of the 1.3 VAE.

    `widths` are the channels of each level, from the pixels down; `time_down` and `time_up` the levels whose change of
    resolution includes time. `shift` and `scale` normalise the latents: a value a channel, or a row of values a
    channel, one for each place in a chunk. Without `temporal_overlap` chunks share no frame.
    """

    stem: int = 128
    widths: tuple = (128, 256, 512, 512)
    num_res_blocks: int = 2
    latent_channels: int = 16
    time_down: tuple = (1, 2)
    time_up: tuple = (2, 3)
    norm_groups: int = 32
    chunk_frames: int = OVERLAPPING.chunk_frames
    temporal_overlap: bool = True
    shift: tuple = VIDEO_MEAN
    scale: tuple = VIDEO_STD

    @classmethod
    def from_weights(cls, state_dict: StateDict, config: Mapping[str, Any] | None = None) -> "CausalVAEConfig":
        """The configuration of these weights; `config` supplies what they cannot tell.

        Its keys: spatial_norm_groups, chunk_frames, temporal_overlap, normalization ("video", "video_5frames" or
        None), shift and scale. Raises ValueError for other statistics, and where theirs are not the latents' channels.
        """
        config = config or {}
        levels = range(count_blocks(state_dict, r"encoder\.down\.(\d+)\."))
        channels = shape_of(state_dict, "decoder.conv_in.conv.weight", 5, (cls.widths[-1], cls.latent_channels))[1]
        name = config.get("normalization", "video")
        if name not in STATISTICS:
            raise ValueError(f'config says normalization = "{name}"; known are "video", "video_5frames" and None')
        shift, scale = (_table(config.get(key) or values) for key, values in zip(("shift", "scale"), STATISTICS[name]))
        for key, values in (("shift", shift), ("scale", scale)):
            if len(values) not in (1, channels):
                raise ValueError(
                    f"{key} has {len(values)} values, but the latents have {channels} channels; config must give them"
                )
        return cls(
            stem=shape_of(state_dict, "encoder.conv_in.conv.weight", 5, (cls.stem,))[0],
            widths=tuple(
                shape_of(state_dict, f"encoder.down.{level}.block.0.conv1.conv.weight", 5, (cls.stem,))[0]
                for level in levels
            ),
            num_res_blocks=count_blocks(state_dict, r"encoder\.down\.0\.block\.(\d+)\."),
            latent_channels=channels,
            time_down=tuple(
                level
                for level in levels
                if count_blocks(state_dict, rf"encoder\.down\.{level}\.downsample\.(conv)\.conv\.")
            ),
            time_up=tuple(
                level for level in levels if count_blocks(state_dict, rf"decoder\.up\.{level}\.upsample\.(conv3d)\.")
            ),
            norm_groups=config.get("spatial_norm_groups") or cls.norm_groups,
            chunk_frames=config.get("chunk_frames") or cls.chunk_frames,
            temporal_overlap=bool(config.get("temporal_overlap", cls.temporal_overlap)),
            shift=shift,
            scale=scale,
        )  # fmt: skip


def _table(values):
    """Nested sequences as nested tuples."""
    return tuple(_table(value) if isinstance(value, (list, tuple)) else float(value) for value in values)


class CausalVAE(Counts, nn.Module):
    """Encodes and decodes videos chunk by chunk; 1 and 16 k + 1 frames come back as they went in."""

    family = "vae_v1_3"
    Config = CausalVAEConfig
    OPTIONAL = ()  # a file has every key

    def __init__(self, config: CausalVAEConfig = CausalVAEConfig(), operations: Any = nn, **weights: Any) -> None:
        super().__init__()
        self.config = config
        self.latent_channels = config.latent_channels
        overlap, factor = int(config.temporal_overlap), 2 ** len(config.time_down)
        self.counting = replace(OVERLAPPING, chunk_frames=config.chunk_frames, factor=factor, overlap=overlap)
        self.encoder = Encoder(config, operations, **weights)
        self.decoder = Decoder(config, operations, **weights)

    def computed(self) -> dict[str, Tensor]:
        """The tensors of OPTIONAL by their keys: none."""
        return {}

    def each_chunk(self, pieces: Sequence[Any]) -> Iterable[Any]:
        """Go over the chunks of a run, a list; for hosts to show progress, or to stop."""
        return pieces

    def encode(self, video: Tensor, noise: torch.Generator | Callable[..., Tensor] | None = None) -> Tensor:
        """Normalised latents of a video [B, 3, T, H, W] in -1…1.

        Args:
            noise: None for the posterior's mode; a `torch.Generator` for a sample; or a callable
                (kind, index, shape) -> tensor that supplies the one draw, kind "temporal", for all chunks together.
        """
        video = self._in_own_dtype(video)
        chunks = [
            self.encoder(video[:, :, chunk.start : chunk.stop])
            for chunk in self.each_chunk(self.counting.chunks(video.shape[2]))
        ]
        moments = torch.cat(chunks, dim=2)
        z = draw_posterior(moments, draws(noise)("temporal", 0, moments))
        shift, scale = self._statistics(z)
        return ((z - shift) / scale).to(z.dtype)

    def decode(self, latents: Tensor, num_frames: int) -> Tensor:
        """Video [B, 3, T, 8 h, 8 w] in about -1…1 from normalised latents [B, C, T', h, w].

        T is `num_frames` for the valid counts. Others lose what the original loses, the frames behind the last group
        of `counting.groups`: T is then `counting.video_frames(T')`. Raises ValueError where the latents cannot stand
        for `num_frames`.
        """
        self.counting.refuse_mismatch(num_frames, latents.shape[2])
        return torch.cat(list(self.decode_chunks(latents)), dim=2)

    def decode_chunks(self, latents: Tensor) -> Iterator[Tensor]:
        """`decode` piece by piece: yields the frames that each chunk completes, [B, 3, t, 8 h, 8 w].

        The frame that two chunks share is the mean of what both make of it, and comes with the later chunk.
        """
        pieces = self._in_own_dtype(latents).split(self.counting.chunk_latents, dim=2)
        shared = None
        for index, piece in enumerate(self.each_chunk(pieces)):
            frames = self.decode_chunk(piece)
            if shared is not None:
                frames = torch.cat([0.5 * (shared.to(frames) + frames[:, :, :1]), frames[:, :, 1:]], dim=2)
            if self.counting.overlap and index + 1 < len(pieces):
                shared, frames = frames[:, :, -1:], frames[:, :, :-1]
            yield frames

    def decode_chunk(self, latents: Tensor) -> Tensor:
        """The frames [B, 3, 4 T - 3, 8 h, 8 w] of the latents [B, C, T, h, w] of one chunk, seen by themselves."""
        shift, scale = self._statistics(latents)
        return self.decoder((latents * scale + shift).to(latents.dtype))

    def _statistics(self, z):
        """(shift, scale) that fit z [B, C, T, h, w], in fp32."""
        tables = []
        for values in (self.config.shift, self.config.scale):
            table = torch.tensor(values, dtype=torch.float32, device=z.device)
            table = table[:, None] if table.ndim == 1 else table
            places = torch.arange(z.shape[2], device=z.device) % table.shape[1]
            tables.append(table[:, places][None, :, :, None, None])
        return tables

    def _in_own_dtype(self, x):
        """x in the dtype of the weights; hosts that load weights late or cast them on the way bring the right one."""
        weight = self.decoder.conv_out.weight
        return x if weight is None else x.to(weight.dtype)
