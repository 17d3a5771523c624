"""How much moves: the mean length of optical flow, by OpenCV's DIS, or by RAFT where its weights are given.

Methods differ in scale, so each has a column of its own. What is compared is the original's: frames 10 apart, at
320 x 576 pixels. (The original's method, UniMatch, is none of the two.)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch

from .packages import opencv
from .places import every
from .weights import Lazy, digest_of, weights_of

HEIGHT, WIDTH = 320, 576
PURPOSE = "motion by DIS flow"


class Sampling(NamedTuple):
    """How many frames of a shot are looked at, and how far apart they are."""

    most: int
    stride: int


SAMPLINGS = {"1.1": Sampling(4, 10), "1.2": Sampling(4, 10), "1.3": Sampling(10, 15)}


class Flow:
    """Mean length of the flow vectors, over pixels and pairs of frames, in pixels of a frame of 320 x 576.

    Args:
        version: the generation whose frames are compared: 0, 10, 20, 30 of a shot (1.1, 1.2), or ten of them 15 apart
            (1.3); as many of these as the shot has. Of a shot that is shorter than the first distance the first and
            the last frame are compared, so that it scores less than a longer one of the same speed.

    A picture has no motion: None. Raises ValueError for another version.
    """

    name = ""

    def __init__(self, version: str = "1.2") -> None:
        if version not in SAMPLINGS:
            raise ValueError(f'version is "{version}"; motion is compared as in {", ".join(SAMPLINGS)}')
        self.version, self.sampling, self.columns = version, SAMPLINGS[version], (self.name,)

    @property
    def key(self) -> str:
        """Name and settings."""
        return f"{self.name} {self.sampling.most}x{self.sampling.stride}"

    def frames(self, total: int, fps: float) -> list[int]:
        """As in `Flow`; none of a picture."""
        if total < 2:
            return []
        found = every(total, self.sampling.stride, self.sampling.most)
        return found if len(found) > 1 else [0, total - 1]

    def reduce(self, frame: numpy.ndarray) -> Any:
        """A frame uint8 [H, W, 3] as `between` takes it, at 320 x 576; tall ones lie on their side."""
        raise NotImplementedError

    def score(self, frames: Sequence[Any], fps: float) -> dict[str, float | int | str | None]:
        """{the column: pixels, or None}, of reduced frames."""
        if len(frames) < 2:
            return {self.name: None}
        lengths = [numpy.linalg.norm(self.between(*pair), axis=-1).mean() for pair in zip(frames, frames[1:])]
        return {self.name: float(numpy.mean(lengths))}

    def between(self, first: Any, second: Any) -> numpy.ndarray:
        """How far each pixel of `first` moves until `second`, in pixels across and down: [320, 576, 2]."""
        raise NotImplementedError


class FlowDIS(Flow):
    """Flow by dense inverse search (arXiv 1603.03590), OpenCV's, at its preset "medium".

    Raises ValueError where OpenCV is missing.
    """

    name = "flow_dis"

    def __init__(self, version: str = "1.2") -> None:
        super().__init__(version)
        opencv(PURPOSE)

    def reduce(self, frame: numpy.ndarray) -> numpy.ndarray:
        """uint8 [320, 576], grey: what this method compares."""
        cv2 = opencv(PURPOSE)
        return cv2.cvtColor(
            cv2.resize(lying(frame), (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR), cv2.COLOR_RGB2GRAY
        )

    def between(self, first: numpy.ndarray, second: numpy.ndarray) -> numpy.ndarray:
        """As `Flow.between`."""
        cv2 = opencv(PURPOSE)
        return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(first, second, None)


class FlowRAFT(Flow):
    """Flow by RAFT (arXiv 2003.12039), torchvision's.

    Args:
        weights: a file of torchvision's raft_large or raft_small; which one, its shapes tell.
        version: as in `Flow`.
        device: where it runs.

    Raises ValueError for a file that is neither.
    """

    name = "flow_raft"

    def __init__(self, weights: str | Path, version: str = "1.2", device: str = "cpu") -> None:
        super().__init__(version)
        self.weights, self.device = Path(weights), device
        self.digest, self.network = digest_of(weights), Lazy(raft, self.weights, device)

    @property
    def key(self) -> str:
        """Name, settings and the sha256 of the weights."""
        return f"{super().key} {self.digest}"

    def reduce(self, frame: numpy.ndarray) -> torch.Tensor:
        """[1, 3, 320, 576] in -1…1."""
        pixels = torch.from_numpy(numpy.array(lying(frame), order="C")).movedim(-1, 0)[None].to(self.device)
        size = (HEIGHT, WIDTH)
        return torch.nn.functional.interpolate(pixels.float() / 127.5 - 1, size, mode="bilinear", align_corners=False)

    @torch.no_grad()
    def between(self, first: torch.Tensor, second: torch.Tensor) -> numpy.ndarray:
        """As `Flow.between`."""
        return self.network()(first, second)[-1][0].movedim(0, -1).float().cpu().numpy()


def lying(frame: numpy.ndarray) -> numpy.ndarray:
    """A frame [H, W, 3] with its longer side across: tall ones are transposed."""
    return frame.swapaxes(0, 1) if frame.shape[0] > frame.shape[1] else frame


def raft(path: Path, device: str = "cpu") -> torch.nn.Module:
    """torchvision's RAFT, large or small, with a file's weights, on a device. ValueError where they fit neither."""
    from torchvision.models import optical_flow

    weights = weights_of(path)
    for build in (optical_flow.raft_large, optical_flow.raft_small):
        network = build(weights=None)
        wanted = {name: value.shape for name, value in network.state_dict().items()}
        if wanted == {name: value.shape for name, value in weights.items()}:
            network.load_state_dict(weights)
            return network.eval().requires_grad_(False).to(device)
    raise ValueError(f"{path}: these are no weights of torchvision's raft_large or raft_small; choose a file of one")
