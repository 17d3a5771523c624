"""Writes the bundled files: half-precision safetensors whose metadata say what they are and what they were made for."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from ..model.colors import fit_colors
from ..model.loading import read_file

BUNDLED = Path(__file__).parent.parent / "model" / "bundled"
PREVIEW_KEYS = ("latent_rgb_factors", "latent_rgb_factors_bias", "latent_rgb_mixing")
MADE_FOR = {"height": 64, "width": 64, "num_frames": 17, "fps": 24}


def export(module, path, *, kind, family, title, config=None, **more):
    """Save a module's weights in fp16 (small tables that must be exact stay fp32), then rename into place."""
    exact = ("shift", "scale", "rope.freqs")
    state_dict = {
        key: (value if key in exact else value.half()).detach().cpu().contiguous()
        for key, value in module.state_dict().items()
    }
    about = {"kind": kind, "family": family, "version": "1.2", "title": title, "config": config or {}}
    return _write(path, state_dict, about | {"made_for": MADE_FOR, **more})


def tell_more(source, path, **more):
    """Save the exported file `source` as `path`, with `more` in its metadata and the tensors as they are."""
    state_dict, metadata = read_file(source)
    return _write(path, state_dict, metadata["opensora"] | more)


def _write(path, state_dict, about):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    save_file(state_dict, temporary, metadata={"format": "pt", "opensora": json.dumps(about)})
    temporary.replace(path)
    return path


@torch.no_grad()
def preview_colors(vae, latents):
    """What a preview needs to know, fitted on what latents [N, C, T, h, w] decode to: metadata for `export`."""
    frames = vae.counting.video_frames(latents.shape[2])
    factors, bias, mixing = fit_colors(latents, vae.decode(latents, frames), vae.counting.groups(frames))
    return dict(zip(PREVIEW_KEYS, (factors, bias, mixing)))
