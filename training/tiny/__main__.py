"""The stages that make the tiny bundled model from nothing, and the command line that runs them."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import numpy
import torch

from ...model import load_transformer, load_vae
from ...model.files import read_file
from ...model.transformers.layers import matmul_attention
from ...model.transformers.stdit3 import STDiT3
from ...model.vaes.v1_2 import VideoVAE
from .. import checkpoints
from ..contact_sheet import contact_sheet, pictures, save_small
from ..data.encoders import TextEncoder
from ..export import export, tell_more
from ..trainer.processes import Processes
from . import latents, recipe
from . import text_encoder as text
from .evaluate import evaluate, evaluate_in_betweens
from .examples import PARTIAL_CAPTIONS, Rendered
from .pipeline import Pipeline
from .polish import polish
from .previews import KEYS, fit_network, preview_colors
from .recipe import Recipe
from .refine import refine
from .shapes import RESOLUTIONS
from .transformer import calibrate, train_transformer
from .vae import held_out_psnr, train_vae

STAGES = ("text_encoder", "vae", "latents", "teacher", "transformer", "polish", "previews", "evaluate")
SHARED = ("teacher", "transformer")  # between the processes of a run; the other stages are the first one's
# What goes into the pack, and the stage's file that it is.
INSTALLED = {"text_encoder": "text_encoder", "vae": "polish", "transformer": "previews"}


def write(
    state_dict: dict[str, torch.Tensor], folder: Path, name: str, kind: str, family: str, title: str, **about: Any
) -> None:
    """Export one of the three files, as `name`."""
    about = {"kind": kind, "family": family, "title": f"{title} of the moving shapes", **recipe.ABOUT, **about}
    export(state_dict, folder / f"{name}.safetensors", recipe.EXACT, **about)


def copy(source: Path, path: Path) -> None:
    """A file under another name, whole or not at all."""
    checkpoints.write(path, lambda temporary: shutil.copyfile(source, temporary))


@dataclass(frozen=True)
class Stages:
    """The stages by name; each leaves its file, or its folder, in `folder`, and goes on where it was stopped."""

    folder: Path
    tokenizer: str
    recipe: Recipe
    processes: Processes
    part: tuple[int, int] = (0, 1)
    from_bundled: bool = False

    def text_encoder(self) -> None:
        """Train the tiny T5."""
        amounts = self.recipe.text_encoder_steps, self.recipe.captions
        state_dict, config = text.train_text_encoder(self.folder / "text_encoder", self.tokenizer, *amounts)
        write(state_dict, self.folder, "text_encoder", "text_encoder", "t5", "Tiny T5", config=config)
        for name, change in (("plain", None), ("suffixes", text.add_suffixes), ("disturbed", text.disturb)):
            scores = text.evaluate(self.open_text_encoder(), count=16 * self.recipe.trials, change=change)
            print(name, ", ".join(f"{key} {value:.4f}" for key, value in scores.items()), flush=True)

    def vae(self) -> None:
        """Train the tiny VAE, with a preview's colours fitted on its own decodes."""
        count = self.recipe.vae_clips
        vae = train_vae(self.folder / "vae", self.recipe.vae_steps, self.recipe.vae_batch, clip_count=count)
        vae = refine(self.folder / "refine", vae, self.recipe.refine_steps)
        samples = latents.encode_bucket(vae, numpy.random.default_rng(1), min(192, count), *RESOLUTIONS[0], 17).latents
        self._write_vae(vae, "vae", preview_colors(vae, samples))

    def latents(self) -> None:
        """Encode the clips of the transformer's training, and those that it is judged by."""
        vae, _ = self.open_vae()
        latents.build(vae, self.folder / "latents", self.recipe.clips, parts=self.part)
        if self.part[0] == 0:
            latents.build(vae, self.folder / "latents" / "held_out", self.recipe.held_out, split="held_out")

    def teacher(self) -> None:
        """Train the tiny STDiT3 on the encoded clips."""
        start = read_file(recipe.BUNDLED / "transformer.safetensors")[0] if self.from_bundled else None
        held_out = Rendered(latents.load(self.folder / "latents" / "held_out"), self.open_text_encoder())
        steps, folder = self.recipe.teacher_steps, self.folder / "teacher"
        self._write_transformer(
            train_transformer(folder, self._clips(), held_out, steps, start, self.processes), "teacher"
        )

    def transformer(self) -> None:
        """Move the teacher's best guidance to the nodes' default."""
        clips = self._clips(batch=max(1, self.recipe.batch // 2), seed=1)
        steps, folder = self.recipe.transformer_steps, self.folder / "transformer"
        student = calibrate(folder, self.open_transformer("teacher"), clips, steps, self.processes)
        self._write_transformer(student, "transformer")

    def polish(self) -> None:
        """Train the VAE's decoders on what the teacher samples."""
        (vae, about), clips, teacher = self.open_vae(), self._clips(partial=0.0), self.open_transformer("teacher")
        amounts = {"steps": self.recipe.polish_steps, "count": self.recipe.polish_clips}
        self._write_vae(polish(self.folder / "polish", vae, teacher, clips, **amounts), "polish", about)

    def previews(self) -> None:
        """Learn the colours of previews from the finished files; the result is the transformer with them."""
        factors, bias = (self.open_vae("polish")[1][key] for key in KEYS[:2])
        amounts = self.recipe.previews_clips, self.recipe.previews_steps
        network = fit_network(self.folder / "previews", self.open_pipeline(), factors, bias, *amounts)
        paths = (self.folder / f"{name}.safetensors" for name in ("transformer", "previews"))
        tell_more(*paths, latent_rgb_network=network.to_text())

    def evaluate(self) -> None:
        """Score the exported files on held-out captions; scores.json, and a contact sheet of the first 24 samples."""
        pipeline, count = self.open_pipeline(), self.recipe.trials
        scores, videos, trials = evaluate(pipeline, count)
        scores |= evaluate_in_betweens(pipeline, min(48, count))
        for name, frames in (("vae_psnr", 17), ("vae_psnr_34_frames", 34)):
            scores[name] = held_out_psnr(pipeline.vae, min(24, count), frames)
        told = json.dumps(scores, indent=1)
        checkpoints.write(self.folder / "scores.json", lambda path: path.write_text(told))
        sheet = contact_sheet([pictures(video) for video in videos[:24]], [trial.text for trial in trials[:24]])
        save_small(sheet, self.folder / "contact_sheet.png")
        print(told)

    def install(self) -> None:
        """Copy the finished files into the pack."""
        for name, stage in INSTALLED.items():
            copy(self.folder / f"{stage}.safetensors", recipe.BUNDLED / f"{name}.safetensors")

    def begin_with_bundled(self) -> None:
        """The pack's own text encoder and VAE in place of those that would be trained."""
        for name in ("text_encoder.safetensors", "vae.safetensors"):
            if not (self.folder / name).exists():
                copy(recipe.BUNDLED / name, self.folder / name)

    # What the stages have made

    def open_text_encoder(self) -> TextEncoder:
        """The exported text encoder, in fp32."""
        return TextEncoder(self.folder / "text_encoder.safetensors", self.tokenizer)

    def open_vae(self, name: str = "vae") -> tuple[VideoVAE, dict[str, Any]]:
        """An exported VAE, in fp32, and what its metadata say."""
        state_dict, metadata = read_file(self.folder / f"{name}.safetensors")
        about = metadata["opensora"]
        return cast(VideoVAE, load_vae({k: v.float() for k, v in state_dict.items()}, about["config"])), about

    def open_transformer(self, name: str) -> STDiT3:
        """An exported transformer, in fp32."""
        state_dict, _ = read_file(self.folder / f"{name}.safetensors")
        weights = {key: value.float() for key, value in state_dict.items()}
        return cast(STDiT3, load_transformer(weights, attention=matmul_attention))

    def open_pipeline(self) -> Pipeline:
        """The finished files as text to video."""
        vae, _ = self.open_vae("polish")
        return Pipeline(self.open_transformer("transformer"), vae, self.open_text_encoder(), recipe.FLOW)

    def _clips(self, batch=0, seed=0, partial=PARTIAL_CAPTIONS):
        buckets = latents.load(self.folder / "latents")
        return Rendered(buckets, self.open_text_encoder(), batch or self.recipe.batch, seed, partial)

    def _write_vae(self, vae, name, about):
        groups = {f"{part}_norm_groups": getattr(recipe.VAE, part).norm_groups for part in ("spatial", "temporal")}
        colors = {key: about[key] for key in KEYS}
        write(vae.state_dict(), self.folder, name, "vae", vae.family, "Tiny video VAE", config=groups, **colors)

    def _write_transformer(self, transformer, name):
        if self.processes.first:
            colors = {key: self.open_vae()[1][key] for key in KEYS}
            about = {"config": {}, "flow": recipe.FLOW, **colors}
            weights, family = transformer.state_dict(), transformer.family
            write(weights, self.folder, name, "transformer", family, "Tiny STDiT3", **about)


def main() -> None:
    """Run the stages that have not run yet in `--folder`; stop and start again at will."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--tokenizer", required=True, help="folder of the T5 tokenizer, as ComfyUI brings it")
    parser.add_argument("--folder", type=Path, default=Path("tiny_run"), help="where checkpoints and logs go")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="which stages to run")
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), help="encode part I of N of the clips")
    parser.add_argument(
        "--from-bundled", action="store_true", help="go on from the pack's own files: train on, not anew"
    )
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: PyTorch's choice")
    parser.add_argument("--install", action="store_true", help="copy the finished files into the pack")
    for one in fields(Recipe):
        several: dict[str, Any] = {"nargs": len(one.default)} if isinstance(one.default, tuple) else {}
        name, help = f"--{one.name.replace('_', '-')}", f"{one.metadata['help']} (%(default)s)"
        parser.add_argument(name, type=int, default=one.default, help=help, **several)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    options.folder.mkdir(parents=True, exist_ok=True)
    amounts = Recipe(**{one.name: getattr(options, one.name) for one in fields(Recipe)})
    # Started by torchrun, the transformer's batches are split over processes.
    stages = Stages(
        options.folder, options.tokenizer, amounts, Processes("cpu"), tuple(options.part), options.from_bundled
    )
    if options.from_bundled:
        stages.begin_with_bundled()
    for stage in options.stages:
        if stages.processes.first or stage in SHARED:
            run(stages, stage)
        stages.processes.wait()
    if options.install and stages.processes.first:
        stages.install()
    stages.processes.part()


def run(stages: Stages, stage: str) -> None:
    """Run a stage, unless what it makes is there."""
    if (stages.folder / f"{stage}.safetensors").exists():
        return
    started = time.monotonic()
    getattr(stages, stage)()
    print(f"{stage}: {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
