"""How long the clip will be that is wired to a node: told before a run, where settings alone decide it."""

from .choices import BY_FRAMES, choose_frames
from .comfy.foresight import Node

# Nodes whose clip is as long as the one that comes in by `latent`.
KEEP_LENGTH = {
    f"OpenSora{name}" for name in ("Keyframe", "Timeline", "MaskStrategy", "FrameStrength", "MaskRegion", "Sampler")
}


def frames_before(node: Node, name: str = "latent") -> int | None:
    """The frames of the clip at the input; None where only a run knows them."""
    at = node.before(name)
    for _ in node.prompt:  # as many steps as there are nodes: wires may run in a circle
        if at is None or at.kind not in KEEP_LENGTH:
            break
        at = at.before("latent")
    if at is None or at.kind != "OpenSoraEmptyLatent" or at.wired("duration"):
        return None
    network, frames = at.network(), at.constant("frames")
    if network is None or frames is None:
        return None
    try:
        return choose_frames(network, frames, at.constant("duration") or BY_FRAMES)
    except (ValueError, KeyError):  # that node says it
        return None
