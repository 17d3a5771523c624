"""The node that brings an image or a clip to a size that the model knows."""

from torch import Tensor

from ..model.images import resize_to_fill
from ..model.sizes import nearest_aspect_ratio
from . import widgets
from .choices import check_side, choose_size
from .colors import colors_of
from .comfy.foresight import KNOWS_ITSELF, Node, told
from .comfy.latent import sizes_of
from .comfy.schema import io, schema
from .comfy.vae import video_vae
from .widgets import AUTO, CUSTOM


class OpenSoraFitImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Latent",
            node_id="OpenSoraFitImage",
            display_name="Open-Sora Fit Image",
            description="Brings an image or a clip to a size the model knows, as Open-Sora does: scaled until it "
            "covers the frame, its middle kept.",
            search_aliases="resize, crop, scale image, resolution, video to video, vid2vid",
            hidden=KNOWS_ITSELF,
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="One image, scaled smoothly (bicubic), or the frames of a clip (bilinear). Transparent "
                    "parts become black.",
                ),
                widgets.resolution(
                    "How many pixels a frame has, as in Empty Open-Sora Latent. auto takes what the VAE's file "
                    "was made for, without a VAE 240p; custom takes width and height below. Higher keeps more detail "
                    "and makes sampling much slower."
                ),
                widgets.aspect_ratio(
                    "Width to height of a frame, from wide to tall. auto takes the one closest to the image, so "
                    "that little is cropped. Not used when resolution is custom."
                ),
                widgets.width(
                    "Width in pixels, used only when resolution is custom. Larger keeps more detail and takes "
                    "more time and memory."
                ),
                widgets.height(
                    "Height in pixels, used only when resolution is custom. Larger keeps more detail and takes "
                    "more time and memory."
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="The Open-Sora video VAE of the model: with it auto means the size its file was made for.",
                ),
                io.Latent.Input(
                    "latent",
                    optional=True,
                    tooltip="A clip that the image is for. Connected, its size wins over all choices above.",
                ),
            ],
            outputs=[
                io.Image.Output(tooltip="The image or clip at its new size."),
                io.Int.Output(
                    "width_out", display_name="width", tooltip="Width in pixels, for Empty Open-Sora Latent."
                ),
                io.Int.Output(
                    "height_out", display_name="height", tooltip="Height in pixels, for Empty Open-Sora Latent."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, width: int | None = None, height: int | None = None) -> bool | str:
        node = Node.of(cls)
        custom = (node.constant("resolution") == CUSTOM and not node.wired("latent")) or None
        return told(*((check_side, name, custom and side) for name, side in (("width", width), ("height", height))))

    @classmethod
    def execute(
        cls, image: Tensor, resolution: str, aspect_ratio: str, width: int, height: int, vae: io.Vae.Type | None = None,
        latent: dict | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        image = colors_of(image, "image")
        network = None if vae is None else video_vae.network_of(vae)
        if latent is not None:
            sizes = sizes_of(latent, counting=network and network.counting)
            height, width = sizes.height, sizes.width
        else:
            ratio = nearest_aspect_ratio(*image.shape[1:3]) if aspect_ratio == AUTO else aspect_ratio
            made_for = network and network.opensora.get("made_for")
            height, width = choose_size(resolution, ratio, width, height, made_for)
        return io.NodeOutput(resize_to_fill(image, height, width), width, height)
