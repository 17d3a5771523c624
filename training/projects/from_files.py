"""A run of the command line: a configuration, with the files that it names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from .. import config as configuration
from .. import lora
from ..checkpoints import write
from ..config import Config
from ..data import preflight
from ..data.dataset import Clip, LeftOut, read_folder, read_manifest
from ..data.encoders import TextEncoder, VideoEncoder
from ..setup import make_trainable, open_network, preflight_rows, refuse_misfits
from ..start import FAMILIES
from ..trainer.learner import learner_of
from ..trainer.processes import Processes
from ..trainer.resuming import refuse_another
from ..trainer.trial import in_words, named, trial
from .project import Project

SAMPLES = 4  # captions of the data set that are sampled where no prompts are given


class ProjectOfFiles(Project):
    """A configuration with everything it names opened, by all processes of a run. Errors name the field."""

    def __init__(self, config: Config, device: str | None = None) -> None:
        self.processes = Processes(device)
        clips, self.left_out = read_clips(config)
        self.network, about = open_network(config)
        network: Any = self.network
        self.encoder = VideoEncoder(config.model.vae, device=self.processes.device)
        version = network.version if network.version in FAMILIES else "1.0"  # an image model reads captions as 1.0
        self.reader = TextEncoder(
            config.model.text_encoder, config.model.tokenizer or None, network.max_caption_length, version
        )
        refuse_misfits(network, self.encoder.latent_channels, self.reader.config["d_model"])
        super().__init__(config, clips, network, about, self.encoder.counting)
        self.folder = Path(config.save.folder)

    def _progress(self, done, total, name):
        if self.processes.first and name:
            print(f"\rencoding {done + 1} of {total}: {Path(name).name[:50]:50}", end="", flush=True)
        elif self.processes.first:
            print(f"\r{total} stretches are encoded{'':50}", flush=True)

    def try_out(self) -> list[str]:
        """Time and memory of the run, in words: one step of its largest batch is tried on made-up latents."""
        network = make_trainable(self.network, self.config.train)
        learner = learner_of(network.to(self.processes.device), self.objective, self.config.train)
        budget, counting = self.config.shape.budget, self.shapes.counting
        steps = self.examples.steps(0, accumulate=self.config.train.accumulate, budget=budget)
        largest = [shape for _, shape in self.examples.largest(budget)]
        taken = trial(learner, largest, counting, self.config.train)
        return in_words(*taken, self.config.train.steps, len(steps), named(largest, counting))

    def preflight(self, lines: Sequence[str] = ()) -> Path:
        """Draw what will be trained on into the run's folder, `lines` above; returns the picture's path."""
        path = self.folder / "preflight.png"
        picture = preflight.picture(preflight_rows(self.examples, self.held_back), self.left_out, lines=lines)
        write(path, lambda temporary: picture.save(temporary, "PNG"))
        for one in self.left_out:
            print(f"left out: {one.name}: {one.reason}")
        return path

    def train(self) -> Path | None:
        """Train to the end, or until it is stopped; returns the file with the result, in the process that writes it.

        None in the others, and where it was stopped before the first step.
        """
        network = make_trainable(self.network, self.config.train)
        refuse_another(self.folder, self.belongs_to(network))
        if self.processes.first:
            print(self.preflight())
            configuration.write(self.config, self.folder / "config.yaml")
        self.prepare(self.encoder, self.reader, self._progress, self.processes.rank, self.processes.count)
        self.processes.wait()
        trainer = self.trainer(
            network, self.processes, on_step=self._say,
            sample=lambda network, step: self._show(network, f"step-{step:06d}"),
        )  # fmt: skip
        result = trainer.run()
        path = self._end(trainer, result) if self.processes.first else None
        self.processes.part()
        return path

    def _end(self, trainer, result):
        if not trainer.step:
            print("stopped before the first step: there is nothing to write yet")
            return None
        trainer.result()
        print(f"the weights of step {result['step']} are the result")
        return self.write(trainer.network, self._path(), result)

    def _path(self):
        return self.folder / f"{self.config.train.kind}.safetensors"

    def _say(self, entry: dict[str, Any]) -> None:
        if self.processes.first:
            print(
                json.dumps({name: round(v, 6) if isinstance(v, float) else v for name, v in entry.items()}), flush=True
            )

    def show(self, prompt: str | None, seed: int) -> list[Path]:
        """Clips by the run's result so far, or by the model as it is where there is none; returns their paths."""
        network = self.network
        path = self._path()
        if path.exists() and self.config.train.kind == "lora":
            network = make_trainable(network, self.config.train)
            lora.load_state_dict(network, load_file(path))
        elif path.exists():
            network.load_state_dict(load_file(path))
        return self._show(network.to(self.processes.device), f"sample-{seed}", [prompt] if prompt else None, seed)

    def _show(self, network, name, prompts=None, seed=0) -> list[Path]:
        captions = [clip.caption for clip in (*self.held_back.clips, *self.examples.clips)]
        texts = [self.reader(prompt) for prompt in prompts or self.config.save.prompts or captions[:SAMPLES]]
        folder = self.folder / "samples"
        return self.sample(network, texts, self._frames, lambda number: folder / f"{name}-{number}.mp4", seed=seed)

    def _frames(self, latents, num_frames):
        return (self.encoder.decode(latents, num_frames)[0].movedim(0, -1) + 1) / 2


def read_clips(config: Config) -> tuple[list[Clip], list[LeftOut]]:
    """The clips that the configuration names, and what cannot be used.

    Raises ValueError where no path is given, where there is nothing, and where nothing can be used.
    """
    path = config.data.path
    if not path:
        raise ValueError("data.path is empty; it must be a folder of clips with captions, or a manifest")
    clips, left_out = (read_folder if Path(path).is_dir() else read_manifest)(path, config.data.trigger.strip())
    if not clips:
        reasons = "; ".join(f"{one.name}: {one.reason}" for one in left_out[:5])
        raise ValueError(f"data.path: of {len(left_out)} files in {path} none can be used: {reasons}")
    return clips, left_out
