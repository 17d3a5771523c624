"""Open-Sora transformers as ComfyUI BaseModels: conditioning, kept frames, memory estimate."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import comfy.conds
import comfy.model_base
import comfy.model_sampling
import comfy.supported_models_base
import torch
from torch import Tensor

from ....model.files import metadata_tensor
from ....model.flow import NUM_TIMESTEPS
from ....model.transformers.skeleton import VideoTransformer
from ..latent import fit, refuse_misfit
from ..latent_formats import CausalLatents, FrameLatents, VideoLatents
from . import windows
from .activations import transformer_bytes
from .kept_frames import ConditionFrames, FlowFrames, StepFrames, strongest
from .network import VARIANCE, hosted
from .unread import Unread

# What may take the place of a model's own sampling, and the stock node that gives it.
SAMPLING = {
    "flow": (comfy.model_sampling.CONST, "ModelSamplingSD3"),
    "epsilon": (comfy.model_sampling.EPS, "ModelSamplingDiscrete"),
}
FLOW_KEYS = ("base_resolution", "base_num_frames", "scale")


def flow_settings(metadata: dict, version: str = "1.2") -> dict[str, Any]:
    """Keyword arguments of `model.flow.shift_ratio` and `timesteps` from a file's metadata; newer files say more."""
    flow = metadata.get("flow") or {}
    found = {key: flow[key] for key in FLOW_KEYS if key in flow}
    return found if version == "1.2" else {**found, "version": version}


class OpenSoraConfig(comfy.supported_models_base.BASE):
    """Sampling settings and dtypes; `unet_config` is what the network's constructor takes."""

    unet_config = {}
    unet_extra_config = {}
    sampling_settings = {"shift": 1.0, "multiplier": NUM_TIMESTEPS}
    latent_format = VideoLatents
    supported_inference_dtypes = [torch.bfloat16, torch.float16, torch.float32]
    file_metadata = None  # of the file that the model was loaded from

    def process_unet_state_dict_for_saving(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """ComfyUI's keys for its Save nodes, which write no metadata of ours: that goes along as a tensor."""
        if self.file_metadata is not None:
            state_dict = {**state_dict, **metadata_tensor(self.file_metadata)}
        return super().process_unet_state_dict_for_saving(state_dict)


class EpsilonConfig(OpenSoraConfig):
    """ComfyUI calls betas that rise in a straight line, as the original's do, sqrt_linear."""

    sampling_settings = {"beta_schedule": "sqrt_linear", "linear_start": 1e-4, "linear_end": 0.02}
    latent_format = FrameLatents


class CausalConfig(OpenSoraConfig):
    """Open-Sora 1.3."""

    latent_format = CausalLatents


class OpenSoraModel(comfy.model_base.BaseModel):
    """A transformer of any family with what all share; as it stands, Open-Sora 1.2 with its rectified flow."""

    config_class = OpenSoraConfig
    model_type_of_family = comfy.model_base.ModelType.FLOW
    kept_frames = FlowFrames()
    clip_sizes = None  # latent.Sizes, set through an object patch by OpenSoraModelSampling
    regions = None  # kept_frames.Regions of the run that is going on
    cache = None  # caching.Cache of the run that is going on
    retained = ()  # positions that its context windows keep for latents of the same index

    def __init__(
        self,
        config: OpenSoraConfig,
        family: type[VideoTransformer],
        metadata: dict | None = None,
        device: object = None,
    ) -> None:
        comfy.model_base.BaseModel.__init__(
            self, config, self.model_type_of_family, device=device, unet_model=hosted(family)
        )
        self.metadata = self.model_config.file_metadata = metadata or {}
        self.unread = Unread()

    @property
    def version(self) -> str:
        """The generation: "1.0", "1.1", "1.2", "1.3" or "pixart"."""
        return self.diffusion_model.version

    @property
    def flow(self) -> dict[str, Any]:
        """Keyword arguments of `model.flow.timesteps` that belong to this checkpoint."""
        return flow_settings(self.metadata, self.version)

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """Everything the network is told beside the noisy latents and the caption; numbers stay fp32."""
        out = super().extra_conds(**kwargs)
        self.refuse_misfits(**kwargs)
        self.unread.warn(kwargs, kwargs["noise"])
        attention_mask = kwargs.get("attention_mask")
        if attention_mask is not None:
            out["attention_mask"] = comfy.conds.CONDRegular(attention_mask.to(torch.int32))
        out.update(self.frame_conds(kwargs.get("denoise_mask"), kwargs.get("latent_image")))
        sizes = fit(kwargs["noise"].shape, {} if self.clip_sizes is None else asdict(self.clip_sizes), self.version)
        # Plain numbers: ComfyUI casts tensors to the model's dtype, and bf16 would turn 854 pixels into 856.
        for name, value in (("fps", sizes.model_fps), ("height", sizes.height), ("width", sizes.width)):
            out[name] = comfy.conds.CONDConstant(float(value))
        out["num_frames"] = comfy.conds.CONDConstant(float(sizes.frames))
        return out

    def frame_conds(self, mask: Tensor | None, latent_image: Tensor | None) -> dict[str, comfy.conds.CONDRegular]:
        """The conds that tell the network of kept frames, from a noise mask [B, 1 or C, T, h, w] or None."""
        return {} if mask is None else {"denoise_mask": comfy.conds.CONDRegular(mask[:, :1])}

    def memory_required(self, input_shape: Sequence[int], cond_shapes: dict[str, list] = {}) -> float:  # noqa: B006 — as ComfyUI declares it
        """Bytes for one call with latents of `input_shape` [B, C, T, H, W], beside the weights.

        ComfyUI asks before it loads the model, with what `extra_conds_shapes` says of each prompt, and before each
        call, with the shapes of all conds; captions it does not tell of count as long as the network's own.
        """
        network = self.diffusion_model
        captions = cond_shapes.get("c_crossattn")
        length = max(shape[1] for shape in captions) if captions else network.max_caption_length
        dtype = compute_dtype(self)
        kept = 0 if self.cache is None else self.cache.bytes(input_shape, dtype)
        return transformer_bytes(network, input_shape, length, dtype) + kept

    def extra_conds_shapes(self, cross_attn: Tensor | None = None, **kwargs: object) -> dict[str, list[int]]:
        """The shape of a prompt's caption, for `memory_required`."""
        return {} if cross_attn is None else {"c_crossattn": list(cross_attn.shape)}

    def refuse_misfits(
        self, noise: Tensor, cross_attn: Tensor | None = None, attention_mask: Tensor | None = None,
        prompt_type: str = "positive", **kwargs: object,
    ) -> None:  # fmt: skip
        """ValueError for latents or captions that belong to another model."""
        own, node = SAMPLING[self.diffusion_model.prediction]
        if not isinstance(self.model_sampling, own):
            bases = " and ".join(base.__name__ for base in type(self.model_sampling).__bases__)
            raise ValueError(
                f"model was given the sampling of another kind of model ({bases}); {self.version} takes that of "
                f"{node}, or its own: leave the other node out"
            )
        refuse_misfit(noise.shape, "latent", self.latent_format.latent_channels, "model")
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

    def apply_model(
        self, x: Tensor, t: Tensor, c_concat: Tensor | None = None, c_crossattn: Tensor | None = None,
        control: object = None, transformer_options: dict = {}, denoise_mask: Tensor | None = None, **kwargs: Any  # noqa: B006 — as ComfyUI declares it
    ) -> Tensor:  # fmt: skip
        """As ComfyUI's; the noise mask becomes the frame mask here, before it would be rounded to the model's dtype."""
        if denoise_mask is not None:
            sigmas = transformer_options.get("sample_sigmas")
            told = self.kept_frames.told(strongest(denoise_mask.float()), t, sigmas, self.model_sampling)
            kwargs["frame_mask"] = told[:, 0, :, 0, 0].to(device=x.device, dtype=torch.int32)
        shown = windows.indices(transformer_options, self.retained)
        if shown is not None:
            kwargs = windows.in_window(shown, self.version, kwargs)
        network = self.diffusion_model
        network.variance = None
        denoised = super().apply_model(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)
        if network.variance is not None:  # taken here: a compiled network would break off for it
            transformer_options[VARIANCE].take(network.variance, transformer_options)
            network.variance = None
        return denoised

    def resize_cond_for_context_window(
        self, cond_key: str, cond_value: Any, window: object, x_in: Tensor, device: object,
        retain_index_list: Sequence[int] = (),
    ) -> Any:  # fmt: skip
        """Every cond as it is: `apply_model` cuts ours, and ComfyUI might take a caption's channels for frames."""
        return cond_value

    def process_timestep(self, timestep: Tensor, **kwargs: object) -> Tensor:
        """The timestep as the network counts, to 1000, whatever a patch of the sampling (Flux, AuraFlow) counts to."""
        if self.diffusion_model.prediction != "flow":
            return timestep
        most = self.model_sampling.timestep(torch.ones_like(timestep))
        return timestep * (NUM_TIMESTEPS / most)

    def scale_latent_inpaint(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, **kwargs: object) -> Tensor:
        """What takes the place of all that is kept, on its way into the network.

        Kept frames enter clean, not noised: that is what the frame mask was trained on. But around a region that is
        being generated, the rest of its frame has the frame's noise: the network is told one timestep for both.
        """
        clean = self.clean_input(sigma, latent_image)
        if self.regions is None:
            return clean
        noised = super().scale_latent_inpaint(sigma=sigma, noise=noise, latent_image=latent_image, **kwargs)
        return torch.where(self.regions.awake(sigma).to(clean.device), noised, clean)

    def clean_input(self, sigma: Tensor, latents: Tensor) -> Tensor:
        """Clean latents [B, C, T, h, w] in the scale of ComfyUI's samplers at `sigma` [B]."""
        return latents


class EpsilonModel(OpenSoraModel):
    """Open-Sora 1.0 and 1.1: the noise is predicted, on a schedule of 1000 betas."""

    config_class = EpsilonConfig
    model_type_of_family = comfy.model_base.ModelType.EPS
    kept_frames = StepFrames()

    def clean_input(self, sigma: Tensor, latents: Tensor) -> Tensor:
        """The network's input is divided by what they are multiplied with here."""
        return latents * (sigma**2 + 1).sqrt().view(-1, *[1] * (latents.ndim - 1))


class ImageModel(EpsilonModel, comfy.model_base.PixArt):
    """PixArt: an image is a video of one frame. LoRA loaders know diffusers' names for what is ComfyUI's PixArt too."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        config = self.diffusion_model.config
        self.model_config.unet_config.update(depth=config.depth, hidden_size=config.hidden_size)

    def refuse_misfits(self, noise: Tensor, **kwargs: Any) -> None:
        super().refuse_misfits(noise, **kwargs)
        if noise.shape[2] != 1:
            raise ValueError(
                f"latent has {noise.shape[2]} frames; this is a PixArt model, which makes images: set frames to 1"
            )


class CausalModel(OpenSoraModel):
    """Open-Sora 1.3: rectified flow; kept frames are a condition beside the noisy latents."""

    config_class = CausalConfig
    kept_frames = ConditionFrames()

    def frame_conds(self, mask: Tensor | None, latent_image: Tensor | None) -> dict[str, comfy.conds.CONDRegular]:
        """`condition`, `condition_mask` [B, C, T, h, w] and `condition_frames` for the frames of mask value 0.

        Frames with a value between 0 and 1 follow the rule of 1.2.
        """
        if mask is None:
            return {}
        out = super().frame_conds(mask, latent_image) if ((mask > 0) & (mask < 1)).any() else {}
        frames = tuple((mask.amax(dim=(0, 1, 3, 4)) == 0).nonzero().flatten().tolist())
        if frames and latent_image is not None:
            condition_mask = torch.zeros_like(latent_image)
            condition_mask[:, :, list(frames)] = 1
            out["condition"] = comfy.conds.CONDRegular(latent_image * condition_mask)
            out["condition_mask"] = comfy.conds.CONDRegular(condition_mask)
            out["condition_frames"] = comfy.conds.CONDConstant(frames)
        return out


MODELS = {
    "stdit": EpsilonModel,
    "stdit2": EpsilonModel,
    "stdit3": OpenSoraModel,
    "stdit3_v1_3": CausalModel,
    "pixart": ImageModel,
}


def compute_dtype(model: comfy.model_base.BaseModel) -> torch.dtype:
    """The dtype that `model` (a BaseModel) computes in."""
    return model.manual_cast_dtype or model.get_dtype()


def base_model_of(model: object) -> OpenSoraModel:
    """The OpenSoraModel inside a MODEL. ValueError where it is none of this pack's."""
    base = getattr(model, "model", None)
    if not isinstance(base, OpenSoraModel):
        raise ValueError(
            f"model is {type(base).__name__}, not an Open-Sora transformer; connect the output of Load Open-Sora Model"
        )
    return base
