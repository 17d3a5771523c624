"""What training reads: clips as latents and captions as features, encoded once and kept on disk.

A file is named by all that it was made of, so that a changed clip, crop, caption or encoder never meets an old one.
Whatever encodes (the command line's own networks, or ComfyUI's), the files are the same.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from ...model.frames import Counting
from ...model.pins import pieces
from ...model.whole_files import write_whole
from .clips import fit
from .dataset import Clip

FORMAT = 1  # of the files; a change in how they are made raises it, and all are made anew
LATENTS = ("latents", "stills", "has_still")
TEXT = ("features", "mask")


@dataclass(frozen=True)
class Cut:
    """Which frames of a clip, counted from its first, and the pixels that they are brought to by `clips.fit`."""

    frames: tuple[int, ...]
    height: int
    width: int
    mode: str = "resize_crop"
    version: str = "1.2"


class EncodesVideo(Protocol):
    """A VAE: `key` tells it from others, `counting` says how it counts frames."""

    @property
    def key(self) -> str: ...

    @property
    def counting(self) -> Counting: ...

    def __call__(self, video: Tensor) -> Tensor:
        """Latents [1, C, T', h, w] of a video [1, 3, T, H, W] in -1…1."""


class EncodesText(Protocol):
    """A text encoder: `key` tells it from others."""

    @property
    def key(self) -> str: ...

    def __call__(self, caption: str) -> tuple[Tensor, Tensor]:
        """Features [L, C] and mask [L] (1 = a real token) of a caption as the artist wrote it."""


class Cache:
    """A folder of encoded clips and captions. Several processes may fill it at once.

    Raises OSError, with the folder, the bytes needed and what helps, where nothing can be written.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)

    def latents(self, clip: Clip, cut: Cut, encoder: EncodesVideo) -> Path:
        """The file of a clip's latents, encoded now where it is not there. Errors as `Clip.read` and `clips.fit`."""
        path, about = self._latents_file(clip, cut, encoder.key)
        if not _is_whole(path, LATENTS):
            self._write(path, encode_clip(clip, cut, encoder), about)
        return path

    def text(self, caption: str, encoder: EncodesText) -> Path:
        """The file of a caption's features, encoded now where it is not there."""
        path, about = self._text_file(caption, encoder.key)
        if not _is_whole(path, TEXT):
            features, mask = encoder(caption)
            # Padding means nothing and would be most of the file.
            self._write(path, {"features": features[mask.bool()], "mask": mask.bool()}, about)
        return path

    def has_latents(self, clip: Clip, cut: Cut, encoder: EncodesVideo) -> bool:
        """Whether these latents are there and can be read."""
        return _is_whole(self._latents_file(clip, cut, encoder.key)[0], LATENTS)

    def has_text(self, caption: str, encoder: EncodesText) -> bool:
        """Whether these features are there and can be read."""
        return _is_whole(self._text_file(caption, encoder.key)[0], TEXT)

    def read_latents(self, clip: Clip, cut: Cut, key: str) -> dict[str, Tensor]:
        """As `read_latents`, of a clip that the encoder of this `key` has encoded."""
        return read_latents(self._latents_file(clip, cut, key)[0])

    def read_text(self, caption: str, key: str) -> dict[str, Tensor]:
        """As `read_text`, of a caption that the encoder of this `key` has encoded."""
        return read_text(self._text_file(caption, key)[0])

    def _latents_file(self, clip, cut, key):
        made_of = {"clip": clip.key, "start": clip.start, "cut": asdict(cut), "encoder": key}
        return self._file("latents", made_of, {"source": clip.source})

    def _text_file(self, caption, key):
        return self._file("text", {"caption": caption, "encoder": key}, {})

    def _file(self, kind, made_of, about):
        """(path, what the file says of itself)."""
        made_of = {"format": FORMAT, **made_of}
        key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
        return self.folder / kind / key[:2] / f"{key}.safetensors", {**made_of, **about}

    def _write(self, path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        content = save(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            {"opensora_cache": json.dumps(about)},
        )
        try:
            write_whole(path, lambda file: file.write_bytes(content), durable=False)  # a damaged one is made anew
        except OSError as error:
            if _is_whole(path, tuple(tensors)):  # another process made it meanwhile, and may hold it open
                return
            raise OSError(error.errno, self._cannot_write(error, len(content))) from error

    def _cannot_write(self, error, size):
        whole = self.folder.absolute()
        free = shutil.disk_usage(next(folder for folder in (whole, *whole.parents) if folder.exists())).free
        return (
            f"the cache {self.folder} cannot be written ({error.strerror or error}): the next file needs "
            f"{size / 1e6:.1f} MB, and {free / 1e6:.1f} MB are free; make room, or choose another folder that you may "
            "write to; what is already encoded there is kept"
        )


@torch.no_grad()
def encode_clip(clip: Clip, cut: Cut, encoder: EncodesVideo) -> dict[str, Tensor]:
    """Latents [C, T', h, w] of the cut, has_still bool [T'], and stills [C, n, h, w] for its n true entries.

    A single frame is a picture, and has no stills. Errors as `Clip.read` and `clips.fit`; ValueError where the encoder
    counts otherwise than it says.
    """
    frames = clip.read(cut.frames)
    picture = len(frames) == 1
    pixels = frames[0].movedim(0, -1) if picture else frames
    fitted = fit(pixels, cut.height, cut.width, cut.mode, cut.version)
    video = (fitted[None] if picture else fitted).movedim(0, 1)[None]
    latents = encoder(video)[0]
    encoder.counting.refuse_mismatch(len(frames), latents.shape[1])
    stills = {} if picture else _stills(video, encoder, _places(latents.shape[1], clip.key))
    return {
        "latents": latents,
        "stills": latents[:, :0] if picture else torch.stack([stills[at] for at in sorted(stills)], dim=1),
        "has_still": torch.tensor([at in stills for at in range(latents.shape[1])]),
    }


def _places(count, key):
    """Which of `count` latents get stills: the first, the last, and one between, another in each clip."""
    between = range(1, count - 1)
    return {0, count - 1, *([between[int(key[:8], 16) % len(between)]] if between else [])}


def _stills(video, encoder, places):
    """{latent: [C, h, w]}: what a lone image gets that is pinned where each of `places` ends."""
    groups, found = encoder.counting.groups(video.shape[2]), {}
    for place in places:
        frame = groups[place].stop - 1
        for images, wanted in pieces(groups, frame, 1, encoder.counting.chunk_latents):
            encoded = encoder(video[:, :, frame + images])[0]
            found.update((index, encoded[:, at]) for index, at in wanted.items())
    return found


def read_latents(path: str | os.PathLike) -> dict[str, Tensor]:
    """latents and stills [C, T', h, w], zero where there is no still, and has_still bool [T'].

    Raises ValueError for a file that cannot be read, with what helps.
    """
    found = _read(path, LATENTS)
    stills = torch.zeros_like(found["latents"])
    stills[:, found["has_still"]] = found["stills"]
    return {**found, "stills": stills}


def read_text(path: str | os.PathLike) -> dict[str, Tensor]:
    """features [L, C], zero in the padding, and mask [L] (1 = a real token). Errors as `read_latents`."""
    found = _read(path, TEXT)
    features = found["features"].new_zeros(len(found["mask"]), found["features"].shape[1])
    features[found["mask"]] = found["features"]
    return {"features": features, "mask": found["mask"].long()}


def _read(path, names):
    try:
        found = load(Path(path).read_bytes())  # not mapped: what a mapped file loses ends the program
        return {name: found[name] for name in names}
    except (OSError, SafetensorError, KeyError) as error:
        raise ValueError(
            f"{path} is no readable file of the cache ({error}); delete it, and the next start makes it anew"
        ) from error


def _is_whole(path, names):
    """Whether a file has these tensors in full; the header says how long it has to be."""
    try:
        with safe_open(path, framework="pt") as file:
            return set(names) <= set(file.keys())
    except (OSError, SafetensorError):
        return False
