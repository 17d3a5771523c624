"""What the bundled model is: its three networks, how it is guided, what its files say of it; and how long it trains."""

from dataclasses import dataclass, field
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


def amount(default: Any, help: str) -> Any:
    """A number of a Recipe, or several."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Recipe:
    """How much of everything: the arguments of the command line."""

    captions: int = amount(30_000, "captions that the text encoder learns from")
    text_encoder_steps: int = amount(2000, "steps of the text encoder's training")
    vae_steps: tuple = amount((760, 900, 600, 900), "steps of the four stages of the VAE's training")
    vae_batch: int = amount(16, "pictures of a step of the first of them, four times the clips of the others")
    vae_clips: int = amount(1800, "clips that the VAE is trained on, once it encodes pictures")
    refine_steps: int = amount(1200, "steps of the VAE on what it paints worst")
    clips: int = amount(14_400, "clips to encode for the transformer")
    held_out: int = amount(48, "clips to encode that it is judged by")
    batch: int = amount(24, "clips of a step of the transformer; half of them in its calibration")
    teacher_steps: int = amount(6000, "steps of the transformer's training")
    transformer_steps: int = amount(800, "steps of its calibration to the default guidance")
    polish_clips: int = amount(1440, "clips that are sampled for the VAE's decoders")
    polish_steps: int = amount(1200, "steps of the VAE's decoders on sampled latents")
    previews_clips: int = amount(704, "clips that are sampled for the colours of previews")
    previews_steps: int = amount(6000, "steps of the colours of previews")
    trials: int = amount(128, "held-out captions to score")
