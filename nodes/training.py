"""Nodes that train: the run that makes a LoRA of a data set, and what the run has to tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .comfy.foresight import told
from .comfy.schema import advanced, io, schema
from .comfy.training import folders
from .dataset import OPENSORA_DATASET

if TYPE_CHECKING:
    from .comfy.training.data import DataSet
    from .comfy.training.result import Training

# training/ is imported where a node runs: a graph that trains nothing does not pay for it.
OPENSORA_TRAINING = io.Custom("OPENSORA_TRAINING")
BRANCHES, PRECISIONS = ("all", "look", "motion"), ("auto", "fp32", "bf16")
MOST_SEED = 2**32 - 1
AVERAGE = 0.95  # of the weights, over some twenty steps: runs of a few hundred would not be through with a longer one


class OpenSoraTrain(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Training",
            shows_report=True,
            node_id="OpenSoraTrain",
            display_name="Open-Sora Train",
            description="Trains a LoRA on clips of your own, and shows how it gets on: the loss, and samples of the "
            "same noise. Stop it at any time; queued again, it goes on from there.",
            search_aliases="train lora, fine-tune, finetune, training, dreambooth, style, concept, lora trainer",
            is_output_node=True,
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo, io.Hidden.unique_id],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The Open-Sora transformer to start from; LoRAs on it are part of what is trained on.",
                ),
                OPENSORA_DATASET.Input("dataset", tooltip="The clips, from Open-Sora Dataset."),
                io.String.Input(
                    "name",
                    default="my_lora",
                    tooltip="The LoRA's file in models/loras. Another LoRA of this name stays: the new one gets "
                    "a number.",
                ),
                io.Combo.Input(
                    "branches",
                    options=list(BRANCHES),
                    default=BRANCHES[0],
                    tooltip="What is learned: look is what a frame looks like (style, colours, things), motion is how "
                    "things move, all is both. look and motion leave the other as the model has it.",
                ),
                io.Int.Input(
                    "steps",
                    default=300,
                    min=1,
                    max=1_000_000,
                    tooltip="How many times the weights move. More learn the clips more closely, in the end by heart. "
                    "Raise it later, and the run goes on from where it was.",
                ),
                io.Float.Input(
                    "learning_rate",
                    default=1e-4,
                    min=1e-7,
                    max=1.0,
                    step=1e-5,
                    round=False,
                    tooltip="How far the weights move at each step. Higher learns faster, and too high falls apart. "
                    "0.0001 suits the official models, 0.002 the tiny one.",
                ),
                io.Int.Input(
                    "rank",
                    default=8,
                    min=1,
                    max=1024,
                    tooltip="How much the LoRA can hold. 4 to 16 are enough for a look or a motion; more hold more "
                    "detail, make a larger file, and learn single clips by heart sooner.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MOST_SEED,
                    control_after_generate=False,  # left out, the page would draw another one, and every run begin anew
                    tooltip="Of everything that is drawn: order, noise, first weights. The same seed with the same "
                    "settings gives the same LoRA.",
                ),
                advanced(
                    io.Float.Input(
                        "alpha",
                        default=0.0,
                        min=0.0,
                        max=1024.0,
                        step=0.5,
                        optional=True,
                        tooltip="How strongly the LoRA counts in training: its change is multiplied by alpha / rank. "
                        "0: as large as the rank.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "precision",
                        options=list(PRECISIONS),
                        default=PRECISIONS[0],
                        optional=True,
                        tooltip="In what the model computes; what learns is always fp32. auto takes bf16 where the "
                        "graphics card is good at it: half the memory, and the result is nearly the same.",
                    )
                ),
                advanced(
                    io.Boolean.Input(
                        "gradient_checkpointing",
                        default=False,
                        optional=True,
                        tooltip="On: much less memory and about a third more time; the result is the same. Turn it on "
                        "when memory runs out.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "caption_dropout",
                        default=0.1,
                        min=0.0,
                        max=1.0,
                        step=0.01,
                        optional=True,
                        tooltip="How often a clip is shown without its caption. Some of that keeps guidance (cfg) "
                        "working; more makes the look come without its words.",
                    )
                ),
                advanced(
                    io.String.Input(
                        "masks",
                        default="",
                        multiline=True,
                        force_input=True,  # a field of its own would make the node too tall
                        optional=True,
                        tooltip="How often frames are kept while the rest is learned, so that keyframes go on working: "
                        "lines such as image_head: 0.1, from a text node. Left out: a sensible mixture.",
                    )
                ),
                io.String.Input(
                    "sample_prompts",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="One prompt a line, to see how training gets on: each is sampled from the same noise again "
                    "and again. Empty: the first captions of the data set.",
                ),
                io.Int.Input(
                    "sample_every",
                    default=50,
                    min=0,
                    max=1_000_000,
                    optional=True,
                    tooltip="Steps between samples. Smaller shows more and takes longer; 0 makes none.",
                ),
                advanced(
                    io.Float.Input(
                        "validation",
                        default=0.1,
                        min=0.0,
                        max=0.5,
                        step=0.01,
                        optional=True,
                        tooltip="The share of the files that is held back to judge by; the LoRA is then the one that "
                        "did best on them. 0 trains on all files and takes the last one.",
                    )
                ),
                advanced(
                    io.String.Input(
                        "settings",
                        default="",
                        multiline=True,
                        optional=True,
                        tooltip="Everything else, in YAML, as python run.py train takes it; it wins over the inputs "
                        "above: train: {warmup: 20, schedule: cosine}.",
                    )
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The model with the LoRA at full strength, to try it at once."),
                io.Custom("LORA_MODEL").Output(tooltip="The LoRA alone, for Load LoRA Model and Save LoRA Weights."),
                io.Custom("LOSS_MAP").Output(tooltip="The loss of every step, for Plot Loss Graph."),
                OPENSORA_TRAINING.Output(tooltip="The run, for Open-Sora Training Report."),
            ],
        )

    @classmethod
    def validate_inputs(
        cls, name: str | None = None, masks: str | None = None, settings: str | None = None
    ) -> bool | str:
        from .comfy.training.settings import masks_of, tree_of

        return told((folders.check_name, name), (masks_of, masks), (tree_of, settings))

    @classmethod
    def execute(
        cls, model: io.Model.Type, dataset: DataSet, name: str, branches: str, steps: int, learning_rate: float,
        rank: int, seed: int, alpha: float = 0.0, precision: str = "auto", gradient_checkpointing: bool = False,
        caption_dropout: float = 0.1, masks: str = "", sample_prompts: str = "", sample_every: int = 50,
        validation: float = 0.1, settings: str = "",
    ) -> io.NodeOutput:  # fmt: skip
        from .comfy.training import result, run
        from .comfy.training.settings import masks_of, precision_of, tree_of

        train = {
            "rank": rank, "alpha": alpha or float(rank), "branches": branches, "steps": steps, "seed": seed,
            "learning_rate": learning_rate, "precision": precision_of(precision),
            "gradient_checkpointing": gradient_checkpointing, "ema": AVERAGE,
        }  # fmt: skip
        prompts = [line.strip() for line in sample_prompts.splitlines() if line.strip()]
        widgets = {
            "data": {"validation": validation},
            "objective": {"caption_dropout": caption_dropout, "masks": masks_of(masks)},
            "train": train,
            "save": {"sample_every": sample_every, "prompts": prompts},
        }
        made = run.Run(model, dataset, name, run.merged(widgets, tree_of(settings)))
        training, lora = made.train(result.graph_of(cls))
        losses = {"loss": [line["loss"] for line in training.lines if "loss" in line]}
        # The picture stays with Training Report: fifteen settings and a curve are too tall for one node.
        shown = {"text": (result.said(training),)}
        return io.NodeOutput(run.patched(model, lora), lora, losses, training, ui=shown)


class OpenSoraTrainingReport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Training",
            shows_report=True,
            node_id="OpenSoraTrainingReport",
            display_name="Open-Sora Training Report",
            description="What a training run has to tell: the curve of its loss, its samples step by step, and both in "
            "words.",
            search_aliases="loss graph, loss curve, training samples, validation",
            is_output_node=True,
            inputs=[OPENSORA_TRAINING.Input("training", tooltip="A run, from Open-Sora Train.")],
            outputs=[
                io.Image.Output("curve", display_name="curve", tooltip="The loss over the steps, and validation."),
                io.Image.Output(
                    "samples",
                    display_name="samples",
                    tooltip="The samples, a row for each time, a column for each prompt.",
                ),
                io.String.Output(tooltip="Steps, time, losses, and where the LoRA lies."),
            ],
        )

    @classmethod
    def execute(cls, training: Training) -> io.NodeOutput:
        from .comfy.training import pictures, result

        curve, samples = (pictures.image_of(each) for each in result.pictures_of(training))
        picture, report = pictures.image_of(result.picture_of(training)), result.said(training)
        return io.NodeOutput(curve, samples, report, ui=pictures.shown(picture, cls, text=(report,)))
