"""Open-Sora 1.2 as a ComfyUI BaseModel: latent format, conditioning, kept frames, memory estimate."""

import math

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_sampling
import comfy.supported_models_base
import torch

from ...model.flow import NUM_TIMESTEPS
from . import latent as latent_keys
from .transformer import OpenSoraTransformer

FLOW_KEYS = ("base_resolution", "base_num_frames", "scale")


def flow_settings(metadata):
    """Keyword arguments of `model.flow.shift_ratio` and `timesteps` from a file's metadata; newer files may say more."""
    flow = metadata.get("flow") or {}
    return {key: flow[key] for key in FLOW_KEYS if key in flow}


def frames_side_by_side(x0):
    """Lay all latent frames [B, C, T, H, W] out in one picture [B, C, 1, rows · H, columns · W] for previews.

    ComfyUI previews the first frame only, which stands still when that frame is pinned.
    """
    if x0.ndim != 5 or x0.shape[2] == 1:
        return x0
    B, C, T, H, W = x0.shape
    columns = min(T, max(1, round(math.sqrt(T * H / W))))
    rows = -(-T // columns)
    x0 = torch.cat([x0, x0.new_zeros(B, C, rows * columns - T, H, W)], dim=2)
    x0 = x0.unflatten(2, (rows, columns)).permute(0, 1, 2, 4, 3, 5)
    return x0.reshape(B, C, 1, rows * H, columns * W)


class OpenSoraLatents(comfy.latent_formats.LatentFormat):
    """Latents of the video VAE 1.2; they are normalised already."""

    scale_factor = 1.0
    latent_channels = 4
    latent_dimensions = 3
    spacial_downscale_ratio = 8
    temporal_downscale_ratio = 4
    # No official file was at hand to fit these to: a neutral guess. Files of this pack carry their own.
    latent_rgb_factors = [[0.20, 0.15, 0.15], [0.10, 0.20, 0.10], [-0.05, 0.05, 0.15], [-0.20, -0.20, -0.25]]

    def __init__(self):
        self.latent_rgb_factors_reshape = frames_side_by_side


class OpenSoraConfig(comfy.supported_models_base.BASE):
    """Sampling settings and dtypes; `unet_config` is what the network's constructor takes."""

    unet_config = {}
    unet_extra_config = {}
    sampling_settings = {"shift": 1.0, "multiplier": NUM_TIMESTEPS}
    latent_format = OpenSoraLatents
    memory_usage_factor = 0.6  # of XL/2; the loader scales it with the width of the network
    supported_inference_dtypes = [torch.bfloat16, torch.float16, torch.float32]


class OpenSoraModel(comfy.model_base.BaseModel):
    """STDiT3 with ComfyUI's rectified-flow sampling and the frame mask of Open-Sora 1.2."""

    clip_sizes = None  # latent.Sizes, set through an object patch by OpenSoraModelSampling

    def __init__(self, model_config, metadata=None, device=None):
        super().__init__(model_config, comfy.model_base.ModelType.FLOW, device=device, unet_model=OpenSoraTransformer)
        self.metadata = metadata or {}

    @property
    def flow(self):
        """Keyword arguments of `model.flow.timesteps` that belong to this checkpoint."""
        return flow_settings(self.metadata)

    def extra_conds(self, **kwargs):
        """Everything the network is told beside the noisy latents and the caption; numbers stay fp32."""
        out = super().extra_conds(**kwargs)
        self.refuse_misfits(**kwargs)
        attention_mask = kwargs.get("attention_mask")
        if attention_mask is not None:
            out["attention_mask"] = comfy.conds.CONDRegular(attention_mask.to(torch.int32))
        mask = kwargs.get("denoise_mask")
        if mask is not None:
            out["denoise_mask"] = comfy.conds.CONDRegular(mask[:, :1])
        own, shape = self.clip_sizes, kwargs["noise"].shape
        sizes = (
            latent_keys.fit(shape)
            if own is None
            else latent_keys.fit(shape, fps=own.fps, frames=own.frames, height=own.height, width=own.width)
        )
        # Plain numbers: ComfyUI casts tensors to the model's dtype, and bf16 would turn 854 pixels into 856.
        for name, value in (("fps", sizes.model_fps), ("height", sizes.height), ("width", sizes.width)):
            out[name] = comfy.conds.CONDConstant(float(value))
        out["num_frames"] = comfy.conds.CONDConstant(float(sizes.frames))
        return out

    def refuse_misfits(self, noise, cross_attn=None, attention_mask=None, prompt_type="positive", **kwargs):
        """ValueError for latents or captions that belong to another model."""
        channels = self.latent_format.latent_channels
        if noise.ndim != 5 or noise.shape[1] != channels:
            raise ValueError(
                f"latent has shape {tuple(noise.shape)}; this model takes video latents with {channels} channels, "
                "[batch, 4, frames, height / 8, width / 8], as from Empty Open-Sora Latent"
            )
        if cross_attn is None:
            return
        wanted = self.diffusion_model.caption_channels
        if cross_attn.shape[-1] != wanted:
            raise ValueError(
                f"{prompt_type} has {cross_attn.shape[-1]} channels a token, this model reads {wanted}: it was encoded "
                "by another text encoder; use the one that belongs to this model in Load Open-Sora Text Encoder"
            )
        if attention_mask is not None and attention_mask.shape[-1] != cross_attn.shape[1]:
            raise ValueError(
                f"{prompt_type} has {cross_attn.shape[1]} tokens but a mask for {attention_mask.shape[-1]}; encode it "
                "with Open-Sora Text Encode"
            )

    def process_timestep(self, timestep, x=None, denoise_mask=None, **kwargs):
        """[B], or with a frame mask [B, T]: the timestep of a frame that is generated, 0 of one that is kept."""
        if denoise_mask is None:
            return timestep
        strongest = denoise_mask.float().amax(dim=(1, 3, 4))
        rows = timestep.view(-1, 1)
        return torch.where(strongest * NUM_TIMESTEPS >= rows, rows, torch.zeros_like(rows))

    def scale_latent_inpaint(self, sigma, noise, latent_image, **kwargs):
        """Kept frames enter the network clean, not noised: that is what the frame mask was trained on."""
        return latent_image


def compute_dtype(model):
    """The dtype that `model` (a BaseModel) computes in."""
    return model.manual_cast_dtype or model.get_dtype()


def wake_frames(sigma, denoise_mask, extra_options):
    """ComfyUI's denoise-mask function: 1 where a mask value m is active, m · 1000 ≥ t, else 0.

    This is how Open-Sora reads partial values: a frame stays clean until the noise has come down to its strength.
    """
    base = extra_options["model"].inner_model
    # Through the model's dtype and back, so that this and `process_timestep` agree on every frame.
    mask = denoise_mask.to(compute_dtype(base)).to(denoise_mask)
    t = base.model_sampling.timestep(sigma).view(-1, *[1] * (mask.ndim - 1))
    return (mask * NUM_TIMESTEPS >= t).to(mask)


def keep_frames(
    executor, guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask=None, disable_pbar=False
):
    """Sampler wrapper: frames that never woke leave a run bit for bit as they entered it.

    Samplers carry them along on their own line from noise to data, which ends a rounding error away.
    """
    samples = executor(guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar)
    if denoise_mask is None or len(sigmas) < 2:
        return samples
    asleep = denoise_mask == 0
    if extra_args["model_options"].get("denoise_mask_function") is wake_frames:
        asleep = wake_frames(sigmas[-2:-1], denoise_mask, {"model": guider}) == 0
    return torch.where(asleep.to(samples.device), latent_image.to(samples), samples)
