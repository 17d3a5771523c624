"""The node that leaves out what hardly changes from step to step."""

from .comfy.caching_report import Report
from .comfy.schema import io, schema
from .comfy.transformer.base_model import base_model_of
from .comfy.transformer.caching import install


class OpenSoraCache(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Sampling",
            node_id="OpenSoraCache",
            display_name="Open-Sora Cache",
            description="Makes sampling faster: what hardly changes from step to step is not computed again. The node "
            "says after each run how much it saved. Try it where you would lower the number of steps.",
            search_aliases="speed, fast, accelerate, teacache, easycache, lazycache, pyramid attention broadcast, pab, "
            "skip steps",
            inputs=[
                io.Model.Input("model", tooltip="An Open-Sora transformer of any generation, or a PixArt one."),
                io.Float.Input(
                    "speed",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    round=0.01,
                    tooltip="How much may be left out. 0 changes nothing; at 0.5 a run of 30 steps takes about half "
                    "the time and the clip looks the same; at 1 about a third, and details may differ.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model with the cache, for Open-Sora Sampler or any stock sampler.")],
        )

    @classmethod
    def execute(cls, model: io.Model.Type, speed: float) -> io.NodeOutput:
        base_model_of(model)  # ValueError for other models
        return io.NodeOutput(install(model, speed, Report()))
