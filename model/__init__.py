"""The networks and the mathematics of Open-Sora, in plain PyTorch; knows nothing of ComfyUI."""

from . import flow, flow_v1_3, iddpm, masks, text
from .checkpoints.loading import load_transformer, load_vae

__all__ = ["flow", "flow_v1_3", "iddpm", "load_transformer", "load_vae", "masks", "text"]
