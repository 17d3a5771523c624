"""The networks and the mathematics of Open-Sora, in plain PyTorch; knows nothing of ComfyUI."""

from . import flow, text
from .loading import load_transformer, load_vae

__all__ = ["flow", "load_transformer", "load_vae", "text"]
