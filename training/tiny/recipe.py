"""What the bundled model is: the sizes of its three networks, how it is guided, what its files say of it."""

from pathlib import Path
from typing import Any

from ...model.transformers.stdit3 import STDiT3Config
from ...model.vaes.spatial import SpatialConfig
from ...model.vaes.temporal import TemporalConfig
from ...model.vaes.v1_2 import VideoVAEConfig

BUNDLED = Path(__file__).parents[2] / "model" / "bundled"
ABOUT = {"version": "1.2", "made_for": {"height": 64, "width": 64, "num_frames": 17, "fps": 24}}
EXACT = ("shift", "scale", "rope.freqs")  # small tables that stay fp32

VAE = VideoVAEConfig(
    spatial=SpatialConfig(block_out_channels=(16, 24, 48, 96), layers_per_block=1, norm_groups=8),
    temporal=TemporalConfig(filters=16, channel_multipliers=(1, 2, 3, 4), num_res_blocks=1, norm_groups=8),
    shift=(0.0,) * 4,
    scale=(1.0,) * 4,
)
TRANSFORMER = STDiT3Config(depth=4, hidden_size=160, num_heads=4, caption_channels=64, model_max_length=120)
TEXT_ENCODER = dict(d_model=64, num_layers=2, num_heads=4, d_kv=16, d_ff=160, vocab_size=32128, max_length=120)
# What the shift is relative to. At 64×64 it gives 4.5 for 17 frames: half of all steps are spent above t = 0.8, where
# the direction of a motion is decided; below, it shows in the noised latents anyway.
FLOW: dict[str, Any] = {"base_resolution": 32 * 32, "base_num_frames": 1, "scale": 1.0}
TEACHER_GUIDANCE = 2.0
GUIDANCE = 7.0  # the nodes' default

# How often each strategy is drawn; the rest generates every frame.
RATIOS = {
    "image_head": 0.10,
    "image_tail": 0.03,
    "image_head_tail": 0.12,
    "image_random": 0.02,
    "quarter_head": 0.02,
    "quarter_tail": 0.01,
    "quarter_head_tail": 0.02,
    "quarter_random": 0.01,
    "random": 0.02,
    "intepolate": 0.01,
}
# Of clips of several chunks of the VAE: how long videos go on from, lead up to and bridge between whole chunks.
LONG_RATIOS = {
    "image_head": 0.06,
    "image_head_tail": 0.10,
    "chunk_head": 0.26,
    "chunk_tail": 0.13,
    "chunk_head_tail": 0.15,
    "quarter_head": 0.03,
    "quarter_head_tail": 0.03,
}
