"""What an artist's choices of size and length come to, and which are refused."""

from ..model.sizes import SQUARES, frame_size, nearest_aspect_ratio, same_area
from .comfy.vae.network import HostedVAE
from .widgets import AUTO, CUSTOM, MAX_SIDE, MIN_SIDE

FALLBACK_RESOLUTION, FALLBACK_ASPECT_RATIO = "240p", "16:9"
BY_FRAMES = "by frames"
DURATIONS = {"2s": 51, "4s": 102, "8s": 204, "16s": 408, "32s": 816}  # frames, the original's words for them


def choose_size(
    resolution: str, aspect_ratio: str, width: int, height: int, made_for: dict | None = None
) -> tuple[int, int]:
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


def check_side(name: str, value: int) -> None:
    """ValueError for a side beyond its widget's range."""
    check_least(name, value, MIN_SIDE)
    check_most(name, value, MAX_SIDE)


def check_most(name: str, value: float, most: float) -> None:
    """ValueError for a number above a widget's range."""
    if not value <= most:
        raise ValueError(f"{name} is {value:g}; it must be at most {most}")


def check_least(name: str, value: float, least: float) -> None:
    """ValueError for a number below a widget's range: a wire brings any."""
    if not value >= least:
        raise ValueError(f"{name} is {value:g}; it must be at least {least}")


def check_frames(network: HostedVAE, frames: int) -> None:
    """ValueError, naming the neighbours, for a count that the VAE cannot represent."""
    nearest = network.nearest_frames(frames)
    if frames not in nearest:
        raise ValueError(
            f"frames is {frames}, which this VAE cannot represent; the nearest valid "
            f"{'counts are' if len(nearest) > 1 else 'count is'} {' and '.join(map(str, nearest))} "
            f"(valid are {network.valid_counts})"
        )


def choose_frames(network: HostedVAE, frames: int, duration: str) -> int:
    """The frame count for the node's choices: `frames` itself, or the valid count nearest to that of a duration.

    ValueError, naming the neighbours, where `frames` counts and the VAE cannot represent it.
    """
    if duration == BY_FRAMES:
        check_frames(network, frames)
        return frames
    wanted = DURATIONS[duration]
    return min(network.nearest_frames(wanted), key=lambda count: abs(count - wanted))
