"""Nodes for words: the prompt with its scores, and the learned empty prompt."""

from ..model.text import CAMERA_MOTIONS
from .comfy.sampling.conditioning import encode_prompt, null_conditioning
from .comfy.schema import advanced, io, schema

NO_CAMERA = "none"


class OpenSoraTextEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Conditioning",
            node_id="OpenSoraTextEncode",
            display_name="Open-Sora Text Encode",
            description="Turns a prompt into conditioning, worded as in Open-Sora's training: quality, motion and "
            "camera are sentences at the end of the prompt.",
            search_aliases="open sora, prompt, clip text encode, camera motion, camera movement, pan, tilt, zoom, "
            "motion score, aesthetic score",
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder, from Load Open-Sora Text Encoder."),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="What the video should show. Whole sentences work best. (word:1.3) stresses a part, "
                    "(word:0.7) plays it down; what goes beyond the model's length (roughly 90 to 220 words) is left "
                    "out.",
                ),
                io.Float.Input(
                    "aesthetic_score",
                    default=0.0,
                    min=0.0,
                    max=10.0,
                    step=0.1,
                    round=0.1,
                    tooltip="How good the picture should look. Open-Sora 1.2 was published with 6.5, 1.3 "
                    "with 7 for images to video and without for text to video; higher asks for more polished footage. "
                    "0 leaves it out, which suits the tiny model, 1.0, 1.1 and PixArt: they were trained without "
                    "scores.",
                ),
                io.Float.Input(
                    "motion_score",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.1,
                    tooltip="How much should move. Around 5 is calm and smooth; higher is livelier and blurs more "
                    "easily. 0 leaves it out.",
                ),
                io.Combo.Input(
                    "camera_motion",
                    options=[NO_CAMERA, *CAMERA_MOTIONS],
                    default=NO_CAMERA,
                    tooltip="How the camera should move: pan turns it sideways, tilt up or down, zoom goes nearer or "
                    "farther, static holds it still. It is a sentence behind the prompt; none leaves it to the prompt.",
                ),
                advanced(
                    io.Boolean.Input(
                        "clean_caption",
                        default=True,
                        tooltip="On: the prompt is cleaned as the training captions of every Open-Sora were. It "
                        "becomes lower case, and loses Chinese, Japanese and Korean ideographs, links, @names, file "
                        "names, codes and sizes such as 1920x1080, markup, brackets and slashes; (word:1.3) still "
                        "works. Off: it is read exactly as typed, capitals and brackets included, which the model "
                        "knows less well: the video may show less of it.",
                    )
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The transformer that will read this prompt: it sets how long a prompt may be (1.0: 120 "
                    "tokens, 1.1: 200, 1.2 and 1.3: 300) and words scores as its training did (1.3: in words), so that "
                    "they show in the picture. Left out: Open-Sora 1.2.",
                ),
            ],
            outputs=[io.Conditioning.Output(tooltip="The encoded prompt and which of its tokens are real.")],
        )

    @classmethod
    def execute(
        cls, clip: io.Clip.Type, prompt: str, aesthetic_score: float, motion_score: float, camera_motion: str,
        clean_caption: bool, model: io.Model.Type | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        camera = None if camera_motion == NO_CAMERA else camera_motion
        return io.NodeOutput(encode_prompt(clip, prompt, aesthetic_score, motion_score, camera, clean_caption, model))


class OpenSoraNullPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Conditioning",
            node_id="OpenSoraNullPrompt",
            display_name="Open-Sora Null Prompt",
            description="The empty prompt that Open-Sora learned in training, for the negative input of stock "
            "samplers. It is not the same as encoding an empty text, which pushes the picture elsewhere.",
            search_aliases="open sora, negative prompt, unconditional",
            inputs=[
                io.Model.Input("model", tooltip="The Open-Sora transformer; its file holds the learned null caption."),
                io.Conditioning.Input(
                    "positive",
                    tooltip="The prompt this is the counterpart of: the null caption is read to the same length.",
                ),
            ],
            outputs=[io.Conditioning.Output(tooltip="The null caption, for the negative input of a sampler.")],
        )

    @classmethod
    def execute(cls, model: io.Model.Type, positive: list) -> io.NodeOutput:
        return io.NodeOutput(null_conditioning(model, positive))
