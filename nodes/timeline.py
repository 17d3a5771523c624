"""The node that pins several images and clips at once, from a timeline drawn in the browser or written as JSON."""

import json
import math
from collections.abc import Collection

from torch import Tensor

from .colors import colors_of
from .comfy.foresight import KNOWS_ITSELF, Node, told
from .comfy.latent import clip_sizes
from .comfy.previews import save_thumbnail
from .comfy.schema import io, schema
from .comfy.vae import video_vae
from .pinning import left_out, pin, place, resolve_frame
from .report import report
from .upstream import frames_before

MAX_IMAGES = 8
IMAGES = tuple(f"image_{number}" for number in range(1, MAX_IMAGES + 1))
VERSION = 1
EMPTY = '{"version": 1, "keyframes": []}'


def read_timeline(text: str) -> list[dict]:
    """The keyframes of a timeline's JSON: [{"image": 1…, "frame": int, "strength": 0…1}, …], in its order.

    Keys that it does not know are left out. Raises ValueError that names the keyframe by its number, from 1.
    """
    try:
        timeline = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"timeline is no JSON: {error.msg} at line {error.lineno}, column {error.colno}; without keyframes it is "
            f"{EMPTY}"
        ) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists in thousands of lists
        raise ValueError(f"timeline is no JSON that can be read: {error}; without keyframes it is {EMPTY}") from None
    if not isinstance(timeline, dict):
        raise ValueError(f"timeline is {_kind(timeline)}; it must be an object such as {EMPTY}")
    version = timeline.get("version", VERSION)
    if isinstance(version, bool) or version != VERSION:
        raise ValueError(f"timeline has version {_shown(version)}; this node reads version {VERSION}")
    keyframes = timeline.get("keyframes")
    if not isinstance(keyframes, list):
        raise ValueError(
            f"timeline has {_kind(keyframes) if 'keyframes' in timeline else 'nothing'} for keyframes; it must be a "
            f"list, as in {EMPTY}"
        )
    return [_read_keyframe(keyframe, f"timeline: keyframe {at}") for at, keyframe in enumerate(keyframes, 1)]


def check_images(timeline: str, given: Collection[str]) -> None:
    """ValueError where a keyframe of the JSON takes an image that is not among the inputs `given`."""
    for at, keyframe in enumerate(read_timeline(timeline), 1):
        name = f"image_{keyframe['image']}"
        if name not in given:
            connected = f"connected are {' and '.join(sorted(given))}" if given else "none is connected"
            raise ValueError(f"timeline: keyframe {at} takes {name}, which is not connected; {connected}")


def check_frames(timeline: str, frames: int) -> None:
    """ValueError where a keyframe of the JSON lies outside of a clip of so many frames."""
    for at, keyframe in enumerate(read_timeline(timeline), 1):
        resolve_frame(keyframe["frame"], frames, frame_name(at))


def frame_name(at: int) -> str:
    """How messages call the frame of keyframe number `at`."""
    return f"timeline: the frame of keyframe {at}"


def _read_keyframe(keyframe, where):
    if not isinstance(keyframe, dict):
        raise ValueError(f'{where} is {_kind(keyframe)}; it must be an object such as {{"image": 1, "frame": 0}}')
    found = {"strength": 1.0, **keyframe}
    for key, good, wanted in (
        ("image", _is_whole, f"the number of an image input, a whole number from 1 to {MAX_IMAGES}"),
        ("frame", _is_whole, "a whole number; 0 is the first frame, -1 the last"),
        ("strength", _is_number, "a number from 0 to 1"),
    ):
        if key not in found:
            raise ValueError(f"{where} has no {key}; give {wanted}")
        if not good(found[key]):
            raise ValueError(f"{where} has the {key} {_shown(found[key])}; it must be {wanted}")
    for key, least, most in (("image", 1, MAX_IMAGES), ("strength", 0, 1)):
        if not least <= found[key] <= most:
            raise ValueError(
                f"{where} has the {key} {_shown(found[key])}; allowed are {least} to {most}, the nearest is "
                f"{most if found[key] > most else least}"
            )
    return {"image": int(found["image"]), "frame": int(found["frame"]), "strength": float(found["strength"])}


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf


def _is_whole(value):
    return _is_number(value) and value == int(value)


def _kind(value):
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _shown(value):
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:40]}…"


class OpenSoraTimeline(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Latent",
            shows_report=True,
            node_id="OpenSoraTimeline",
            display_name="Open-Sora Timeline",
            description="Pins several images and clips to the timeline at once: wire them in, then drag them to their "
            "places. The sampler fills in the rest.",
            search_aliases="keyframes, storyboard, first frame, last frame, start frame, end frame, flf2v, "
            "image to video, i2v, img2vid, interpolate, interpolation, in-between, inbetween, tween",
            hidden=KNOWS_ITSELF,
            inputs=[
                io.Latent.Input(
                    "latent", tooltip="The clip to pin to, from Empty Open-Sora Latent or another keyframe."
                ),
                io.Vae.Input("vae", tooltip="The Open-Sora video VAE that belongs to the model."),
                io.String.Input(
                    "timeline",
                    default=EMPTY,
                    tooltip="The keyframes as one line of JSON, which the drawn timeline writes: for each the number "
                    "of its image input, its frame (negative counts from the end) and its strength (1 keeps it "
                    "exactly; lower lets the model change it earlier in the run). Where two overlap, the later in the "
                    "list wins.",
                ),
                *(
                    io.Image.Input(
                        f"image_{number}",
                        optional=True,
                        tooltip=f"Image {number}, or the frames of a clip, for keyframes with image {number}. It is "
                        "scaled to cover the frame, and its middle is kept; transparent parts become black.",
                    )
                    for number in range(1, MAX_IMAGES + 1)
                ),
            ],
            outputs=[io.Latent.Output(tooltip="The clip with these keyframes, for the sampler or another keyframe.")],
        )

    @classmethod
    def validate_inputs(cls, timeline: str | None = None) -> bool | str:
        node = Node.of(cls)
        return told(
            (read_timeline, timeline),
            (check_images, timeline, [name for name in IMAGES if node.wired(name)] if node.kind else None),
            (check_frames, timeline, frames_before(node)),
        )

    @classmethod
    def execute(cls, latent: dict, vae: io.Vae.Type, timeline: str, **images: Tensor | None) -> io.NodeOutput:
        network = video_vae.network_of(vae)
        frames = clip_sizes(latent, network).frames
        groups, placed, notes = network.counting.groups(frames), [], []
        given, used = {name: image for name, image in images.items() if image is not None}, {}
        check_images(timeline, given)
        for at, keyframe in enumerate(read_timeline(timeline), 1):
            name = f"image_{keyframe['image']}"
            if name not in used:
                used[name] = colors_of(given[name], name, notes)
            image = used[name]
            record = place(image, name, keyframe["frame"], keyframe["strength"], frames, groups, frame_name(at))
            placed.append((record, image))
            notes += left_out(record, len(image), groups)
        latent = pin(latent, vae, placed) if placed else latent
        thumbnails = {name: saved for name, image in {**given, **used}.items() if (saved := save_thumbnail(image))}
        # A record's count is cut to what is left of the clip: the page needs the whole length, for any place.
        counts = {name: len(image) for name, image in given.items()}
        shown = {**report(latent, network, notes), "thumbnails": thumbnails, "counts": counts}
        return io.NodeOutput(latent, ui={"opensora": [shown]})
