"""Writes the bundled files: half-precision safetensors whose metadata say what they are and what they were made for."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from .latents import last_frame_of

BUNDLED = Path(__file__).parent.parent / "model" / "bundled"
MADE_FOR = {"height": 64, "width": 64, "num_frames": 17, "fps": 24}


def export(module, path, *, kind, family, title, config=None, **more):
    """Save a module's weights in fp16 (small tables that must be exact stay fp32), then rename into place."""
    exact = ("shift", "scale", "rope.freqs")
    state_dict = {
        key: (value if key in exact else value.half()).detach().cpu().contiguous()
        for key, value in module.state_dict().items()
    }
    about = {"kind": kind, "family": family, "version": "1.2", "title": title, "config": config or {}}
    about |= {"made_for": MADE_FOR, **more}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    save_file(state_dict, temporary, metadata={"format": "pt", "opensora": json.dumps(about)})
    temporary.replace(path)
    return path


def latent_rgb_factors(vae, latents):
    """(4 rows of RGB factors, RGB bias): the linear map from latents [N, 4, T, h, w] to the colours in 0..1 they decode to."""
    with torch.no_grad():
        frames = vae.video_frames(latents.shape[2])
        video = (vae.decode(latents, frames) + 1) / 2
    last = [last_frame_of(latent) for latent in range(latents.shape[2])]
    colors = torch.nn.functional.avg_pool3d(video[:, :, last], (1, 8, 8)).permute(0, 2, 3, 4, 1).reshape(-1, 3)
    rows = latents.permute(0, 2, 3, 4, 1).reshape(-1, latents.shape[1])
    rows = torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
    solution = torch.linalg.lstsq(rows, colors.clamp(0, 1)).solution
    return solution[:-1].tolist(), solution[-1].tolist()
