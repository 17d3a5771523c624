"""The node that starts a clip: size, length and frame rate as an empty video latent."""

from . import widgets
from .choices import BY_FRAMES, DURATIONS, check_least, check_most, choose_frames, choose_size
from .comfy.foresight import KNOWS_ITSELF, Node, told
from .comfy.latent import empty
from .comfy.schema import io, schema
from .comfy.vae import video_vae

MAX_FRAMES, MIN_FPS = 4096, 1


class OpenSoraEmptyLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Latent",
            shows_report=True,
            node_id="OpenSoraEmptyLatent",
            display_name="Empty Open-Sora Latent",
            description="An empty clip of the size, length and frame rate you choose, ready for keyframes and "
            "sampling.",
            search_aliases="empty latent video, resolution, aspect ratio, duration, length, seconds, frames, fps, "
            "frame rate, text to video, t2v",
            hidden=KNOWS_ITSELF,
            inputs=[
                io.Vae.Input("vae", tooltip="The Open-Sora video VAE: it decides which frame counts are possible."),
                widgets.resolution(
                    "How many pixels a frame has. auto takes the size the loaded file was made for, else 240p; "
                    "custom takes width and height below; 256 and 512 are the squares of Open-Sora 1.0, 1024 is for "
                    "PixArt. Higher shows more detail and takes much more time and memory."
                ),
                widgets.aspect_ratio(
                    "Width to height of a frame, from wide to tall. auto takes the shape the loaded file was "
                    "made for, else 16:9 (1:1 with 256, 512 and 1024). Not used when resolution is custom."
                ),
                io.Int.Input(
                    "frames",
                    default=17,
                    min=1,
                    max=MAX_FRAMES,
                    tooltip="Length in frames, used when duration is by frames: 1 is an image. The VAE decides what "
                    "else is possible: with Open-Sora 1.2 17, 21, 25, 29, 33, 34, 38, … where multiples of 17 fit the "
                    "model best; with 1.3 17, 33, 49, … (it was trained up to 113); with 1.0 and 1.1 any number, they "
                    "were trained on 16. More frames give a longer video and take more time and memory.",
                ),
                widgets.fps(
                    "Frames per second the model is asked for. Higher makes neighbouring frames more alike, so "
                    "motion gets smoother and slower. Give Create Video the same value (the fps output)."
                ),
                widgets.width(
                    "Width in pixels, used only when resolution is custom. Larger takes more time and memory; "
                    "what is left over of 8 is cut off, with Open-Sora 1.3 filled up."
                ),
                widgets.height(
                    "Height in pixels, used only when resolution is custom. Larger takes more time and memory; "
                    "what is left over of 8 is cut off, with Open-Sora 1.3 filled up."
                ),
                io.Int.Input(
                    "batch_size",
                    default=1,
                    min=1,
                    max=64,
                    tooltip="How many clips are made at once, each from its own noise. More take proportionally more "
                    "time and memory.",
                ),
                io.Combo.Input(
                    "duration",
                    options=[BY_FRAMES, *DURATIONS],
                    default=BY_FRAMES,
                    optional=True,
                    tooltip="by frames takes the number above. Otherwise one of Open-Sora's durations, in place of "
                    "frames: 2s, 4s, 8s, 16s and 32s are 51, 102, 204, 408 and 816 frames (seconds at about 24 fps). "
                    "Open-Sora 1.3 cannot represent these counts, so it gets the nearest it can: 49, 97, 209, 401 and "
                    "817. Longer takes more time and memory.",
                ),
            ],
            outputs=[
                io.Latent.Output(tooltip="The empty clip."),
                io.Int.Output("width_out", display_name="width", tooltip="Width of a frame in pixels."),
                io.Int.Output("height_out", display_name="height", tooltip="Height of a frame in pixels."),
                io.Int.Output("frames_out", display_name="frames", tooltip="Number of frames."),
                io.Float.Output("fps_out", display_name="fps", tooltip="Frames per second, for Create Video."),
            ],
        )

    @classmethod
    def validate_inputs(cls, frames: int | None = None) -> bool | str:
        # Of the others ComfyUI's own words tell the range, at that input alone.
        node = Node.of(cls)
        duration = None if node.wired("duration") else node.constant("duration") or BY_FRAMES
        return told((check_most, "frames", frames, MAX_FRAMES), (choose_frames, node.network(), frames, duration))

    @classmethod
    def execute(
        cls, vae: io.Vae.Type, resolution: str, aspect_ratio: str, frames: int, fps: float, width: int, height: int,
        batch_size: int, duration: str = BY_FRAMES,
    ) -> io.NodeOutput:  # fmt: skip
        network = video_vae.network_of(vae)
        check_least("fps", fps, MIN_FPS)
        check_least("batch_size", batch_size, 1)
        frames = choose_frames(network, frames, duration)
        height, width = choose_size(resolution, aspect_ratio, width, height, network.opensora.get("made_for"))
        shape = (
            batch_size,
            network.latent_channels,
            network.latent_frames(frames),
            network.counting.latent_side(height),
            network.counting.latent_side(width),
        )
        latent = {"samples": empty(shape), "fps": fps, "frames": frames, "width": width, "height": height}
        size = {"width": width, "height": height, "frames": frames, "fps": fps}
        size |= {"seconds": frames / fps, "latents": shape[2], "duration": duration, "vae": network.family}
        return io.NodeOutput(latent, width, height, frames, fps, ui={"opensora_size": [size]})
