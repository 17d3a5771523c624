"""Nodes that sample: the all-in-one sampler, and the two that let stock samplers do the same."""

from . import widgets
from .comfy.latent import with_sizes
from .comfy.sampling.conditioning import for_segment, null_conditioning
from .comfy.sampling.run import for_clip, sample, sigmas_for, sizes_for
from .comfy.schema import io, schema
from .pinning import KEYFRAMES


def _steps():
    return widgets.steps(
        "How many times the model looks at the video. More steps take proportionally longer and give cleaner "
        "detail. 30 suit Open-Sora 1.2 and 1.3, 100 Open-Sora 1.0 and 1.1 with the original sampler."
    )


def _denoise(tooltip):
    return io.Float.Input("denoise", default=1.0, min=0.0, max=1.0, step=0.01, tooltip=tooltip)


class OpenSoraSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Sampling",
            node_id="OpenSoraSampler",
            display_name="Open-Sora Sampler",
            description="Generates the video: turns noise into latents that follow the prompt, the clip's size and "
            "frame rate, and the frames that are pinned.",
            search_aliases="ksampler, generate video, text to video, t2v, image to video, i2v, video to video, "
            "vid2vid, v2v, animate",
            inputs=[
                io.Model.Input("model", tooltip="An Open-Sora transformer."),
                io.Conditioning.Input("positive", tooltip="What the video should show, from Open-Sora Text Encode."),
                io.Latent.Input(
                    "latent",
                    tooltip="The clip to fill, from Empty Open-Sora Latent, with keyframes if you like. Larger and "
                    "longer clips take more time and memory.",
                ),
                widgets.seed(
                    "Picks the noise. The same seed with the same settings gives the same video; another one "
                    "gives another take."
                ),
                _steps(),
                widgets.cfg(
                    "How strongly the prompt is enforced. Higher follows it more literally with harder contrast; "
                    "1 leaves guidance out and takes half the time."
                ),
                widgets.sampler_name(
                    "The method that takes the steps. original is the one the model was published with: Euler for "
                    "Open-Sora 1.2 and 1.3, the ancestral sampler with learned variance for 1.0, 1.1 and PixArt. The "
                    "others are ComfyUI's."
                ),
                _denoise(
                    "How much of the incoming latent is replaced. 1 starts from pure noise; lower keeps more of what "
                    "is there, which suits an encoded clip; 0 changes nothing."
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="What to steer away from. Left out: the null caption that the model learned for this, as "
                    "in the original.",
                ),
            ],
            outputs=[io.Latent.Output(tooltip="The generated clip, for Open-Sora VAE Decode.")],
        )

    @classmethod
    def execute(
        cls, model: io.Model.Type, positive: list, latent: dict, seed: int, steps: int, cfg: float, sampler_name: str,
        denoise: float, negative: list | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        positive = for_segment(positive, 0)  # of a schedule the first prompt; all of them would be mixed
        negative = null_conditioning(model, positive) if negative is None else for_segment(negative, 0)
        samples, sizes = sample(model, positive, negative, latent, seed, steps, cfg, sampler_name, denoise)
        latent = with_sizes(latent, sizes, samples=samples)
        latent.pop(KEYFRAMES, None)  # pinned images are part of the clip now: others may be pinned over them
        return io.NodeOutput(latent)


class OpenSoraScheduler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Sampling",
            node_id="OpenSoraScheduler",
            display_name="Open-Sora Scheduler",
            description="The noise levels Open-Sora visits for a clip of this size and length, for "
            "SamplerCustomAdvanced. It follows the model: 1.2 and 1.3 shift them with the size, 1.0 and 1.1 have one "
            "schedule for all. Use it with a model from Open-Sora Model Sampling.",
            search_aliases="sigmas, scheduler",
            inputs=[
                io.Model.Input(
                    "model", tooltip="An Open-Sora transformer; each generation has noise levels of its own."
                ),
                io.Latent.Input(
                    "latent",
                    tooltip="The clip to sample: of a larger or longer one more steps shape composition and motion, "
                    "and fewer fine detail.",
                ),
                _steps(),
                _denoise(
                    "The part of the schedule that is run. 1 runs all of it from pure noise; lower starts later, so "
                    "more of the incoming latent stays; 0 runs nothing."
                ),
            ],
            outputs=[
                io.Sigmas.Output(tooltip="Noise levels falling to 0, one more than steps; flow models begin at 1.")
            ],
        )

    @classmethod
    def execute(cls, model: io.Model.Type, latent: dict, steps: int, denoise: float) -> io.NodeOutput:
        return io.NodeOutput(sigmas_for(model, sizes_for(model, latent), steps, denoise))


class OpenSoraModelSampling(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Sampling",
            node_id="OpenSoraModelSampling",
            display_name="Open-Sora Model Sampling",
            description="Prepares a model for stock samplers (KSampler, SamplerCustomAdvanced): it then knows this "
            "clip's frame rate and size, and 1.2 and 1.3 choose their noise levels for them. Open-Sora Sampler does "
            "this by itself.",
            search_aliases="model sampling, shift",
            inputs=[
                io.Model.Input("model", tooltip="An Open-Sora transformer."),
                io.Latent.Input(
                    "latent",
                    tooltip="The clip that will be sampled. Of a larger or longer one more steps shape composition and "
                    "motion, and fewer fine detail.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model, prepared for clips like this latent.")],
        )

    @classmethod
    def execute(cls, model: io.Model.Type, latent: dict) -> io.NodeOutput:
        return io.NodeOutput(for_clip(model, sizes_for(model, latent)))
