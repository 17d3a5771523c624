"""What training a LoRA of the official Open-Sora 1.2 needs of memory, counted as memory_table.py counts a call."""

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ..model.frames import CHUNKS
from ..model.transformers.skeleton import ClipSizes
from ..model.transformers.stdit3 import STDiT3, STDiT3Config
from ..training import lora
from ..training.config import TrainConfig
from ..training.live_bytes import LiveBytes
from ..training.trainer.learner import recompute_blocks
from .memory_table import DTYPE, LENGTHS, SIZES, gigabytes, table

DEPTHS = 2, 4  # what each further block needs, all of them need


def training_peak(width: int, height: int, frames: int, recompute: bool) -> int:
    """Bytes beside the weights of a step on one clip, in bf16, forwards and backwards.

    `recompute`: with gradient checkpointing.
    """
    few, more = (_peak(depth, width, height, frames, recompute) for depth in DEPTHS)
    return few + (more - few) * (STDiT3Config().depth - DEPTHS[0]) // (DEPTHS[1] - DEPTHS[0])


def _peak(depth, width, height, frames, recompute):
    config, settings = STDiT3Config(depth=depth), TrainConfig()
    torch.set_default_dtype(DTYPE)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            network = STDiT3(config)
            lora.inject(network, settings.rank, settings.alpha)
            if recompute:
                recompute_blocks(network)
            x = torch.empty(1, config.in_channels, CHUNKS.latent_frames(frames), -(-height // 8), -(-width // 8))
            caption = torch.empty(1, config.model_max_length, config.caption_channels)
            mask = torch.ones(1, config.model_max_length, dtype=torch.int32)
            sizes = ClipSizes(*([float(value)] for value in (24, height, width, frames)))
            with LiveBytes() as counted:
                network.run(x, torch.full((1,), 500.0), caption, mask, None, sizes).float().square().mean().backward()
    finally:
        torch.set_default_dtype(torch.float32)
    return counted.peak


def training_table() -> str:
    """A step on one clip, by size and length."""
    rows = []
    for size in ("144p", *list(SIZES)[:2]):
        width, height = SIZES.get(size, (256, 144))
        for frames in (1, *list(LENGTHS.values())[:2]):
            peaks = [gigabytes(training_peak(width, height, frames, recompute)) for recompute in (True, False)]
            rows.append([f"{size}, {frames} frames" if frames > 1 else f"{size}, a picture", *peaks])
    return table(["one clip", "with gradient_checkpointing", "without"], rows)
