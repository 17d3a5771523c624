"""Nodes for videos longer than one run: extend a clip, connect two, close one to a loop."""

from collections.abc import Callable

from ..model.segments import backward, forward
from . import widgets
from .choices import check_least
from .comfy.foresight import KNOWS_ITSELF, Node, told
from .comfy.sampling.long_run import SamplerInputs, fill, last_touch, times_cut_short
from .comfy.schema import advanced, io, schema
from .joining import begun_by, clip_of, ended_by, followed_by, refuse_unlike
from .lengths import check_backward, check_bridge, check_forward, check_loop, check_target, chunks_of
from .seams import meet, pin_ends
from .upstream import frames_before

FORWARD, BACKWARD = "forward", "backward"
MAX_FRAMES = 4096


def _inputs(clips, frames_tooltip, direction=()):
    """The inputs that the three nodes share, around those that say what is joined."""
    return [
        io.Model.Input("model", tooltip="An Open-Sora video transformer."),
        io.Conditioning.Input(
            "positive",
            tooltip="What the new frames should show, from Open-Sora Text Encode, or Open-Sora Prompt Schedule for a "
            "prompt that changes from segment to segment.",
        ),
        io.Vae.Input("vae", tooltip="The Open-Sora video VAE that belongs to the model."),
        *clips,
        io.Int.Input("frames", default=17, min=1, max=MAX_FRAMES, tooltip=frames_tooltip),
        *direction,
        advanced(
            io.Int.Input(
                "context",
                default=17,
                min=1,
                max=MAX_FRAMES,
                tooltip="How many finished frames the model sees beside the new ones, cut to what there is. More hold "
                "motion and look better together and take more time and memory. Whole chunks: with Open-Sora 1.2 17, "
                "34, 51, …, with 1.3 17, 33, 49, …; with 1.0 and 1.1 any number, 4 to 8 suit them.",
            )
        ),
        advanced(
            io.Int.Input(
                "segment",
                default=17,
                min=1,
                max=MAX_FRAMES,
                tooltip="How many new frames are made at a time. More keep a longer stretch of one piece and take more "
                "memory; fewer keep it low, however long the video gets. Whole chunks, as context; with 1.0 and 1.1 8 "
                "to 12.",
            )
        ),
        widgets.seed("Picks the noise of the first segment; each further one takes the next number."),
        widgets.steps(
            "How many times the model looks at each segment. More take proportionally longer and give cleaner "
            "detail. 30 suit Open-Sora 1.2 and 1.3, 100 Open-Sora 1.0 and 1.1 with the original sampler."
        ),
        widgets.cfg(
            "How strongly the prompt is enforced. Higher follows it more literally with harder contrast; 1 "
            "leaves guidance out and takes half the time."
        ),
        widgets.sampler_name(
            "The method that takes the steps, as in Open-Sora Sampler. original is the one the model was "
            "published with."
        ),
        io.Conditioning.Input(
            "negative",
            optional=True,
            tooltip="What to steer away from; it may be a schedule too. Left out: the null caption that the model "
            "learned for this.",
        ),
    ]


class _LongVideo(io.ComfyNode):
    """What the three nodes have in common: an interrupted run's output is not the cached answer to the next."""

    FROM = "latent"  # the input of the clip that `frames` are added to
    CHECK: Callable[..., None] | None = None  # of `frames`, the clip's own and the network, which a run makes too

    @classmethod
    def check_of(cls, node: Node) -> Callable[..., None] | None:
        """The node's CHECK; None where only a run knows which."""
        return cls.CHECK

    @classmethod
    def validate_inputs(
        cls, frames: int | None = None, context: int | None = None, segment: int | None = None
    ) -> bool | str:
        node = Node.of(cls)
        network, check = node.network(), cls.check_of(node)
        counting = network and network.counting
        return told(
            (chunks_of, "segment", segment, counting),
            (chunks_of, "context", context, counting),
            (check_least, "frames", frames, 1),
            *([(check, frames, frames_before(node, cls.FROM), network)] if check else []),
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: object) -> int:
        return times_cut_short()


class OpenSoraExtend(_LongVideo):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Long video",
            node_id="OpenSoraExtend",
            display_name="Open-Sora Extend",
            description="Makes a clip longer, at its end or its beginning, segment by segment: each continues what is "
            "there, so any length fits into the same memory.",
            search_aliases="long video, continue video, extend video, video extend, outpaint, longer, duration, "
            "autoregressive",
            hidden=KNOWS_ITSELF,
            inputs=_inputs(
                [
                    io.Latent.Input(
                        "latent", tooltip="The clip to go on from: from Open-Sora Sampler or Open-Sora VAE Encode."
                    )
                ],
                "How many frames to add. More give a longer video and take proportionally more time, but no more "
                "memory. Multiples of 17 fit Open-Sora 1.2 best, 1.3 needs multiples of 16; with 1.0 and 1.1 any "
                "number.",
                [
                    io.Combo.Input(
                        "direction",
                        options=[FORWARD, BACKWARD],
                        default=FORWARD,
                        tooltip="forward goes on from the last frame; backward makes what came before the first.",
                    )
                ],
            ),
            outputs=[
                io.Latent.Output(tooltip="The whole clip, what was there and what is new, for Open-Sora VAE Decode.")
            ],
        )

    @classmethod
    def check_of(cls, node: Node) -> Callable[..., None] | None:
        return {FORWARD: check_forward, BACKWARD: check_backward}.get(node.constant("direction"))

    @classmethod
    def execute(
        cls, model: io.Model.Type, positive: list, vae: io.Vae.Type, latent: dict, frames: int, direction: str,
        context: int, segment: int, seed: int, steps: int, cfg: float, sampler_name: str, negative: list | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        clip = clip_of(latent, vae, model)
        own, counting = clip.sizes.frames, clip.counting
        size, seen = chunks_of("segment", segment, counting), chunks_of("context", context, counting)
        if direction == BACKWARD:
            check_backward(frames, own, clip.network)
            draft = ended_by(clip, frames)
            whole = len(draft.mask)
            new = backward(whole - clip.samples.shape[2], whole, counting, size, seen)
        else:
            check_forward(frames, own, clip.network)
            draft = begun_by(clip, own + frames)
            new = forward(draft.known, len(draft.mask), counting, size, seen)
        return io.NodeOutput(fill(SamplerInputs(model, positive, negative, seed, steps, cfg, sampler_name), draft, new))


class OpenSoraConnect(_LongVideo):
    FROM, CHECK = "first", staticmethod(check_bridge)

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Long video",
            node_id="OpenSoraConnect",
            display_name="Open-Sora Connect",
            description="Makes the bridge from the end of one clip to the beginning of another, and gives all three as "
            "one clip.",
            search_aliases="long video, transition, bridge, morph, interpolate, interpolation, in-between, inbetween, "
            "tween, first frame, last frame",
            hidden=KNOWS_ITSELF,
            inputs=_inputs(
                [
                    io.Latent.Input("first", tooltip="The clip that comes first."),
                    io.Latent.Input(
                        "second", tooltip="The clip that the bridge leads to; same size and frame rate as the first."
                    ),
                ],
                "How many frames the bridge has. More leave the motion more time to get from one clip to the other. "
                "Open-Sora 1.2: 17, 34, … where the first clip is made of whole chunks of 17; 1.3: 15, 31, …; 1.0 and "
                "1.1: any number.",
            ),
            outputs=[io.Latent.Output(tooltip="The first clip, the bridge and the second clip as one.")],
        )

    @classmethod
    def execute(
        cls, model: io.Model.Type, positive: list, vae: io.Vae.Type, first: dict, second: dict, frames: int,
        context: int, segment: int, seed: int, steps: int, cfg: float, sampler_name: str, negative: list | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        clip, target = clip_of(first, vae, model, "first"), clip_of(second, vae, model, "second")
        own, counting = clip.sizes.frames, clip.counting
        refuse_unlike(clip, target)
        check_target(target.sizes.frames, target.network, "second")
        size, seen = chunks_of("segment", segment, counting), chunks_of("context", context, counting)
        check_bridge(frames, own, clip.network)
        bridge = pin_ends(begun_by(clip, own + frames + counting.overlap), target)
        gap_ends = len(bridge.mask)
        draft = followed_by(bridge, target)
        after = range(gap_ends, min(gap_ends + seen * counting.chunk_latents, len(draft.mask)))
        new = forward(draft.known, gap_ends, counting, size, seen, after)
        run = SamplerInputs(model, positive, negative, seed, steps, cfg, sampler_name)
        made = fill(run, draft, new, "; the second clip is left out")
        with last_touch():
            made = meet(made, bridge, target)
        return io.NodeOutput(made)


class OpenSoraLoop(_LongVideo):
    CHECK = staticmethod(check_loop)

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Long video",
            node_id="OpenSoraLoop",
            display_name="Open-Sora Loop",
            description="Makes the bridge from the end of a clip back to its beginning, so that it plays round and "
            "round without a seam.",
            search_aliases="seamless loop, endless, cinemagraph, gif, long video",
            hidden=KNOWS_ITSELF,
            inputs=_inputs(
                [io.Latent.Input("latent", tooltip="The clip to close; it plays first, then the bridge.")],
                "How many frames the way back takes. More leave the motion more time to return. Clip and bridge "
                "together must be whole chunks: with Open-Sora 1.2 17, 34, … for a clip of 17 frames, with 1.3 16, 32, "
                "…; with 1.0 and 1.1 any number.",
            ),
            outputs=[io.Latent.Output(tooltip="The clip and the bridge back to its first frame.")],
        )

    @classmethod
    def execute(
        cls, model: io.Model.Type, positive: list, vae: io.Vae.Type, latent: dict, frames: int, context: int,
        segment: int, seed: int, steps: int, cfg: float, sampler_name: str, negative: list | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        clip = clip_of(latent, vae, model)
        own, counting = clip.sizes.frames, clip.counting
        size, seen = chunks_of("segment", segment, counting), chunks_of("context", context, counting)
        check_loop(frames, own, clip.network)
        bridge = pin_ends(begun_by(clip, own + frames), clip)
        whole = bridge.known // counting.chunk_latents * counting.chunk_latents
        after = range(min(seen * counting.chunk_latents, whole))
        new = forward(bridge.known, len(bridge.mask), counting, size, seen, after)
        run = SamplerInputs(model, positive, negative, seed, steps, cfg, sampler_name)
        made = fill(run, bridge, new, "; it does not close yet")
        with last_touch():
            made = meet(made, bridge, clip)
        return io.NodeOutput(made)
