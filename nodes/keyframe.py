"""The node that pins an image or a clip to a place on the timeline."""

import torch
import torch.nn.functional as F

from .comfy import vae as video_vae
from .comfy.latent import latent_mask, sizes_of, with_sizes
from .comfy.schema import io, schema


def resize_to_fill(pixels, height, width):
    """Scale IMAGE [T, H, W, C] until it covers height x width, then crop the middle, as the original does.

    A single image is scaled bicubically with antialiasing, a clip bilinearly; values stay in 0…1.
    """
    H, W = pixels.shape[1:3]
    if (height, width) == (H, W):
        return pixels
    across, down = width / W, height / H
    scaled = (height, round(W * down)) if down > across else (round(H * across), width)
    kind = {"mode": "bicubic", "antialias": True} if pixels.shape[0] == 1 else {"mode": "bilinear"}
    pixels = F.interpolate(pixels.movedim(-1, 1), size=scaled, align_corners=False, **kind).clamp(0, 1).movedim(1, -1)
    top, left = round((scaled[0] - height) / 2), round((scaled[1] - width) / 2)
    return pixels[:, top : top + height, left : left + width]


def resolve_frame(frame, frames):
    """A frame number in 0 … frames - 1 from one that may count from the end. ValueError beyond both ends."""
    if not -frames <= frame < frames:
        nearest = frames - 1 if frame > 0 else -frames
        raise ValueError(
            f"frame is {frame}, but the clip has {frames} frames; allowed are {-frames} to {frames - 1}, "
            f"the nearest is {nearest}"
        )
    return frame % frames


def plan(groups, frame, count):
    """Which latents `count` images laid from `frame` on pin: a list of latent indices, ascending.

    A single image pins every group it falls into (chunks of Open-Sora 1.3 share a frame); of a clip, the groups that
    it covers entirely.

    Args:
        groups: the video frames behind each latent, as the VAE's `groups` tells them.
    """
    if count == 1:
        return [index for index, group in enumerate(groups) if frame in group]
    return [index for index, group in enumerate(groups) if frame <= group[0] and group[-1] < frame + count]


def encode_groups(encode, pixels, groups, frame, chunk_latents):
    """Latents for the groups that `plan` names.

    Each chunk that the images touch is encoded on its own; where they do not reach, their first or last image is
    repeated, so a lone image fills its chunk.

    Args:
        encode: IMAGE [T, H, W, C] to latents [1, C, T', h, w].
        groups: as for `plan`; every `chunk_latents` of them are one chunk.

    Returns:
        {latent index: [C, h, w]}.
    """
    pinned = plan(groups, frame, len(pixels))
    found = {}
    for start in range(0, len(groups), chunk_latents):
        chunk = groups[start : start + chunk_latents]
        wanted = [index for index in pinned if start <= index < start + chunk_latents]
        if not wanted:
            continue
        positions = (torch.arange(chunk[0][0], chunk[-1][-1] + 1) - frame).clamp(0, len(pixels) - 1)
        if len(pixels) == 1 and len(groups[wanted[0]]) == 1:
            positions = positions[:1]  # a frame that is a latent of its own is encoded as the single image it is
            wanted_at = {wanted[0]: 0}
        else:
            wanted_at = {index: index - start for index in wanted}
        latents = encode(pixels[positions])
        found.update((index, latents[0, :, at]) for index, at in wanted_at.items())
    return found


class OpenSoraKeyframe(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            "Latent",
            node_id="OpenSoraKeyframe",
            display_name="Open-Sora Keyframe",
            description="Pins an image or a clip to the timeline; the sampler fills in the rest. Chain several for first "
            "and last frame, or for a storyboard.",
            search_aliases=["image to video", "first frame", "last frame", "inpaint", "extend"],
            inputs=[
                io.Latent.Input(
                    "latent", tooltip="The clip to pin to, from Empty Open-Sora Latent or another keyframe."
                ),
                io.Vae.Input("vae", tooltip="The Open-Sora video VAE that belongs to the model."),
                io.Image.Input(
                    "image",
                    tooltip="One image, or the frames of a clip. It is scaled to cover the frame, and its middle is "
                    "kept. Of a clip, the groups of frames that it covers entirely are pinned: groups of 4, or with the "
                    "image VAE of Open-Sora 1.0 and 1.1 single frames.",
                ),
                io.Int.Input(
                    "frame",
                    default=0,
                    min=-4096,
                    max=4096,
                    tooltip="Where the image, or the clip's first frame, goes: 0 is the first frame of the video, higher "
                    "is later, and negative counts from the end (-1 is the last).",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How firmly the frame is held. 1 keeps it exactly; lower lets the model start changing it "
                    "earlier in the run; 0 leaves it to the model altogether.",
                ),
            ],
            outputs=[io.Latent.Output(tooltip="The clip with this keyframe, for the sampler or the next keyframe.")],
        )

    @classmethod
    def execute(cls, latent, vae, image, frame, strength):
        network = video_vae.network_of(vae)
        samples, sizes = latent["samples"], sizes_of(latent, counting=network)
        if samples.ndim != 5 or samples.shape[1] != network.latent_channels:
            raise ValueError(
                f"latent has shape {tuple(samples.shape)}; this VAE's video latents have {network.latent_channels} "
                "channels, [batch, channels, frames, height / 8, width / 8], as from Empty Open-Sora Latent"
            )
        frame = resolve_frame(frame, sizes.frames)
        # At least two images of a clip stay: one alone would count as a lone image, which fills its group.
        pixels = resize_to_fill(image[: max(2, sizes.frames - frame), ..., :3], sizes.height, sizes.width)
        groups = network.groups(sizes.frames)
        found = encode_groups(lambda clip: video_vae.encode(vae, clip), pixels, groups, frame, network.chunk_latents)
        if not found:
            raise ValueError(
                f"image is a clip of {len(image)} frames, which from frame {frame} on covers no group of frames "
                "entirely, so nothing would be pinned; give a longer clip, another frame, or a single image"
            )
        samples, mask = samples.clone(), latent_mask(latent)
        for index, content in found.items():
            samples[:, :, index] = content.to(samples)
            mask[:, :, index] = 1.0 - strength
        return io.NodeOutput(with_sizes(latent, sizes, samples=samples, noise_mask=mask))
