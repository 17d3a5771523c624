"""The stages that make the tiny bundled model from nothing, and the command line that runs them."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any, cast

import numpy
import safetensors.torch
import torch

from ...model import load_transformer, load_vae
from ...model.files import read_file
from ...model.transformers.layers import matmul_attention
from ...model.transformers.stdit3 import STDiT3
from ...model.vaes.v1_2 import VideoVAE
from ..contact_sheet import contact_sheet, pictures, save_small
from ..export import export, tell_more
from . import latents as latents_module
from . import recipe, t5
from . import text_encoder as text
from .calibrate import calibrate
from .evaluate import evaluate, evaluate_in_betweens
from .pipeline import Pipeline
from .polish import polish
from .previews import KEYS, fit_network, preview_colors
from .refine import refine
from .run import rank
from .shapes import RESOLUTIONS
from .transformer import train_transformer
from .vae import held_out_psnr, train_vae

STAGES = ("text_encoder", "vae", "latents", "teacher", "transformer", "polish", "previews", "evaluate")
# What goes into the pack, and the stage's file that it is.
INSTALLED = {"text_encoder": "text_encoder", "vae": "polish", "transformer": "previews"}


def write(
    state_dict: dict[str, torch.Tensor], folder: Path, name: str, kind: str, family: str, title: str, **about: Any
) -> None:
    """Export one of the three files, as `name`."""
    about = {"kind": kind, "family": family, "title": f"{title} of the moving shapes", **recipe.ABOUT, **about}
    export(state_dict, folder / f"{name}.safetensors", recipe.EXACT, **about)


def make_text_encoder(folder: Path, tokenizer: str) -> None:
    """Train the tiny T5 into folder/text_encoder.safetensors."""
    state_dict, config = text.train_text_encoder(tokenizer)
    write(state_dict, folder, "text_encoder", "text_encoder", "t5", "Tiny T5", config=config)
    for name, change in (("plain", None), ("suffixes", text.add_suffixes), ("disturbed", text.disturb)):
        scores = text.evaluate(*open_text_encoder(folder, tokenizer), change=change)
        print(name, ", ".join(f"{key} {value:.4f}" for key, value in scores.items()), flush=True)


def make_vae(folder: Path, steps: dict[str, Any], refine_steps: dict[str, Any]) -> None:
    """Train the tiny VAE into folder/vae.safetensors, with a preview's colours fitted on its own decodes."""
    vae = refine(folder / "refine", train_vae(folder / "vae", **steps), **refine_steps)
    rng = numpy.random.default_rng(1)
    samples = latents_module.encode_bucket(vae, rng, 192, *RESOLUTIONS[0], 17).latents
    export_vae(vae, folder, "vae", **preview_colors(vae, samples))


def export_vae(vae: VideoVAE, folder: Path, name: str, **about: Any) -> None:
    """Write a VAE with what its metadata say."""
    groups = {f"{part}_norm_groups": getattr(recipe.VAE, part).norm_groups for part in ("spatial", "temporal")}
    write(vae.state_dict(), folder, name, "vae", vae.family, "Tiny video VAE", config=groups, **about)


def open_vae(folder: Path, name: str = "vae") -> tuple[VideoVAE, dict[str, Any]]:
    """An exported VAE, in fp32, and what its metadata say."""
    state_dict, metadata = read_file(folder / f"{name}.safetensors")
    about = metadata["opensora"]
    return cast(VideoVAE, load_vae({k: v.float() for k, v in state_dict.items()}, about["config"])), about


def open_text_encoder(folder: Path, tokenizer: str) -> t5.TextEncoder:
    """The exported text encoder in fp32, and its tokenizer."""
    state_dict = safetensors.torch.load_file(folder / "text_encoder.safetensors")
    return t5.TextEncoder(t5.load_model(state_dict, recipe.TEXT_ENCODER), t5.load_tokenizer(tokenizer))


def open_transformer(folder: Path, name: str) -> STDiT3:
    """An exported transformer, in fp32."""
    state_dict, _ = read_file(folder / f"{name}.safetensors")
    weights = {key: value.float() for key, value in state_dict.items()}
    return cast(STDiT3, load_transformer(weights, attention=matmul_attention))


def make_teacher(folder: Path, tokenizer: str, steps: dict[str, Any], from_bundled: bool = False) -> None:
    """Train the tiny STDiT3 on the encoded clips into folder/teacher.safetensors."""
    if from_bundled:
        steps = {**steps, "start": read_file(recipe.BUNDLED / "transformer.safetensors")[0]}
    buckets = latents_module.load(folder / "latents")
    teacher = train_transformer(folder / "teacher", buckets, open_text_encoder(folder, tokenizer), **steps)
    export_transformer(teacher, folder, "teacher")


def make_transformer(folder: Path, tokenizer: str, steps: dict[str, Any]) -> None:
    """Move the teacher's best guidance to the nodes' default, into folder/transformer.safetensors."""
    buckets = latents_module.load(folder / "latents")
    encoder = open_text_encoder(folder, tokenizer)
    student = calibrate(folder / "transformer", open_transformer(folder, "teacher"), buckets, encoder, **steps)
    export_transformer(student, folder, "transformer")


def make_polish(folder: Path, tokenizer: str, steps: dict[str, Any]) -> None:
    """Train the VAE's decoders on what the teacher samples, into folder/polish.safetensors."""
    vae, about = open_vae(folder)
    buckets = latents_module.load(folder / "latents")
    encoder = open_text_encoder(folder, tokenizer)
    vae = polish(folder / "polish", vae, open_transformer(folder, "teacher"), buckets, encoder, **steps)
    colors = {key: about[key] for key in KEYS}
    export_vae(vae, folder, "polish", **colors)


def export_transformer(transformer: STDiT3, folder: Path, name: str) -> None:
    """Write a transformer with what its metadata say, once in a run of several processes."""
    if rank() != 0:
        return
    about = open_vae(folder)[1]
    colors = {key: about[key] for key in KEYS}
    weights, family = transformer.state_dict(), transformer.family
    write(weights, folder, name, "transformer", family, "Tiny STDiT3", config={}, flow=recipe.FLOW, **colors)


def open_pipeline(folder: Path, tokenizer: str) -> Pipeline:
    """The finished files as text to video."""
    vae, _ = open_vae(folder, "polish")
    return Pipeline(open_transformer(folder, "transformer"), vae, open_text_encoder(folder, tokenizer), recipe.FLOW)


def make_previews(folder: Path, tokenizer: str, steps: dict[str, Any]) -> None:
    """Learn the colours of previews from the finished files; previews.safetensors is the transformer with them."""
    factors, bias = (open_vae(folder, "polish")[1][key] for key in KEYS[:2])
    network = fit_network(open_pipeline(folder, tokenizer), factors, bias, **steps)
    tell_more(folder / "transformer.safetensors", folder / "previews.safetensors", latent_rgb_network=network.to_text())


def report(folder: Path, tokenizer: str, count: int) -> None:
    """Score the exported files on held-out captions; write scores.json and a contact sheet of the first 24 samples."""
    pipeline = open_pipeline(folder, tokenizer)
    scores, videos, trials = evaluate(pipeline, count)
    scores |= evaluate_in_betweens(pipeline)
    scores |= {
        "vae_psnr": held_out_psnr(pipeline.vae),
        "vae_psnr_34_frames": held_out_psnr(pipeline.vae, num_frames=34),
    }
    (folder / "scores.json").write_text(json.dumps(scores, indent=1))
    sheet = contact_sheet([pictures(video) for video in videos[:24]], [trial.text for trial in trials[:24]])
    save_small(sheet, folder / "contact_sheet.png")
    print(json.dumps(scores, indent=1))


def main() -> None:
    """Run the stages that have not run yet in `--folder`; stop and start again at will."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--tokenizer", required=True, help="folder of the T5 tokenizer, as ComfyUI brings it")
    parser.add_argument("--folder", type=Path, default=Path("tiny_run"), help="where checkpoints and logs go")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="which stages to run")
    parser.add_argument("--vae-steps", type=int, nargs=4, help="steps of the four stages of the VAE's training")
    parser.add_argument("--refine-steps", type=int, help="steps of the VAE on what it paints worst")
    parser.add_argument("--clips", type=int, default=14400, help="clips to encode for the transformer")
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), help="encode part I of N of the clips")
    parser.add_argument("--teacher-steps", type=int, help="steps of the transformer's training")
    parser.add_argument("--transformer-steps", type=int, help="steps of its calibration to the default guidance")
    parser.add_argument("--polish-steps", type=int, help="steps of the VAE's decoders on sampled latents")
    parser.add_argument("--previews-steps", type=int, help="steps of the colours of previews")
    parser.add_argument(
        "--from-bundled", action="store_true", help="go on from the pack's own files: train on, not anew"
    )
    parser.add_argument("--trials", type=int, default=128, help="held-out captions to score")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: PyTorch's choice")
    parser.add_argument("--install", action="store_true", help="copy the finished files into the pack")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if "WORLD_SIZE" in os.environ:  # started by torchrun: the transformer's batches are split over processes
        torch.distributed.init_process_group("gloo")
    folder = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    if options.from_bundled:
        for name in ("text_encoder", "vae"):
            if not (folder / f"{name}.safetensors").exists():
                shutil.copyfile(recipe.BUNDLED / f"{name}.safetensors", folder / f"{name}.safetensors")
    steps = {name: {"steps": n} if n else {} for name, n in vars(options).items() if name.endswith("_steps")}
    work = {
        "text_encoder": lambda: make_text_encoder(folder, options.tokenizer),
        "vae": lambda: make_vae(folder, steps["vae_steps"], steps["refine_steps"]),
        "latents": lambda: latents_module.build(
            open_vae(folder)[0], folder / "latents", options.clips, parts=options.part
        ),
        "teacher": lambda: make_teacher(folder, options.tokenizer, steps["teacher_steps"], options.from_bundled),
        "transformer": lambda: make_transformer(folder, options.tokenizer, steps["transformer_steps"]),
        "polish": lambda: make_polish(folder, options.tokenizer, steps["polish_steps"]),
        "previews": lambda: make_previews(folder, options.tokenizer, steps["previews_steps"]),
        "evaluate": lambda: report(folder, options.tokenizer, options.trials),
    }
    for stage in options.stages:
        if (folder / f"{stage}.safetensors").exists():
            continue
        started = time.monotonic()
        work[stage]()
        print(f"{stage}: {time.monotonic() - started:.0f} s", flush=True)
    if options.install:
        for name, stage in INSTALLED.items():
            temporary = recipe.BUNDLED / f"{name}.tmp"
            shutil.copyfile(folder / f"{stage}.safetensors", temporary)
            temporary.replace(recipe.BUNDLED / f"{name}.safetensors")


if __name__ == "__main__":
    main()
