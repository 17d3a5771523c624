"""Pillow's pictures as ComfyUI's IMAGE."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy
import torch
from comfy_api.latest import ui

if TYPE_CHECKING:
    from PIL import Image


def shown(image: torch.Tensor, node: type, **more: object) -> dict[str, object]:
    """What a node hands the page to show IMAGE [1, H, W, 3] on it, and `more`."""
    return {**ui.PreviewImage(image, cls=node).as_dict(), **more}


def image_of(picture: Image.Image) -> torch.Tensor:
    """IMAGE [1, H, W, 3] in 0…1."""
    return torch.from_numpy(numpy.asarray(picture.convert("RGB"), numpy.float32) / 255)[None]
