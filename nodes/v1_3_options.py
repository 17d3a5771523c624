"""The node with the options that only Open-Sora 1.3 has."""

from ..model.flow_v1_3 import OFFICIAL, Options
from .comfy.sampling.run import with_options
from .comfy.schema import advanced, io, schema


def _switch(name, default, tooltip):
    return advanced(io.Boolean.Input(name, default=default, tooltip=tooltip))


class OpenSoraV13Options(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Sampling",
            node_id="OpenSoraV13Options",
            display_name="Open-Sora 1.3 Options",
            description="Guidance as Open-Sora 1.3 was published with it: how firmly pinned frames are followed, and "
            "three refinements, all on here. Without this node a 1.3 model has an image_cfg of 5 and the refinements "
            "off.",
            search_aliases="image guidance, oscillation guidance, sdedit, image to video, i2v, image cfg",
            inputs=[
                io.Model.Input(
                    "model", tooltip="An Open-Sora 1.3 transformer; the other generations have no such options."
                ),
                io.Float.Input(
                    "image_cfg",
                    default=OFFICIAL.image_cfg,
                    min=1.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="How strongly the video follows its pinned frames. Higher keeps closer to them and moves "
                    "less; 1 leaves this guidance out. It fades over the steps, and grows from the first frame to the "
                    "last. Used only where frames are pinned at strength 1.",
                ),
                _switch(
                    "oscillation",
                    OFFICIAL.oscillation,
                    "From the 12th step on, the prompt is enforced on every other step only. On, colours "
                    "and contrast stay softer and those steps are faster; off, it is enforced on every step: "
                    "harder and more literal.",
                ),
                _switch(
                    "flaw_fix",
                    OFFICIAL.flaw_fix,
                    "Takes back contrast that a high cfg has blown up. On, bright and dark parts burn out "
                    "less; off, cfg acts fully. Used only where no frame is pinned at strength 1.",
                ),
                _switch(
                    "sdedit",
                    OFFICIAL.sdedit,
                    "Before each step pinned frames are laid into the noise again. On, the video joins "
                    "them more closely; off, only image_cfg ties it to them. Only Open-Sora Sampler at original "
                    "asks: other samplers always hold pinned frames in place.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The model with these options, for Open-Sora Sampler or a stock sampler.")
            ],
        )

    @classmethod
    def execute(
        cls, model: io.Model.Type, image_cfg: float, oscillation: bool, flaw_fix: bool, sdedit: bool
    ) -> io.NodeOutput:
        options = Options(image_cfg=image_cfg, oscillation=oscillation, flaw_fix=flaw_fix, sdedit=sdedit)
        return io.NodeOutput(with_options(model, options))
