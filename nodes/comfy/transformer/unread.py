"""Pictures that stock nodes write into a prompt's conditioning for other models: that nothing reads them is said."""

import logging
import weakref

import torch

# Keys of conditioning that carry a picture or a clip, and the stock nodes that write them.
PICTURES = {
    "concat_latent_image": "WanImageToVideo, WanFirstLastFrameToVideo, InpaintModelConditioning or one of their kind",
    "clip_vision_output": "WanImageToVideo, HunyuanImageToVideo or one of their kind",
    "unclip_conditioning": "unCLIPConditioning",
    "reference_latents": "ReferenceLatent or one of its kind",
    "ref_latent": "HunyuanImageToVideo",
    "guiding_frame_index": "HunyuanImageToVideo",
    "keyframe_idxs": "LTXVAddGuide",
    "time_dim_concat": "WanPhantomSubjectToVideo",
    "vace_frames": "WanVaceToVideo",
    "reference_motion": "WanSoundImageToVideo",
    "pose_video_latent": "WanAnimateToVideo",
    "face_video_pixels": "WanAnimateToVideo",
    "control_video": "WanSoundImageToVideo",
    "context_latents": "WanInfiniteTalkToVideo",
    "control": "Apply ControlNet",
}


class Unread:
    """Warns once a run and key. Runs are told apart by their noise, which ComfyUI hands over with every prompt."""

    def __init__(self) -> None:
        self.run, self.said = lambda: None, set()

    def warn(self, conditioning: dict, noise: torch.Tensor) -> None:
        """Log each key of a prompt's `conditioning` that carries a picture which no Open-Sora model reads."""
        if self.run() is not noise:
            self.run, self.said = weakref.ref(noise), set()
        for key, node in PICTURES.items():
            if conditioning.get(key) is not None and key not in self.said:
                self.said.add(key)
                logging.warning(
                    "Open-Sora: the conditioning brings a picture as %s, as from %s. Open-Sora models do not read it, "
                    "so the video will not show it: use Open-Sora Keyframe to pin a picture", key, node,
                )  # fmt: skip
