"""The node that pins an image or a clip to a place on the timeline."""

from torch import Tensor

from . import widgets
from .colors import colors_of
from .comfy.foresight import KNOWS_ITSELF, Node, told
from .comfy.latent import clip_sizes
from .comfy.schema import io, schema
from .comfy.vae import video_vae
from .pinning import check_strength, left_out, pin, place, resolve_frame
from .report import report
from .upstream import frames_before


class OpenSoraKeyframe(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Latent",
            shows_report=True,
            node_id="OpenSoraKeyframe",
            display_name="Open-Sora Keyframe",
            description="Pins an image or a clip to the timeline; the sampler fills in the rest. Chain several for "
            "first and last frame, or for a storyboard.",
            search_aliases="image to video, i2v, img2vid, first frame, last frame, start frame, end frame, flf2v, "
            "interpolate, interpolation, in-between, inbetween, tween, reference image, animate image, inpaint, "
            "extend",
            hidden=KNOWS_ITSELF,
            inputs=[
                io.Latent.Input(
                    "latent", tooltip="The clip to pin to, from Empty Open-Sora Latent or another keyframe."
                ),
                io.Vae.Input("vae", tooltip="The Open-Sora video VAE that belongs to the model."),
                io.Image.Input(
                    "image",
                    tooltip="One image, or the frames of a clip. It is scaled to cover the frame, and its middle is "
                    "kept; transparent parts become black. Of a clip, the groups of frames that it covers entirely are "
                    "pinned: groups of 4, or with the image VAE of Open-Sora 1.0 and 1.1 single frames. Where two "
                    "keyframes overlap, the later one wins.",
                ),
                io.Int.Input(
                    "frame",
                    default=0,
                    min=-4096,
                    max=4096,
                    tooltip="Where the image, or the clip's first frame, goes: 0 is the first frame of the video, "
                    "higher is later, and negative counts from the end (-1 is the last).",
                ),
                widgets.strength(
                    1.0,
                    "How firmly the frame is held. 1 keeps it exactly; lower lets the model start changing it "
                    "earlier in the run; 0 leaves it to the model altogether.",
                ),
            ],
            outputs=[io.Latent.Output(tooltip="The clip with this keyframe, for the sampler or the next keyframe.")],
        )

    @classmethod
    def validate_inputs(cls, frame: int | None = None, strength: float | None = None) -> bool | str:
        return told((check_strength, strength), (resolve_frame, frame, frames_before(Node.of(cls))))

    @classmethod
    def execute(cls, latent: dict, vae: io.Vae.Type, image: Tensor, frame: int, strength: float) -> io.NodeOutput:
        network = video_vae.network_of(vae)
        frames = clip_sizes(latent, network).frames
        groups = network.counting.groups(frames)
        notes = []
        image = colors_of(image, "image", notes)
        record = place(image, "image", frame, strength, frames, groups)
        notes += left_out(record, len(image), groups)
        latent = pin(latent, vae, [(record, image)])
        return io.NodeOutput(latent, ui={"opensora": [report(latent, network, notes)]})
