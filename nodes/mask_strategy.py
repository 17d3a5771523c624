"""The node for the mask strategy text of Open-Sora 1.1 and later: references, and which of their latents go where."""

from collections.abc import Iterable

from torch import Tensor

from ..model import masks
from .colors import colors_of
from .comfy.foresight import KNOWS_ITSELF, Node, told
from .comfy.latent import Sizes, clip_sizes, latent_mask, with_sizes
from .comfy.schema import advanced, io, schema
from .comfy.vae import video_vae
from .pinning import KEYFRAMES, FindFree, holding, lay_over, record_of
from .report import report
from .upstream import frames_before

MAX_REFERENCES = 8
MAX_ALIGN = 4096
REFERENCES = tuple(f"reference_{number}" for number in range(1, MAX_REFERENCES + 1))
LOOP = 0  # the others belong to long videos


def connected(references: dict) -> list[tuple[str, Tensor]]:
    """[(input name, IMAGE), …] of the inputs reference_1 … that are connected. ValueError for a gap among them."""
    given = [name for name in REFERENCES if references.get(name) is not None]
    for name, expected in zip(given, REFERENCES):
        if name != expected:
            raise ValueError(
                f"{name} is connected, but {expected} is not: the strategy counts references from 0 without gaps, so "
                f"connect {name}'s picture to {expected}"
            )
    return [(name, references[name]) for name in given]


def read_strategy(strategy: str) -> list[tuple]:
    """The entries of loop 0 of a strategy text. ValueError for a text without any, or with a word that is wrong."""
    if not strategy.strip():
        raise ValueError(
            "strategy is empty; the shortest is '0', which puts the first latent frame of reference_1 at the beginning"
        )
    entries = masks.parse_checked(strategy)
    own = [entry for entry in entries if entry[0] == LOOP]
    if not own:
        raise ValueError(
            f"strategy is {strategy!r}, whose entries belong to loop "
            f"{' and '.join(map(str, sorted({entry[0] for entry in entries})))}; one clip is loop {LOOP}, so give at "
            f"least one entry that begins with {LOOP}"
        )
    return own


def check_references(references: list[tuple[str, Tensor]], sizes: Sizes) -> None:
    """ValueError for [(input name, IMAGE), …] of another size than the clip's."""
    for name, pixels in references:
        height, width = pixels.shape[1:3]
        if (height, width) != (sizes.height, sizes.width):
            raise ValueError(
                f"{name} is {width} x {height} pixels, but the clip is {sizes.width} x {sizes.height}; Open-Sora Fit "
                "Image brings it to that size"
            )


def check_entry(entry: tuple, references: dict[str, int | None], frames: int) -> None:
    """ValueError where an entry asks for a reference that is not connected, or for a position outside a clip.

    Args:
        references: {input name: its latent frames, None where only a run knows}, in the order of their numbers.
        frames: latent frames of the clip.
    """
    check_number(entry, list(references))
    lengths = list(references.values())[entry[1]], frames
    for field, position, length in zip(masks.FIELDS[2:4], entry[2:4], lengths):
        if length is not None and not -length <= position < length:
            raise ValueError(masks.outside(entry, field, position, length))


def check_targets(strategy: str, names: Iterable[str], frames: int) -> None:
    """As `check_entry` for every entry of a text, without what only the references' lengths tell."""
    for entry in read_strategy(strategy):
        check_entry(entry, dict.fromkeys(names), frames)


def check_number(entry: tuple, names: list[str]) -> None:
    """ValueError where an entry asks for a reference that is not among the connected `names`."""
    number = entry[1]
    if not -len(names) <= number < len(names):
        wanted = f", the input reference_{number + 1}" if 0 <= number < MAX_REFERENCES else ""
        raise ValueError(
            f"strategy entry {masks.text_of(entry)} asks for reference {number}{wanted}; connected are "
            f"{' and '.join(f'{name} (number {index})' for index, name in enumerate(names))}, the nearest is "
            f"{len(names) - 1 if number > 0 else 0}"
        )


def entry_record(entry: tuple, name: str, length: int, groups: list[range], align: int) -> dict:
    """The record of what an entry puts into the clip. ValueError where that is nothing."""
    _, target, count = masks.span(entry, length, len(groups), align)
    if count == 0:
        raise ValueError(
            f"strategy entry {masks.text_of(entry)} copies no latent frame: its length is {entry[4]}; give 1 or more"
        )
    latents = list(range(target, target + count))
    first, last = groups[target][0], groups[latents[-1]][-1]
    return record_of(name, first, last - first + 1, 1.0 - entry[5], latents)


def nearest_free(entry: tuple, length: int, frames: int, align: int) -> FindFree:
    """(earlier records, record, groups) -> the nearest target_start in words that is free of all, or None.

    Where aligning leaves none, as it may in a clip of one chunk, it is one without.
    """

    def find(earlier: list[dict], record: dict, groups: list[range]) -> str | None:
        held = {index for other in earlier for index in other["latents"]}
        for step in dict.fromkeys((align, 0)):
            wanted = masks.span(entry, length, frames, step)[1]
            for target in sorted(range(frames), key=lambda target: (abs(target - wanted), target)):
                _, start, count = masks.span((*entry[:3], target, *entry[4:]), length, frames, step)
                if count and held.isdisjoint(range(start, start + count)):
                    aligned = f" (aligned to {start})" if start != target else ""
                    return f"target_start {target}{aligned}" + (" with align 0" if step != align else "")
        return None

    return find


class OpenSoraMaskStrategy(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Latent",
            shows_report=True,
            node_id="OpenSoraMaskStrategy",
            display_name="Open-Sora Mask Strategy",
            description="Pins references to the timeline by the original's text: which latent frames of which "
            "reference go where, and how firmly. Open-Sora Keyframe and Open-Sora Timeline do it by video frames.",
            search_aliases="mask strategy, reference image, image to video, i2v, keyframes, edit ratio, interpolate, "
            "extend",
            hidden=KNOWS_ITSELF,
            inputs=[
                io.Latent.Input(
                    "latent", tooltip="The clip to pin to, from Empty Open-Sora Latent or a keyframe node."
                ),
                io.Vae.Input("vae", tooltip="The Open-Sora video VAE that belongs to the model."),
                io.Image.Input(
                    "reference_1",
                    tooltip="Reference 0 of the strategy: one image, or the frames of a clip, in the size of the clip. "
                    "Transparent parts become black.",
                ),
                io.String.Input(
                    "strategy",
                    default="0",
                    tooltip="Entries 'loop,reference,reference_start,target_start,length,edit_ratio', separated by "
                    "';'. What is left out at an entry's end is 0,0,0,0,1,0. Positions and lengths are latent frames, "
                    "negative ones count from the end; edit_ratio 0 keeps the picture exactly, higher lets the model "
                    "change more. Only loop 0 is this clip. Where two entries overlap the later one wins.",
                ),
                advanced(
                    io.Int.Input(
                        "align",
                        default=5,
                        min=0,
                        max=MAX_ALIGN,
                        tooltip="Snaps positions to multiples of so many latent frames: a reference may land earlier "
                        "or later than you asked. 5 is a chunk of Open-Sora 1.2 and 1.3, whose beginning shows a "
                        "picture best; higher makes coarser steps; 0 leaves positions as they are, which suits 1.0 and "
                        "1.1.",
                    )
                ),
                *(
                    io.Image.Input(
                        f"reference_{number}",
                        optional=True,
                        tooltip=f"Reference {number - 1} of the strategy: one image, or the frames of a clip, in the "
                        "size of the clip. Transparent parts become black.",
                    )
                    for number in range(2, MAX_REFERENCES + 1)
                ),
            ],
            outputs=[io.Latent.Output(tooltip="The clip with these references, for the sampler or a keyframe node.")],
        )

    @classmethod
    def validate_inputs(cls, strategy: str | None = None) -> bool | str:
        node = Node.of(cls)
        network, frames = node.network(), frames_before(node)
        latents = network and frames and len(network.counting.groups(frames))
        wired = {name: True for name in REFERENCES if node.wired(name)}
        return told((read_strategy, strategy), (connected, wired), (check_targets, strategy, wired or None, latents))

    @classmethod
    def execute(
        cls, latent: dict, vae: io.Vae.Type, reference_1: Tensor, strategy: str, align: int, **references: Tensor | None
    ) -> io.NodeOutput:
        network = video_vae.network_of(vae)
        sizes = clip_sizes(latent, network)
        groups, entries = network.counting.groups(sizes.frames), read_strategy(strategy)
        notes = []
        given = connected({"reference_1": reference_1, **references})
        given = [(name, colors_of(pixels, name, notes)) for name, pixels in given]
        check_references(given, sizes)
        names = [name for name, _ in given]
        lengths = [network.latent_frames(len(pixels)) for _, pixels in given]
        held, touched = holding(latent), set()
        for entry in entries:
            check_entry(entry, dict(zip(names, lengths)), len(groups))
            name, length = names[entry[1]], lengths[entry[1]]
            record = entry_record(entry, name, length, groups, align)
            held = lay_over(held, record, groups, nearest_free(entry, length, len(groups), align))
            touched.update(record["latents"])

        used = {entry[1] % len(given) for entry in entries}
        encoded = [
            video_vae.encode(vae, pixels)[0]
            if number in used
            else latent["samples"].new_empty(1, lengths[number], 1, 1)
            for number, (_, pixels) in enumerate(given)
        ]
        samples, mask = latent["samples"].clone(), latent_mask(latent)
        for clip, own_mask in zip(samples, mask):
            filled, ratios = masks.apply(clip, encoded, entries, LOOP, align)
            clip.copy_(filled)
            for index in touched:
                own_mask[:, index] = ratios[index]
        latent = with_sizes(latent, sizes, samples=samples, noise_mask=mask, **{KEYFRAMES: held})
        return io.NodeOutput(latent, ui={"opensora": [report(latent, network, notes)]})
