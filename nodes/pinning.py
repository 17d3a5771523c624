"""Pinning images to a clip's timeline: what Keyframe, Timeline and Mask Strategy share."""

from collections.abc import Callable, Iterable

from torch import Tensor

from ..model.images import resize_to_fill
from ..model.pins import encode_groups, pinned
from .comfy.latent import clip_sizes, latent_mask, with_sizes
from .comfy.vae import video_vae
from .said import Said, listed, said

KEYFRAMES = "keyframes"  # the key under which a LATENT carries `records`
FindFree = Callable[[list[dict], dict, list[range]], str | None]  # as `nearest_free_frame`
RECORD = ("name", "frame", "count", "strength", "laid", "latents")


def resolve_frame(frame: int, frames: int, name: str = "frame") -> int:
    """A frame number in 0 … frames - 1 from one that may count from the end. ValueError beyond both ends."""
    if not -frames <= frame < frames:
        nearest = frames - 1 if frame > 0 else -frames
        raise ValueError(
            f"{name} is {frame}, but the clip has {frames} frames; allowed are {-frames} to {frames - 1}, "
            f"the nearest is {nearest}"
        )
    return frame % frames


def check_strength(strength: float) -> None:
    """ValueError beyond 0…1: a wire brings any number."""
    if not 0 <= strength <= 1:
        raise ValueError(
            f"strength is {strength:g}; allowed are 0 (generate) to 1 (keep exactly), the nearest is "
            f"{int(strength > 1)}"
        )


def records(latent: dict) -> list[dict]:
    """The keyframes that a LATENT says it holds, the earliest first.

    A list of {"name": the input it came in by, "frame": its place, "count": its images, "strength": 0…1, "laid":
    indices of the latents it was laid on, "latents": of those it holds}, without places that the clip no longer has.
    """
    known, listed = range(latent["samples"].shape[2]), latent.get(KEYFRAMES)
    listed = listed if isinstance(listed, list) else []  # another pack may use the key for something else
    found = [each for each in listed if isinstance(each, dict) and each.keys() >= set(RECORD)]
    found = [each for each in found if isinstance(each["latents"], list)]
    held = ({**record, "latents": [index for index in record["latents"] if index in known]} for record in found)
    return [record for record in held if record["latents"]]


def holding(latent: dict) -> list[dict]:
    """The `records` that hold something: where the mask leaves everything to the model, a place is free again."""
    mask = latent_mask(latent)
    free = {index for index in range(mask.shape[2]) if mask[:, :, index].min() == 1}
    return [record for record in records(latent) if not free.issuperset(record["latents"])]


def record_of(name: str, frame: int, count: int, strength: float, latents: list[int]) -> dict:
    """A record as `records` lists them, of images that hold all the latents that they are laid on."""
    return dict(zip(RECORD, (name, frame, count, strength, latents, latents)))


def lay_over(
    earlier: list[dict], record: dict, groups: list[range], nearest_free: FindFree | None = None
) -> list[dict]:
    """`earlier` records and `record`, which takes the latents it holds from them.

    Raises ValueError where one of them would be left with none. It names the nearest place that is free of all, which
    `nearest_free`(earlier, record, groups) tells in words, or as None where there is none; left out, it is a frame.
    """
    taken, left = set(record["latents"]), []
    for other in earlier:
        kept = [index for index in other["latents"] if index not in taken]
        if not kept:
            free = (nearest_free or nearest_free_frame)(earlier, record, groups)
            raise ValueError(
                f"{place_words(record)} holds {frames_words(record['latents'], groups)} and would hide the earlier "
                f"{place_words(other)}, which holds {frames_words(other['latents'], groups)}, entirely: where two "
                "keyframes overlap, the later one wins. "
                + (
                    f"The nearest free place for {record['name']} is {free}"
                    if free
                    else "No other place in this clip is free: leave one of the two out, or make the clip longer"
                )
            )
        left.append({**other, "latents": kept})
    return [*left, record]


def nearest_free_frame(earlier: list[dict], record: dict, groups: list[range]) -> str | None:
    """The frame nearest to the record's where its images would hold only latents that no other holds, in words."""
    held = {index for other in earlier for index in other["latents"]}
    last = max(group[-1] for group in groups)
    for frame in sorted(range(last + 1), key=lambda frame: (abs(frame - record["frame"]), frame)):
        latents = pinned(groups, frame, record["count"])
        if latents and held.isdisjoint(latents):
            return f"frame {frame}"
    return None


def place_words(record: dict) -> Said:
    """A keyframe by its input and frame, as messages name it."""
    return said("{name} at frame {frame}", name=record["name"], frame=record["frame"])


def frames_words(latents: Iterable[int], groups: list[range]) -> Said:
    """The video frames of these latents in words: "frames 9–12 and 17"."""
    joined = runs_words((groups[index][0], groups[index][-1]) for index in latents)
    return said("frame {frame}", frame=joined) if joined.isdigit() else said("frames {frames}", frames=joined)


def runs_words(spans: Iterable[tuple[int, int]]) -> str:
    """(first, last) spans in words, neighbours joined: "9–12 and 17"."""
    runs = []
    for first, last in sorted(spans):
        if runs and first <= runs[-1][1] + 1:
            runs[-1][1] = max(last, runs[-1][1])
        else:
            runs.append([first, last])
    return listed([str(first) if first == last else f"{first}–{last}" for first, last in runs])


def place(
    image: Tensor, name: str, frame: int, strength: float, frames: int, groups: list[range], frame_name: str = "frame"
) -> dict:
    """The record of a keyframe that IMAGE [T, H, W, 3] makes in a clip of so many `frames`.

    Raises ValueError, naming the input, for a strength beyond 0…1, a frame outside the clip, and images that cover no
    group.
    """
    check_strength(strength)
    frame = resolve_frame(frame, frames, frame_name)
    # At least two images of a clip stay: one alone would count as a lone image, which fills its group.
    count = min(len(image), max(2, frames - frame))
    latents = pinned(groups, frame, count)
    if not latents and count == 1:  # the VAE of Open-Sora 1.3 leaves out what is too short for a group
        last = groups[-1][-1]
        raise ValueError(f"{frame_name} is {frame}, but the VAE keeps frames 0 to {last} alone; the nearest is {last}")
    if not latents:
        raise ValueError(
            f"{name} is a clip of {len(image)} frames, which from frame {frame} on covers no group of frames "
            "entirely, so nothing would be pinned; give a longer clip, another frame, or a single image"
        )
    return record_of(name, frame, count, float(strength), latents)


def left_out(record: dict, count: int, groups: list[range]) -> list[Said]:
    """The line that says which of a keyframe's `count` images hold nothing: [] where all do, and of a lone image.

    Args:
        record: as `place` makes it.
    """
    held = {frame for index in record["latents"] for frame in groups[index]}
    frames = [frame for frame in range(record["frame"], record["frame"] + count) if frame not in held]
    if count == 1 or not frames:
        return []
    numbers = runs_words((frame - record["frame"] + 1,) * 2 for frame in frames)
    beyond = frames[0] > groups[-1][-1]
    why = said("the clip ends before") if beyond else said("the VAE keeps groups of frames, and they fill none")
    return [
        said(
            "{keyframe}: left out of its {count} images: {numbers} ({why}). They count as a clip; for pictures that "
            "each have a place of their own give each its own keyframe",
            keyframe=place_words(record),
            count=count,
            numbers=numbers,
            why=why,
        )
    ]


def pin(latent: dict, vae: video_vae.OpenSoraVAE, placed: list[tuple[dict, Tensor]]) -> dict:
    """LATENT with keyframes encoded into its samples and noise mask, later ones over earlier ones.

    Args:
        placed: (record as `place` makes it, IMAGE [T, H, W, 3]) of each keyframe, in order.

    Raises:
        ValueError: a keyframe hides another entirely; before anything is encoded.
    """
    network = video_vae.network_of(vae)
    sizes = clip_sizes(latent, network)
    groups, known = network.counting.groups(sizes.frames), holding(latent)
    for record, _ in placed:
        known = lay_over(known, record, groups)
    samples, mask = latent["samples"].clone(), latent_mask(latent)
    for record, image in placed:
        pixels = resize_to_fill(image[: record["count"]], sizes.height, sizes.width)
        found = encode_groups(
            lambda clip: video_vae.encode(vae, clip), pixels, groups, record["frame"], network.at_once.chunk_latents
        )
        for index, content in found.items():
            samples[:, :, index] = content.to(samples)
            mask[:, :, index] = 1.0 - record["strength"]
    return with_sizes(latent, sizes, samples=samples, noise_mask=mask, **{KEYFRAMES: known})
