"""What a network is trained to bring down."""

import torch

from ..model import flow


def flow_loss(transformer, clean, noise, t, frame_mask, **conditions):
    """Mean squared error of the velocity over the generated frames, per sample [B]."""
    generated = frame_mask[:, None, :, None, None]
    noisy = torch.where(generated, flow.add_noise(clean, noise, t), clean)
    velocity = transformer(noisy, t, frame_mask=frame_mask, **conditions)[:, : clean.shape[1]]
    error = (velocity - (clean - noise)).square().mean((1, 3, 4))
    return (error * frame_mask).sum(1) / frame_mask.sum(1)
