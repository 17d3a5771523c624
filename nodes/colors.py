"""Pictures without a third and a fifth channel: one rule for grey and for transparency, wherever an IMAGE is taken."""

import logging

from torch import Tensor

from .said import said


def colors_of(pixels: Tensor, name: str, notes: list[str] | None = None) -> Tensor:
    """IMAGE [T, H, W, 3] of the node's input `name`, which may be grey (1 channel) or have alpha (4).

    A video has no transparency: what is transparent is laid over black, and that is said, in the log and as a line in
    the list `notes`. Raises ValueError, naming the input, for a batch without images and other numbers of channels.
    """
    if 0 in pixels.shape:
        raise ValueError(f"{name} has shape {tuple(pixels.shape)}, which holds no image; give at least one")
    channels = pixels.shape[-1]
    if channels == 1:
        return pixels.expand(*pixels.shape[:-1], 3)
    if channels == 4:
        alpha = pixels[..., 3:]
        if alpha.min() < 1:
            note = said("{name} has transparent parts, which a video has not: they are laid over black", name=name)
            logging.warning("Open-Sora: %s", note)
            if notes is not None:
                notes.append(note)
        return pixels[..., :3] * alpha
    if channels != 3:
        raise ValueError(
            f"{name} has {channels} channels; a picture has 3 (red, green and blue), 1 (grey) or 4 (with alpha, which "
            "is laid over black)"
        )
    return pixels
