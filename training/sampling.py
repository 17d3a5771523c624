"""Text to latents with model/ alone: what a trainer shows of itself while it learns."""

from typing import Any

import torch
from torch import Tensor

from ..model import flow, flow_v1_3, iddpm
from ..model.frames import IMAGE_FPS, Counting

STEPS = 20


@torch.no_grad()
def sample(
    network: Any,
    features: Tensor,
    mask: Tensor,
    *,
    counting: Counting,
    height: int,
    width: int,
    num_frames: int,
    fps: float = 24.0,
    seed: int = 0,
    steps: int = STEPS,
    guidance: float = 7.0,
    flow_settings: dict[str, Any] | None = None,
) -> Tensor:
    """Latents [1, C, T, h, w] of a caption's features [L, C] and mask [L], from the noise of `seed`.

    height, width in pixels, num_frames in video frames; flow_settings as `flow.timesteps` takes them.
    """
    device = next(network.parameters()).device
    T = counting.latent_frames(num_frames)
    shape = (1, network.in_channels, T, counting.latent_side(height), counting.latent_side(width))
    z = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)
    length = max(1, int(mask.sum()))
    caption, caption_mask = features[None, :length].to(device), mask[None, :length].to(device)
    null_caption = network.null_caption[:length]
    row = torch.ones(1, device=device)
    sizes: dict[str, Any] = {"fps": row * (fps if T > 1 else IMAGE_FPS), "height": row * height, "width": row * width}
    if network.prediction != "flow":
        return iddpm.sample(
            network, z, caption, null_caption, caption_mask=caption_mask, steps=steps, guidance=guidance, **sizes
        )
    version = "1.3" if network.version == "1.3" else "1.2"
    times = flow.timesteps(steps, height, width, num_frames, version=version, **(flow_settings or {}))
    run = flow_v1_3.sample if version == "1.3" else flow.sample
    return run(
        network, z, caption, null_caption, caption_mask=caption_mask, timesteps=times, guidance=guidance,
        num_frames=row * num_frames, **sizes,
    )  # fmt: skip
