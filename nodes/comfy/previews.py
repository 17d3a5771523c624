"""Small pictures of what is wired into a node, for the browser to show."""

import hashlib
from pathlib import Path

import folder_paths
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from . import files

FOLDER = "opensora"
LONGEST_SIDE = 96


def save_thumbnail(pixels: Tensor) -> dict[str, str] | None:
    """The first frame of IMAGE [T, H, W, C], at most 96 pixels a side, as a PNG in ComfyUI's temp folder.

    The name comes from the picture, so the same one is written once.

    Returns:
        {"filename", "subfolder", "type"} as ComfyUI's /view takes them; None without a picture, and where the folder
        cannot be written to.
    """
    if 0 in pixels.shape:
        return None
    picture = _small(pixels[:1, ..., :3] if pixels.shape[-1] >= 3 else pixels[:1, ..., :1].expand(-1, -1, -1, 3))
    name = f"thumbnail_{hashlib.sha256(picture.tobytes() + repr(picture.shape).encode()).hexdigest()[:16]}.png"
    target = Path(folder_paths.get_temp_directory()) / FOLDER / name

    def save(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path, format="PNG")

    if not target.exists() and not files.put(target, save, "no thumbnail could be put into the temp folder"):
        return None
    return {"filename": name, "subfolder": FOLDER, "type": "temp"}


def _small(pixels):
    """IMAGE [1, H, W, C] as bytes [h, w, C]."""
    H, W = pixels.shape[1:3]
    scale = min(1.0, LONGEST_SIDE / max(H, W))
    size = (max(1, round(H * scale)), max(1, round(W * scale)))
    pixels = F.interpolate(pixels.float().movedim(-1, 1), size=size, mode="area")[0].movedim(0, -1)
    return (pixels.clamp(0, 1) * 255).round().byte().cpu().numpy()
