"""Which clips fit a graphics card: from the counted memory of docs/memory.md and the weights."""

from ..memory_table import MODELS, T5_WEIGHTS, transformer_peak, vae_peak, weights_of
from .cases import SIZES

CARDS = (8, 12, 16, 24, 80)  # GB as they are sold: of 2^30 bytes
TAKEN = 1.5e9  # bytes that the desktop, CUDA and what ComfyUI leaves free take; estimated
PROMPT = 0.2e9  # that T5 takes beside its weights
TOGETHER = 1.5  # of its memory that must be free for ComfyUI to take the guidance rows together
WORKSPACE = {"transformer": 1.1, "vae": 1.4}  # what a process takes of what is counted, at most: docs/memory.md
IN_PIECES = 0.6  # of a call's memory that it takes in pieces, at most: docs/memory.md
SECONDS = {2: 51, 4: 102, 8: 204, 16: 408}  # frames
FRAMES = {name.partition(",")[0]: size[:2] for name, size in SIZES.items()}
HEADS = ["card, size", "T5", *(f"{version}: seconds" for version in MODELS), "VAE 1.0 to 1.2", "VAE 1.3"]
Needs = dict[str, dict[str, float]]


def needs() -> Needs:
    """Bytes that calls take at once, weights included: "1.2, 480p, 4" and "VAE 1.3, 480p, whole" {way: bytes}."""
    found: Needs = {}
    for version, (kind, configuration, _) in MODELS.items():
        weights = weights_of(lambda: kind(configuration()))  # noqa: B023
        for size, (width, height) in FRAMES.items():
            for seconds, frames in SECONDS.items():
                peak = transformer_peak(version, width, height, frames)
                alone = WORKSPACE["transformer"] * peak
                found[f"{version}, {size}, {seconds}"] = {
                    "together": weights + TOGETHER * 2 * peak,
                    "in turn": weights + alone,
                    "in pieces": weights + IN_PIECES * alone,
                }
    for name, kind, ways in (
        ("VAE 1.0 to 1.2", MODELS["1.2"][2], {"four at once": {"images": 4}, "one at once": {"images": 1}}),
        ("VAE 1.3", MODELS["1.3"][2], {"whole": {}}),
    ):
        weights = weights_of(kind)
        for size, (width, height) in FRAMES.items():
            found[f"{name}, {size}"] = {
                way: weights + WORKSPACE["vae"] * vae_peak(kind, "decode", width, height, **options)
                for way, options in ways.items()
            }
    return found


def rows(needed: Needs) -> list[list[str]]:
    """Of the table: what fits each card at each size."""
    return [
        [f"{card} GB, {size}", _text_encoder(room), *(_lengths(needed, version, size, room) for version in MODELS)]
        + [_way(needed[f"{vae}, {size}"], room, "in slices") for vae in HEADS[-2:]]
        for card in CARDS
        for size in FRAMES
        for room in [card * 2**30 - TAKEN]
    ]


def _text_encoder(room):
    return "bf16" if 2 * T5_WEIGHTS + PROMPT <= room else "fp8"


def _lengths(needed, version, size, room):
    """The longest clips, and how their rows go where not together."""
    longest: dict[str, int] = {}
    for seconds in SECONDS:
        way = _way(needed[f"{version}, {size}, {seconds}"], room, "")
        longest[way] = seconds
    longest.pop("", None)
    return "; ".join(f"{seconds}{'' if way == 'together' else f' {way}'}" for way, seconds in longest.items()) or "–"


def _way(ways, room, otherwise):
    """The first of `ways` that fits."""
    return next((way for way, size in ways.items() if size <= room), otherwise)
