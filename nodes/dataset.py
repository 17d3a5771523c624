"""The node that makes clips and captions ready to be trained on."""

from __future__ import annotations

from torch import Tensor

from ..model.sizes import RESOLUTIONS
from .comfy.foresight import told
from .comfy.schema import advanced, io, schema
from .comfy.training import folders
from .widgets import AUTO

OPENSORA_DATASET = io.Custom("OPENSORA_DATASET")
WAYS = ("buckets", "padding", "packing")
IMAGES = tuple(f"images_{number}" for number in range(1, 5))


class OpenSoraDataset(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Training",
            shows_report=True,
            node_id="OpenSoraDataset",
            display_name="Open-Sora Dataset",
            description="Clips and pictures with their captions, made ready for Open-Sora Train: cut to sizes that the "
            "model knows, encoded once, and shown, with what is left out and why.",
            search_aliases="training data, dataset, captions, clips, lora, fine-tune, finetune, buckets, preflight",
            is_output_node=True,
            inputs=[
                io.Vae.Input(
                    "vae", tooltip="The Open-Sora VAE of the model that will be trained; it encodes the clips."
                ),
                io.Clip.Input("clip", tooltip="The text encoder of that model; it reads the captions."),
                io.Combo.Input(
                    "folder",
                    options=folders.choices(),
                    default=folders.EXAMPLES,
                    tooltip="Where the clips are: a folder inside ComfyUI's input folder, with videos and pictures and "
                    "beside each its caption in a text file of the same name (sunrise.mp4, sunrise.txt). The bundled "
                    "example is twelve small clips of a look.",
                ),
                io.Combo.Input(
                    "resolution",
                    options=[AUTO, *RESOLUTIONS],
                    default=AUTO,
                    tooltip="How many pixels a frame has in training. auto takes what the loaded files were made for, "
                    "else 240p. Higher teaches finer detail and takes much more memory and time.",
                ),
                io.Int.Input(
                    "frames",
                    default=0,
                    min=0,
                    max=4096,
                    tooltip="How many frames of a clip are trained on; 0 takes what the files were made for, or what "
                    "the clips have. Longer teaches longer motion and takes more memory.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=0,
                    min=0,
                    max=1024,
                    tooltip="How many clips a step looks at; 0 chooses by their size. More make training steadier and "
                    "take more memory.",
                ),
                io.Combo.Input(
                    "way",
                    options=list(WAYS),
                    default=WAYS[0],
                    tooltip="How clips of different shapes come together. buckets crops each to the nearest of the "
                    "model's sizes; padding and packing (Open-Sora 1.2) keep every clip's own shape, and packing "
                    "wastes least.",
                ),
                io.String.Input(
                    "trigger",
                    default="",
                    tooltip="A word put in front of every caption that lacks it: in a prompt it then calls the look or "
                    "motion. It is the whole caption of files without one. Empty: captions stay as they are.",
                ),
                advanced(
                    io.String.Input(
                        "path",
                        default="",
                        optional=True,
                        tooltip="A folder of clips anywhere on this computer, or a table (.csv, .jsonl, .parquet) with "
                        "the columns path and text. It is read instead of the folder above.",
                    )
                ),
                *(
                    io.Image.Input(
                        name,
                        optional=True,
                        tooltip=f"Frames of one more clip, or one picture, from the graph; line {number} of captions "
                        "says what it shows.",
                    )
                    for number, name in enumerate(IMAGES, start=1)
                ),
                io.String.Input(
                    "captions",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="One line for each of images_1 to images_4 that is connected: what that clip shows. They "
                    "are trained on beside the folder's clips.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The transformer that will be trained: sizes and lengths of auto, and how long captions "
                    "may be, are then its own, and the picture says how long a step takes and how much memory. Left "
                    "out: those of the VAE's file.",
                ),
            ],
            outputs=[
                OPENSORA_DATASET.Output(tooltip="The encoded clips, for Open-Sora Train."),
                io.Image.Output(tooltip="Every clip with what is cut off, the frames that are used, and its caption."),
                io.String.Output(tooltip="The same in words: how many clips in which size, what is left out and why."),
            ],
        )

    @classmethod
    def validate_inputs(cls, path: str | None = None) -> bool | str:
        return told((folders.source_of, folders.EXAMPLES, path))

    @classmethod
    def fingerprint_inputs(cls, folder: str = "", path: str | None = "", **others: object) -> str:
        return folders.state_of(folder, path or "")

    @classmethod
    def execute(
        cls, vae: io.Vae.Type, clip: io.Clip.Type, folder: str, resolution: str, frames: int, batch_size: int, way: str,
        trigger: str, path: str = "", images_1: Tensor | None = None, images_2: Tensor | None = None,
        images_3: Tensor | None = None, images_4: Tensor | None = None, captions: str = "",
        model: io.Model.Type | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        from .comfy.training import data, estimate, pictures

        images = [each for each in (images_1, images_2, images_3, images_4) if each is not None]
        clips, left_out = data.collect(folders.source_of(folder, path), images, captions, trigger)
        choices = data.Choices("" if resolution == AUTO else resolution, frames, batch_size, way, trigger.strip())
        found, examples = data.data_set(clips, left_out, vae, clip, choices, model)
        estimated = estimate.lines_of(examples, found, model)
        picture = data.picture(examples, found, estimated)
        report = data.said(examples, found, estimated)
        return io.NodeOutput(found, picture, report, ui=pictures.shown(picture, cls, text=(report,)))
