"""Nodes between images and latents: encode a clip, decode a clip."""

import logging

from torch import Tensor

from . import widgets
from .colors import colors_of
from .comfy.latent import refuse_misfit, sizes_of
from .comfy.schema import io, schema
from .comfy.vae import video_vae


class OpenSoraVAEEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Latent",
            node_id="OpenSoraVAEEncode",
            display_name="Open-Sora VAE Encode",
            description="Encodes a clip (or one image) to video latents, and keeps its frame rate, frame count and "
            "size with them.",
            search_aliases="video to latent, vae encode, video to video, vid2vid, v2v",
            inputs=[
                io.Vae.Input("vae", tooltip="An Open-Sora video VAE."),
                io.Image.Input(
                    "pixels",
                    tooltip="The frames of one clip, in order; any number of them. More frames take more time and make "
                    "more latents. Open-Sora 1.3 keeps only what fills its latents: 17 of 20, 37 of 40. What is left "
                    "over of 8 pixels, right and bottom, is dropped; 1.3 fills it up instead where it is 2 or more. "
                    "Transparent parts become black.",
                ),
                widgets.fps(
                    "Frames per second of the clip. It changes no pixel: the model is told, and a higher rate "
                    "makes it expect less movement from frame to frame."
                ),
            ],
            outputs=[io.Latent.Output(tooltip="The clip as latents, with its fps, frames, width and height.")],
        )

    @classmethod
    def execute(cls, vae: io.Vae.Type, pixels: Tensor, fps: float) -> io.NodeOutput:
        pixels = colors_of(pixels, "pixels")
        frames, height, width = pixels.shape[:3]
        if min(height, width) < video_vae.PIXELS:
            raise ValueError(f"pixels is {width} x {height}; the smallest frame that can be encoded is 8 x 8")
        network = video_vae.network_of(vae)
        kept = network.counting.groups(frames)[-1].stop
        if kept < frames:
            logging.warning(
                "Open-Sora: this VAE keeps %d of the %d frames; it represents %s exactly",
                kept, frames, " and ".join(map(str, network.nearest_frames(frames))),
            )  # fmt: skip
            frames = kept
        samples = video_vae.encode(vae, pixels[:frames])
        return io.NodeOutput({"samples": samples, "fps": fps, "frames": frames, "width": width, "height": height})


class OpenSoraVAEDecode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Latent",
            node_id="OpenSoraVAEDecode",
            display_name="Open-Sora VAE Decode",
            description="Decodes video latents to images, exactly as many as the latent was made for. (The stock VAE "
            "Decode rounds up to the count that fills the last latent.)",
            search_aliases="latent to video, vae decode",
            inputs=[
                io.Vae.Input("vae", tooltip="The Open-Sora video VAE that belongs to the model."),
                io.Latent.Input("samples", tooltip="Video latents; several clips come out one after the other."),
            ],
            outputs=[io.Image.Output(tooltip="The frames in order, for Create Video or Save Image.")],
        )

    @classmethod
    def execute(cls, vae: io.Vae.Type, samples: dict) -> io.NodeOutput:
        network = video_vae.network_of(vae)
        if samples["samples"].shape[1] != network.latent_channels:
            refuse_misfit(samples["samples"].shape, "samples")  # an image; the network speaks of channels
        frames = sizes_of(samples, "samples", network.counting).frames
        return io.NodeOutput(video_vae.decode(vae, samples["samples"], frames))
