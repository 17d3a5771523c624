"""The node for a prompt that changes in the course of a long video."""

import re

from ..model.text import prompt_schedule as prompts_of
from .comfy.foresight import told
from .comfy.sampling.conditioning import from_segment
from .comfy.schema import io, schema
from .text import OpenSoraTextEncode

NUMBER = re.compile(r"\|\s*(-?\d+)\s*\|")


def read_schedule(text: str) -> list[tuple[int, str]]:
    """[(segment, prompt)] of a schedule as an artist types it; one prompt for all segments has no numbers.

    Raises ValueError where it does not begin at |0|, its numbers do not rise, or a number has no prompt.
    """
    text = text.strip()
    first = NUMBER.search(text)
    if first and not text.startswith("|0|"):
        if first.start() or int(first[1]):
            raise ValueError(
                f"prompt is {text!r}, a schedule that does not begin at |0|: put |0| and the prompt of the first "
                "segment in front, as in |0| sunrise |2| noon"
            )
        text = f"|0|{text[first.end() :]}"  # typed with spaces, as | 0 |
    found = prompts_of(text)
    gap = next((start for start, prompt in found if first and not prompt), None)
    if gap is not None:
        raise ValueError(
            f"prompt is {text!r}, which has no text after |{gap}|: write a prompt there, or take |{gap}| out, so that "
            + ("another begins at |0|" if gap == 0 else "the one before goes on")
        )
    return found


class OpenSoraPromptSchedule(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = OpenSoraTextEncode.define_schema().inputs
        at = next(place for place, item in enumerate(inputs) if item.id == "prompt")
        inputs[at] = io.String.Input(
            "prompt",
            multiline=True,
            dynamic_prompts=True,
            tooltip="Prompts by segment: |0| sunrise |2| noon shows sunrise in segments 0 and 1 and noon from segment "
            "2 on. Numbers begin at 0 and rise. Without numbers it is one prompt for all segments.",
        )
        return schema(
            "Conditioning",
            node_id="OpenSoraPromptSchedule",
            display_name="Open-Sora Prompt Schedule",
            description="A prompt that changes from segment to segment, for Open-Sora Extend, Connect and Loop. Scores "
            "and camera are written behind each of its prompts.",
            search_aliases="prompt travel, prompt schedule, long video, story, camera motion, camera movement, pan, "
            "tilt, zoom",
            inputs=inputs,
            outputs=[
                io.Conditioning.Output(
                    tooltip="The encoded prompts, each with the segment it begins at. Open-Sora Sampler takes the "
                    "first; stock samplers know no segments and mix them."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, prompt: str | None = None) -> bool | str:
        return told((read_schedule, prompt))

    @classmethod
    def execute(cls, prompt: str, **others: object) -> io.NodeOutput:
        conditioning, encoded = [], {}
        for start, text in read_schedule(prompt):
            if text not in encoded:  # a prompt may come back
                (encoded[text],) = OpenSoraTextEncode.execute(prompt=text, **others).result
            conditioning += from_segment(encoded[text], start)
        return io.NodeOutput(conditioning)
