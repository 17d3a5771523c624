"""Widgets that several nodes have: what they are called, their range and default; each node brings its own tooltip."""

from ..model.sizes import ASPECT_RATIOS, RESOLUTIONS, SQUARES
from .comfy.sampling.run import ORIGINAL, sampler_names
from .comfy.schema import io

AUTO, CUSTOM = "auto", "custom"
MIN_SIDE, MAX_SIDE = 16, 4096


def seed(tooltip: str) -> io.Int.Input:
    """INT: which noise a run begins with."""
    return io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True, tooltip=tooltip)


def steps(tooltip: str) -> io.Int.Input:
    """INT: how many steps a run takes."""
    return io.Int.Input("steps", default=30, min=1, max=1000, tooltip=tooltip)


def cfg(tooltip: str) -> io.Float.Input:
    """FLOAT: the scale of guidance."""
    return io.Float.Input("cfg", default=7.0, min=0.0, max=100.0, step=0.1, round=0.01, tooltip=tooltip)


def sampler_name(tooltip: str) -> io.Combo.Input:
    """COMBO: the original's sampler, then ComfyUI's."""
    return io.Combo.Input("sampler_name", options=sampler_names(), default=ORIGINAL, tooltip=tooltip)


def fps(tooltip: str) -> io.Float.Input:
    """FLOAT: frames per second."""
    return io.Float.Input("fps", default=24.0, min=1.0, max=120.0, step=0.01, tooltip=tooltip)


def strength(default: float, tooltip: str) -> io.Float.Input:
    """FLOAT: how firmly frames are held."""
    return io.Float.Input("strength", default=default, min=0.0, max=1.0, step=0.01, tooltip=tooltip)


def resolution(tooltip: str) -> io.Combo.Input:
    """COMBO: a row of the size table, a square, auto or custom."""
    return io.Combo.Input("resolution", options=[AUTO, *RESOLUTIONS, CUSTOM, *SQUARES], default=AUTO, tooltip=tooltip)


def aspect_ratio(tooltip: str) -> io.Combo.Input:
    """COMBO: a column of the size table, or auto."""
    return io.Combo.Input("aspect_ratio", options=[AUTO, *ASPECT_RATIOS], default=AUTO, tooltip=tooltip)


def width(tooltip: str) -> io.Int.Input:
    """INT: pixels, for a resolution of custom."""
    return io.Int.Input("width", default=424, min=MIN_SIDE, max=MAX_SIDE, step=2, tooltip=tooltip)


def height(tooltip: str) -> io.Int.Input:
    """INT: pixels, for a resolution of custom."""
    return io.Int.Input("height", default=240, min=MIN_SIDE, max=MAX_SIDE, step=2, tooltip=tooltip)
