"""What the command line and the graph start a run from, and what they make of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...model.frames import Counting
from ..config import Config
from ..data.cache import EncodesText, EncodesVideo
from ..data.dataset import Clip
from ..data.h264 import write as write_video
from ..sampling import sample
from ..setup import belongs_to, examples_of, objective_of, settings_in_file, shapes_of, write_result
from ..trainer.processes import Processes
from ..trainer.trainer import Trainer

FPS = 24  # of samples


class Project:
    """Settings with clips and a network: the examples in their shapes, the objective, the trainer, the file at the end.

    Args:
        network: what will be trained; here it is only asked what it is.
        about: what its file says of itself.
        counting: how the VAE counts frames.

    Raises ValueError for settings that do not suit the network or the clips.
    """

    def __init__(
        self, config: Config, clips: Sequence[Clip], network: Any, about: Mapping[str, Any], counting: Counting
    ) -> None:
        self.config, self.about, self.counting = config, about, counting
        self.objective = objective_of(config, network, about)
        self.shapes = shapes_of(config, about, clips, counting, network.version)
        self.examples, self.held_back = examples_of(config, clips, self.shapes)

    def prepare(
        self, video: EncodesVideo, text: EncodesText, tell: Callable[..., Any], rank: int = 0, count: int = 1
    ) -> None:
        """Fill the cache; arguments as `Examples.prepare`."""
        for examples in (self.examples, self.held_back):
            examples.prepare(video, text, tell, rank, count)

    def belongs_to(self, network: nn.Module) -> dict[str, Any]:
        """What a checkpoint must agree with for this run to go on from it."""
        return belongs_to(self.config, self.examples, network)

    def trainer(self, network: nn.Module, processes: Processes, **hooks: Any) -> Trainer:
        """The trainer of a network that `setup.make_trainable` has given what learns; `hooks` as `Trainer` has them."""
        return Trainer(
            network,
            self.examples,
            self.objective,
            self.config.train,
            self.config.save,
            validation=self.held_back,
            about=self.belongs_to(network),
            budget=self.config.shape.budget,
            processes=processes,
            **hooks,
        )

    def write(self, network: nn.Module, path: Path, result: Mapping[str, float], **metadata: str) -> Path:
        """Write what was trained, with how it was made; `result` as `Trainer.run` gives it. Returns the path."""
        told = settings_in_file(self.config, self.examples, result)
        return write_result(network, self.config, self.about, path, **metadata, **told)

    @torch.no_grad()
    def sample(
        self, network: nn.Module, texts: Sequence[tuple[Tensor, Tensor]], decode: Callable[[Tensor, int], Tensor],
        path: Callable[[int], Path], *, seed: int = 0, written: Callable[[], Any] = lambda: None,
    ) -> list[Path]:  # fmt: skip
        """Clips of captions, each from the noise of `seed` and its number, in the longest shape of the data set.

        Args:
            texts: features [L, C] and mask [L] of each caption.
            decode: latents [1, C, T, h, w] and a number of frames → frames [T, H, W, 3] in 0…1.
            path: of a clip by its number; `written` is called behind each.
        """
        shape = max((self.examples.shape(i, 0) for i in range(len(self.examples))), key=lambda one: one.frames)
        paths = []
        for number, (features, mask) in enumerate(texts):
            latents = sample(
                network, features, mask, counting=self.counting, height=shape.height, width=shape.width,
                num_frames=shape.frames, seed=seed + number, flow_settings=dict(self.objective.flow),
            )  # fmt: skip
            frames = (decode(latents, shape.frames).clamp(0, 1) * 255).round().to(torch.uint8).cpu()
            paths.append(write_video(path(number), frames.numpy(), FPS))
            written()
        return paths
