"""A training run in the midst of ComfyUI: a MODEL's weights, a folder of the run, progress, interrupt, the LoRA."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import comfy.model_management as management
import comfy.sd
import safetensors.torch
import torch
from comfy.model_patcher import ModelPatcher

from ....model import load_transformer
from ....training import lora
from ....training.checkpoints import entries
from ....training.config import from_mapping, to_mapping
from ....training.data.h264 import write as write_video
from ....training.sampling import sample
from ....training.setup import (
    belongs_to,
    examples_of,
    make_trainable,
    objective_of,
    settings_in_file,
    shapes_of,
    write_result,
)
from ....training.trainer.processes import Processes
from ....training.trainer.stopping import Stopped, stoppable
from ....training.trainer.trainer import Trainer
from ..latent import COUNTING
from ..text.encoder import refuse_other_width
from ..transformer.base_model import base_model_of
from ..weights import is_plain
from .data import DataSet, merged, prepare
from .encoders import TextEncoder, VideoEncoder, key_of, weights_of
from .folders import base_folder, cache_folder, check_name, lora_folder
from .progress import Progress
from .result import Training, digest_of, samples_folder
from .settings import refuse_of_graph

PREFIX = "diffusion_model."
FREE = ("steps", "workers")  # of how weights move: what may change without another run beginning


class Run:
    """A MODEL, a data set and settings, checked, with what they train; `train` does it.

    Args:
        settings: a tree of `training.config` over the data set's own.
        name: of the LoRA's file.

    Raises ValueError for models that do not go together, for settings beyond their range, and for an empty data set.
    """

    def __init__(self, model: ModelPatcher, data: DataSet, name: str, settings: Mapping[str, Any]) -> None:
        check_name(name)
        self.model, self.data, self.name = model, data, name
        base, self.video = base_model_of(model), VideoEncoder(data.vae)
        network = base.diffusion_model
        _refuse_misfits(base, data, self.video)
        self.text = TextEncoder(data.clip, network.max_caption_length)
        self.about = base.metadata
        config = self._config(settings)
        self.objective = objective_of(config, network, self.about)
        shapes = shapes_of(config, self.about, data.clips, self.video.counting, network.version)
        self.examples, self.held_back = examples_of(config, data.clips, shapes)
        self.prompts = config.save.prompts or [clip.caption for clip in self.examples.clips[:2]]
        self.folder = self._folder(config)
        self.config = dataclasses.replace(config, save=dataclasses.replace(config.save, folder=str(self.folder)))

    def _config(self, settings):
        refuse_of_graph(settings)
        own = {"data": {"cache": str(cache_folder())}, "train": {"kind": "lora"}}
        return from_mapping(merged(own, self.data.sections, settings))

    def _folder(self, config):
        """A folder for all that must agree for a run to go on; one that went further than is asked for stays alone."""
        train = {name: value for name, value in to_mapping(config)["train"].items() if name not in FREE}
        agrees = {
            "model": key_of(self.model), "vae": self.video.key, "text": self.text.key, "train": train,
            "clips": self.examples.fingerprint, "held back": self.held_back.fingerprint,
            **{part: to_mapping(config)[part] for part in ("data", "shape", "objective")},
        }  # fmt: skip
        agrees["data"].pop("cache")
        folder = base_folder() / f"{self.name}-{digest_of(agrees)}"
        done = max((line["step"] for line in entries(folder / "log.jsonl")), default=0)
        return folder if done <= config.train.steps else folder.with_name(f"{folder.name}-{config.train.steps}")

    # --- the run

    def train(self, metadata: Mapping[str, str]) -> tuple[Training, dict[str, torch.Tensor]]:
        """(what the run left, the LoRA by its keys); goes on where it was stopped, and does nothing over again.

        `metadata` of the graph goes into the file. Interrupted, it saves where it is and raises ComfyUI's interrupt.
        """
        for examples in (self.examples, self.held_back):
            prepare(examples, self.video, self.text)
        for prompt in self.prompts:
            self.examples.cache.text(prompt, self.text)
        with torch.inference_mode(False), torch.enable_grad():
            network = self._network()
            progress = Progress(samples_folder(self.folder, self.prompts), self.config.train.steps, self.prompts)
            trainer = self._trainer(network, progress)
            before = entries(self.folder / "log.jsonl")
            progress.begin(before)
            if self.config.save.sample_every and not before:
                self._sample(network, 0, progress)
            result = trainer.run()
            management.throw_exception_if_processing_interrupted()
            trainer.result()
            if self.config.save.sample_every and not progress.has(trainer.step):
                self._sample(network, trainer.step, progress)
            told = {**metadata, **settings_in_file(self.config, self.examples, result)}
            path = self._write(network, told)
            found = {key: value.detach().cpu().clone() for key, value in lora.state_dict(network).items()}
        return Training(self.folder, entries(self.folder / "log.jsonl"), self.prompts, path, len(self.examples)), found

    def _network(self):
        """A network of model/ with the MODEL's weights as they count, and what learns in it; other models make room."""
        weights = weights_of(self.model, PREFIX)
        quantised = [key for key, value in weights.items() if not is_plain(value)]
        if quantised:
            raise ValueError(
                f"model is quantised ({quantised[0]}, …), and such weights cannot be trained on; load its bf16, fp16 "
                "or fp32 file"
            )
        own = {key: value.to("cpu", torch.float32, copy=True) for key, value in weights.items()}
        management.unload_all_models()
        management.soft_empty_cache()
        return make_trainable(load_transformer(own, self.about.get("config")), self.config.train)

    def _trainer(self, network, progress):
        return Trainer(
            network,
            self.examples,
            self.objective,
            self.config.train,
            self.config.save,
            validation=self.held_back,
            about=belongs_to(self.config, self.examples, network),
            budget=self.config.shape.budget,
            processes=Processes(management.get_torch_device()),
            sample=lambda network, step: self._sample(network, step, progress),
            on_step=progress.step,
            asked=management.processing_interrupted,
            say=progress.say,
        )

    def _sample(self, network, step, progress):
        """Clips of the prompts, always from the same noise; an interrupt leaves the rest of them out."""
        shape = max((self.examples.shape(i, 0) for i in range(len(self.examples))), key=lambda one: one.frames)
        with contextlib.suppress(Stopped), stoppable(network, management.processing_interrupted):
            for number, prompt in enumerate(self.prompts):
                text = self.examples.cache.read_text(prompt, self.text.key)
                latents = sample(
                    network, text["features"].float(), text["mask"], counting=self.video.counting, height=shape.height,
                    width=shape.width, num_frames=shape.frames, seed=number, flow_settings=dict(self.objective.flow),
                )  # fmt: skip
                with torch.inference_mode():
                    frames = (self.video.decode(latents, shape.frames) * 255).round().to(torch.uint8)
                path = progress.samples / f"step-{step:06d}-{number}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_video(path, frames.numpy(), 24)
                progress.sampled()

    def _write(self, network, metadata):
        """The LoRA in ComfyUI's folder, under a number where another one has its name; the same one is written once."""
        folder, number = lora_folder(), 1
        while True:
            path = folder / (f"{self.name}.safetensors" if number == 1 else f"{self.name}_{number:05d}.safetensors")
            if not path.exists():
                return write_result(network, self.config, self.about, path, **metadata)
            if _same(path, lora.state_dict(network)):
                return path
            number += 1


def patched(model: ModelPatcher, found: Mapping[str, torch.Tensor]) -> ModelPatcher:
    """MODEL with the LoRA at strength 1, as ComfyUI's loaders put it there."""
    return comfy.sd.load_lora_for_models(model, None, dict(found), 1.0, 0.0)[0]


def _refuse_misfits(base, data, video):
    network = base.diffusion_model
    counting, channels = COUNTING[base.version], base.latent_format.latent_channels
    if video.network.latent_channels != channels or video.counting != counting:
        raise ValueError(
            f"dataset was encoded by a VAE of {video.network.latent_channels} channels ({video.network.family}), and "
            f"model, Open-Sora {base.version}, reads {channels} of another VAE; give the data set the VAE of this model"
        )
    refuse_other_width(data.clip, network)


def _same(path, tensors):
    """Whether a file holds these tensors, bit for bit."""
    try:
        found = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError):
        return False
    return found.keys() == tensors.keys() and all(torch.equal(found[key], tensors[key].cpu()) for key in tensors)
