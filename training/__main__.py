"""Command line of training: `python -m <pack>.training train CONFIG`, and preflight, sample and report beside it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from . import config as configuration
from . import lora
from .checkpoints import entries
from .checkpoints import write as write_whole
from .config import Config
from .data import preflight
from .data.dataset import Clip, LeftOut, read_folder, read_manifest
from .data.encoders import TextEncoder, VideoEncoder
from .data.h264 import write as write_video
from .report import curve
from .sampling import sample
from .setup import (
    belongs_to,
    examples_of,
    make_trainable,
    objective_of,
    open_network,
    preflight_rows,
    refuse_misfits,
    settings_in_file,
    shapes_of,
    write_result,
)
from .start import FAMILIES
from .trainer.learner import learner_of
from .trainer.processes import Processes
from .trainer.resuming import refuse_another
from .trainer.trainer import Trainer
from .trainer.trial import in_words, trial

COMMANDS = ("train", "preflight", "sample", "report")
SAMPLES = 4  # captions of the data set that are sampled where no prompts are given


def main(arguments: list[str]) -> int:
    """Run one command; errors that a user can mend are said in a line, exit status 1."""
    parser = argparse.ArgumentParser(prog="training", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    about = {
        "train": "train by CONFIG; go on where a run was stopped",
        "preflight": "show what CONFIG will train on, and what it leaves out, without training",
        "sample": "make a clip with what a run has learned so far",
        "report": "draw the curve of a run",
    }
    for name, words in about.items():
        command = commands.add_parser(name, help=words, description=words)
        command.add_argument("config", metavar="CONFIG", help="a YAML file; train --new writes one")
        command.add_argument("--tokenizer", default="", help="folder of the T5 tokenizer, where CONFIG names none")
        command.add_argument("--device", default=None, help="cpu, cuda, …; left out: the best there is")
        if name == "train":
            command.add_argument("--new", action="store_true", help="write CONFIG with every field and its default")
        if name == "sample":
            command.add_argument("--prompt", help="what to show; left out: the configuration's prompts")
            command.add_argument("--seed", type=int, default=0, help="of the noise")
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except (ValueError, OSError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; what is encoded is kept", file=sys.stderr)
        return 130


def _run(options) -> int:
    if options.command == "train" and options.new:
        if Path(options.config).exists():
            raise ValueError(f"CONFIG is {options.config}, which is there already; give another name")
        configuration.write(Config(), Path(options.config))
        print(f"{options.config} is written; set data.path in it")
        return 0
    config = configuration.read(options.config)
    config = dataclasses.replace(
        config, model=dataclasses.replace(config.model, tokenizer=config.model.tokenizer or options.tokenizer)
    )
    if options.command == "report":
        print(report(config))
        return 0
    project = Project(config, options.device)
    if options.command == "preflight":
        lines = project.try_out()
        print(*lines, project.preflight(lines), sep="\n")
    elif options.command == "train":
        project.train()
    else:
        for path in project.sample(options.prompt, options.seed):
            print(path)
    return 0


def report(config: Config) -> Path:
    """Draw the run's log as curve.png in its folder; returns the path. ValueError where there is no run."""
    folder = Path(config.save.folder)
    lines = entries(folder / "log.jsonl")
    if not lines:
        raise ValueError(f"save.folder: {folder} holds no run; train first, or name the folder of one")
    path = folder / "curve.png"
    write_whole(path, lambda temporary: curve(lines).save(temporary, "PNG"))
    return path


class Project:
    """A configuration with everything it names opened."""

    def __init__(self, config: Config, device: str | None = None) -> None:
        self.config = config
        self.processes = Processes(device)
        self.clips, self.left_out = read_clips(config)
        self.network, self.about = open_network(config)
        self.encoder = VideoEncoder(config.model.vae, device=self.processes.device)
        network: Any = self.network
        self.reader = TextEncoder(
            config.model.text_encoder, config.model.tokenizer or None, network.max_caption_length, self._version()
        )
        refuse_misfits(network, self.encoder.latent_channels, self.reader.config["d_model"])
        self.objective = objective_of(config, network, self.about)
        counting = self.encoder.counting
        self.shapes = shapes_of(config, self.about, self.clips, counting, network.version)
        self.examples, self.held_back = examples_of(config, self.clips, self.shapes)
        self.folder = Path(config.save.folder)

    def _version(self):
        """The generation whose captions the network reads; an image model reads 1.0's."""
        return self.network.version if self.network.version in FAMILIES else "1.0"

    def prepare(self) -> None:
        """Fill the cache; of several processes each encodes its share."""
        for examples in (self.examples, self.held_back):
            examples.prepare(self.encoder, self.reader, self._progress, self.processes.rank, self.processes.count)
        self.processes.wait()

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
        side = counting.latent_side
        latents = [(counting.latent_frames(shape.frames), side(shape.height), side(shape.width)) for shape in largest]
        taken = trial(learner, largest, latents, self.config.train)
        name = f"{len(largest)} of {max(zip(latents, largest), key=lambda one: math.prod(one[0]))[1].name}"
        return in_words(*taken, self.config.train.steps, len(steps), name)

    def preflight(self, lines: Sequence[str] = ()) -> Path:
        """Draw what will be trained on into the run's folder, `lines` above; returns the picture's path."""
        path = self.folder / "preflight.png"
        picture = preflight.picture(preflight_rows(self.examples, self.held_back), self.left_out, lines=lines)
        write_whole(path, lambda temporary: picture.save(temporary, "PNG"))
        for one in self.left_out:
            print(f"left out: {one.name}: {one.reason}")
        return path

    def train(self) -> Path:
        """Train to the end, or until it is stopped; returns the file with the result."""
        network = make_trainable(self.network, self.config.train)
        about = belongs_to(self.config, self.examples, network)
        refuse_another(self.folder, about)
        if self.processes.first:
            print(self.preflight())
            configuration.write(self.config, self.folder / "config.yaml")
        self.prepare()
        trainer = Trainer(
            network,
            self.examples,
            self.objective,
            self.config.train,
            self.config.save,
            validation=self.held_back,
            about=about,
            budget=self.config.shape.budget,
            processes=self.processes,
            sample=lambda network, step: self._show(network, f"step-{step:06d}"),
            on_step=self._say,
        )
        result = trainer.run()
        path = self.folder / f"{self.config.train.kind}.safetensors"
        if self.processes.first and not trainer.step:
            print("stopped before the first step: there is nothing to write yet")
        elif self.processes.first:
            trainer.result()
            write_result(network, self.config, self.about, path, **settings_in_file(self.config, self.examples, result))
            print(f"{path}, step {result['step']}; {report(self.config)}")
        self.processes.wait()
        return path

    def _say(self, entry: dict[str, Any]) -> None:
        if self.processes.first:
            print(
                json.dumps({name: round(v, 6) if isinstance(v, float) else v for name, v in entry.items()}), flush=True
            )

    def sample(self, prompt: str | None, seed: int) -> list[Path]:
        """Clips by the run's result so far, or by the model as it is where there is none; returns their paths."""
        network = self.network
        path = self.folder / f"{self.config.train.kind}.safetensors"
        if path.exists() and self.config.train.kind == "lora":
            network = make_trainable(network, self.config.train)
            lora.load_state_dict(network, _tensors(path))
        elif path.exists():
            network.load_state_dict(_tensors(path))
        return self._show(network.to(self.processes.device), f"sample-{seed}", [prompt] if prompt else None, seed)

    def _prompts(self):
        captions = [clip.caption for clip in (*self.held_back.clips, *self.examples.clips)]
        return self.config.save.prompts or captions[:SAMPLES]

    @torch.no_grad()
    def _show(self, network, name, prompts=None, seed=0) -> list[Path]:
        shape = max((self.examples.shape(i, 0) for i in range(len(self.examples))), key=lambda one: one.frames)
        paths = []
        for number, prompt in enumerate(prompts or self._prompts()):
            features, mask = self.reader(prompt)
            latents = sample(
                network, features, mask, counting=self.encoder.counting, height=shape.height, width=shape.width,
                num_frames=shape.frames, seed=seed + number, flow_settings=dict(self.objective.flow),
            )  # fmt: skip
            video = self.encoder.decode(latents, shape.frames)[0]
            frames = ((video.movedim(0, -1) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu()
            paths.append(self.folder / "samples" / f"{name}-{number}.mp4")
            paths[-1].parent.mkdir(parents=True, exist_ok=True)
            write_video(paths[-1], frames, 24)
        return paths


def _tensors(path):
    import safetensors.torch

    return safetensors.torch.load_file(path)


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
