"""The node that says how firmly a range of a clip's frames is held."""

from . import widgets
from .comfy.foresight import KNOWS_ITSELF, Node, told
from .comfy.latent import clip_sizes, latent_mask, with_sizes
from .comfy.schema import io, schema
from .comfy.vae import video_vae
from .pinning import check_strength, frames_words, resolve_frame
from .report import report
from .upstream import frames_before


def latents_within(groups: list[range], first: int, last: int) -> list[int]:
    """The latents whose frames lie entirely in first … last. ValueError, with the nearest range, where none does.

    Args:
        groups: the video frames behind each latent, as the VAE's `groups` tells them.
    """
    if first > last:
        raise ValueError(
            f"first_frame is frame {first}, which comes after last_frame, frame {last}; the nearest range is "
            f"{last} to {first}"
        )
    found = [index for index, group in enumerate(groups) if first <= group[0] and group[-1] <= last]
    if not found:
        nearest = min(groups, key=lambda group: abs(group[0] - first) + abs(group[-1] - last))
        parts = [index for index, group in enumerate(groups) if group[0] <= last and first <= group[-1]]
        held = " and ".join(frames_words([index], groups) for index in parts)
        raise ValueError(
            f"first_frame {first} to last_frame {last} covers no group of frames entirely; the VAE keeps {held} "
            f"together, the nearest range is {nearest[0]} to {nearest[-1]}"
        )
    return found


def check_range(groups: list[range], first_frame: int, last_frame: int, frames: int) -> list[int]:
    """`latents_within` for frames that may count from the end of a clip of `frames`. ValueError beyond its ends."""
    first = resolve_frame(first_frame, frames, "first_frame")
    return latents_within(groups, first, resolve_frame(last_frame, frames, "last_frame"))


class OpenSoraFrameStrength(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        def frame(name: str, default: int, words: str) -> io.Int.Input:
            return io.Int.Input(name, default=default, min=-4096, max=4096, tooltip=words)

        return schema(
            "Latent",
            shows_report=True,
            node_id="OpenSoraFrameStrength",
            display_name="Open-Sora Frame Strength",
            description="Says how firmly what is in the clip is held over a range of frames. Chain several for ranges "
            "of their own; the later one wins.",
            search_aliases="video to video, vid2vid, v2v, denoise per frame, noise mask",
            hidden=KNOWS_ITSELF,
            inputs=[
                io.Latent.Input("latent", tooltip="The clip, from Open-Sora VAE Encode or another node of this kind."),
                io.Vae.Input("vae", tooltip="The Open-Sora video VAE that made the latent."),
                frame(
                    "first_frame",
                    0,
                    "The first frame of the range: 0 is the first of the video, higher is later, and negative counts "
                    "from the end. A group of frames that the VAE keeps together is meant when the range holds all of "
                    "it.",
                ),
                frame(
                    "last_frame",
                    -1,
                    "The last frame of the range, which belongs to it: -1 is the last of the video; higher makes the "
                    "range longer.",
                ),
                widgets.strength(
                    0.5,
                    "How firmly these frames are held. 1 keeps them exactly; higher keeps more, because the "
                    "model starts to change them only when so little noise is left; 0 leaves them to the model.",
                ),
            ],
            outputs=[io.Latent.Output(tooltip="The clip with this range, for the sampler or the next range.")],
        )

    @classmethod
    def validate_inputs(
        cls, first_frame: int | None = None, last_frame: int | None = None, strength: float | None = None
    ) -> bool | str:
        node = Node.of(cls)
        network, frames = node.network(), frames_before(node)
        groups = network.counting.groups(frames) if network and frames else None
        return told((check_strength, strength), (check_range, groups, first_frame, last_frame, frames))

    @classmethod
    def execute(
        cls, latent: dict, vae: io.Vae.Type, first_frame: int, last_frame: int, strength: float
    ) -> io.NodeOutput:
        network = video_vae.network_of(vae)
        sizes = clip_sizes(latent, network)
        held = check_range(network.counting.groups(sizes.frames), first_frame, last_frame, sizes.frames)
        check_strength(strength)
        mask = latent_mask(latent)
        mask[:, :, held] = 1.0 - strength
        latent = with_sizes(latent, sizes, noise_mask=mask)
        return io.NodeOutput(latent, ui={"opensora": [report(latent, network)]})
