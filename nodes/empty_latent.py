"""The node that starts a clip: size, length and frame rate as an empty video latent."""

from . import widgets
from .aspect import SQUARES, frame_size, nearest_aspect_ratio, same_area
from .comfy.foresight import KNOWS_ITSELF, Node, told
from .comfy.latent import empty
from .comfy.schema import io, schema
from .comfy.vae import video_vae
from .widgets import AUTO, CUSTOM, MAX_SIDE, MIN_SIDE

FALLBACK_RESOLUTION, FALLBACK_ASPECT_RATIO = "240p", "16:9"
MAX_FRAMES, MIN_FPS = 4096, 1
BY_FRAMES = "by frames"
DURATIONS = {"2s": 51, "4s": 102, "8s": 204, "16s": 408, "32s": 816}  # frames, the original's words for them


def choose_size(resolution, aspect_ratio, width, height, made_for=None):
    """(height, width) in pixels for the node's choices; `made_for` is what the VAE's file says it was made for."""
    if resolution == CUSTOM:
        check_least("width", width, MIN_SIDE)
        check_least("height", height, MIN_SIDE)
        return height, width
    if resolution == AUTO and made_for:
        own = made_for["height"], made_for["width"]
        return own if aspect_ratio in (AUTO, nearest_aspect_ratio(*own)) else same_area(*own, aspect_ratio)
    if aspect_ratio == AUTO and resolution in SQUARES:
        aspect_ratio = "1:1"
    elif aspect_ratio == AUTO:
        aspect_ratio = (
            nearest_aspect_ratio(made_for["height"], made_for["width"]) if made_for else FALLBACK_ASPECT_RATIO
        )
    return frame_size(FALLBACK_RESOLUTION if resolution == AUTO else resolution, aspect_ratio)


def check_side(name, value):
    """ValueError for a side beyond its widget's range."""
    check_least(name, value, MIN_SIDE)
    check_most(name, value, MAX_SIDE)


def check_most(name, value, most):
    """ValueError for a number above a widget's range."""
    if not value <= most:
        raise ValueError(f"{name} is {value:g}; it must be at most {most}")


def check_least(name, value, least):
    """ValueError for a number below a widget's range: a wire brings any."""
    if not value >= least:
        raise ValueError(f"{name} is {value:g}; it must be at least {least}")


def check_frames(network, frames):
    """ValueError, naming the neighbours, for a count that the VAE cannot represent."""
    nearest = network.nearest_frames(frames)
    if frames not in nearest:
        raise ValueError(
            f"frames is {frames}, which this VAE cannot represent; the nearest valid "
            f"{'counts are' if len(nearest) > 1 else 'count is'} {' and '.join(map(str, nearest))} "
            f"(valid are {network.valid_counts})"
        )


def choose_frames(network, frames, duration):
    """The frame count for the node's choices: `frames` itself, or the valid count nearest to that of a duration.

    ValueError, naming the neighbours, where `frames` counts and the VAE cannot represent it.
    """
    if duration == BY_FRAMES:
        check_frames(network, frames)
        return frames
    wanted = DURATIONS[duration]
    return min(network.nearest_frames(wanted), key=lambda count: abs(count - wanted))


class OpenSoraEmptyLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            "Latent",
            shows_report=True,
            node_id="OpenSoraEmptyLatent",
            display_name="Empty Open-Sora Latent",
            description="An empty clip of the size, length and frame rate you choose, ready for keyframes and sampling.",
            search_aliases=[
                "empty latent video",
                "resolution",
                "aspect ratio",
                "duration",
                "length",
                "seconds",
                "frames",
                "fps",
                "frame rate",
                "text to video",
                "t2v",
            ],
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
                    tooltip="Length in frames, used when duration is by frames: 1 is an image. The VAE decides what else "
                    "is possible: with Open-Sora 1.2 17, 21, 25, 29, 33, 34, 38, … where multiples of 17 fit the model "
                    "best; with 1.3 17, 33, 49, … (it was trained up to 113); with 1.0 and 1.1 any number, they were trained "
                    "on 16. More frames give a longer video and take more time and memory.",
                ),
                io.Float.Input(
                    "fps",
                    default=24.0,
                    min=1.0,
                    max=120.0,
                    step=0.01,
                    tooltip="Frames per second the model is asked for. Higher makes neighbouring frames more alike, so "
                    "motion gets smoother and slower. Give Create Video the same value (the fps output).",
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
                    tooltip="by frames takes the number above. Otherwise one of Open-Sora's durations, in place of frames: "
                    "2s, 4s, 8s, 16s and 32s are 51, 102, 204, 408 and 816 frames (seconds at about 24 fps). Open-Sora "
                    "1.3 cannot represent these counts, so it gets the nearest it can: 49, 97, 209, 401 and 817. Longer "
                    "takes more time and memory.",
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
    def validate_inputs(cls, frames=None):  # of the others ComfyUI's own words tell the range, at that input alone
        node = Node.of(cls)
        duration = None if node.wired("duration") else node.constant("duration") or BY_FRAMES
        return told((check_most, "frames", frames, MAX_FRAMES), (choose_frames, node.network(), frames, duration))

    @classmethod
    def execute(cls, vae, resolution, aspect_ratio, frames, fps, width, height, batch_size, duration=BY_FRAMES):
        network = video_vae.network_of(vae)
        check_least("fps", fps, MIN_FPS)
        check_least("batch_size", batch_size, 1)
        frames = choose_frames(network, frames, duration)
        height, width = choose_size(resolution, aspect_ratio, width, height, network.opensora.get("made_for"))
        shape = (
            batch_size,
            network.latent_channels,
            network.latent_frames(frames),
            network.latent_side(height),
            network.latent_side(width),
        )
        latent = {"samples": empty(shape), "fps": fps, "frames": frames, "width": width, "height": height}
        size = {"width": width, "height": height, "frames": frames, "fps": fps}
        size |= {"seconds": frames / fps, "latents": shape[2], "duration": duration, "vae": network.family}
        return io.NodeOutput(latent, width, height, frames, fps, ui={"opensora_size": [size]})
