"""Context windows: which latents of the clip a call of the network shows, and what it is told of them."""

from collections.abc import Sequence

from ....model.frames import IMAGE_FPS
from ..latent import COUNTING
from ..versions import has_anchor

TIME = 2  # the dimension of latents [B, C, T, h, w] that windows over time slide along


def indices(transformer_options: dict, retained: Sequence[int] = ()) -> list[int] | None:
    """The clip's latent indices that the running call shows, in order; None where it shows the whole clip.

    Newer versions of ComfyUI put the latent before the window in front of it (causal_window_fix), and let the artist
    keep some positions for latents of the same index (latent_retain_index_list): `retained`.
    """
    window = transformer_options.get("context_window")
    if window is None or window.dim != TIME:
        return None
    shown = list(window.index_list)
    if has_anchor(window):
        shown.insert(0, window.causal_anchor_index)
    for position in retained:
        shown[position] = position % window.total_frames
    return shown


def in_window(shown: list[int], version: str, told: dict) -> dict:
    """The network's keyword arguments `told` for the clip's latents `shown`: masks and conditions cut to them.

    A window is a clip of its own to the network, which has only ever been told the length of what it saw; the frame
    rate stays. 1.1 alone looks at the length.
    """
    told = {**told, "num_frames": float(COUNTING[version].video_frames(len(shown)))}
    if len(shown) == 1:
        told["fps"] = IMAGE_FPS
    for name, dim in (("frame_mask", 1), ("condition", TIME), ("condition_mask", TIME)):
        if told.get(name) is not None:
            told[name] = told[name].movedim(dim, 0)[shown].movedim(0, dim)
    if told.get("condition_frames") is not None:
        kept = told["condition_frames"]
        told["condition_frames"] = [position for position, index in enumerate(shown) if index in kept]
    return told
