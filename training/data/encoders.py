"""The command line's own encoders: the VAE of `model/`, and T5 by transformers. They make what `cache` keeps."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...model.checkpoints.loading import plan_vae
from ...model.checkpoints.t5 import QUANTISATION, check_keys, config_of
from ...model.files import read_model
from ...model.text import clean_caption

BUNDLED = "bundled"
BUNDLED_FOLDER = Path(__file__).parents[2] / "model" / "bundled"
CAPTION_LENGTHS = {"1.0": 120, "1.1": 200, "1.2": 300, "1.3": 300}  # tokens that each generation reads
TOKENIZER = "tokenizer.json"
COMFYUI_TOKENIZER = Path("comfy") / "text_encoders" / "t5_tokenizer"
PAD, END = 0, 1
# The other half of a whole T5, and what text encoders for ComfyUI have beside every model; encoding needs none of it.
UNUSED = ("decoder.", "lm_head.", "logit_scale", "text_projection")


class VideoEncoder:
    """A VAE for `Cache.latents`; its weights are read when the first clip is encoded.

    Args:
        path: a file or folder as `read_model` takes it, or "bundled".

    Raises ValueError for a file that cannot be read, or is no VAE of Open-Sora.
    """

    def __init__(
        self,
        path: str | os.PathLike = BUNDLED,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        path = BUNDLED_FOLDER / "vae.safetensors" if path == BUNDLED else path
        state_dict, _, config = _read("VAE", path)
        self.plan = _named("VAE", path, lambda: plan_vae(state_dict, config))
        self.dtype, self.device = dtype, torch.device(device)
        built = self.plan.build()
        self.counting, self.latent_channels = built.counting, built.latent_channels

    @cached_property
    def key(self) -> str:
        """Tells this VAE from others: a sha256 of its weights, its configuration and the dtype that it computes in."""
        return digest(self.plan.weights, self.plan.config, self.dtype)

    @cached_property
    def module(self) -> Any:
        """The VAE itself, on its device."""
        module, exact = self.plan.build(), self.plan.network.OPTIONAL
        weights = {
            key: tensor.to(self.device, torch.float32 if key in exact else self.dtype)
            for key, tensor in self.plan.weights.items()
        }
        module.load_state_dict(weights, strict=True, assign=True)
        return module.to(self.device).eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, video: Tensor) -> Tensor:
        """Latents [1, C, T', h, w] on the CPU, fp32, of a video [1, 3, T, H, W] in -1…1: the posterior's mode."""
        return self.module.encode(video.to(self.device)).float().cpu()

    @torch.no_grad()
    def decode(self, latents: Tensor, num_frames: int) -> Tensor:
        """Video [1, 3, T, H, W] in -1…1, on the CPU, of latents [1, C, T', h, w]."""
        return self.module.decode(latents.to(self.device, self.dtype), num_frames).float().cpu()


class TextEncoder:
    """A T5 for `Cache.text`; its weights are read when the first caption is encoded.

    Args:
        path: a file or folder as `read_model` takes it, or "bundled".
        tokenizer: the folder with T5's tokenizer.json; None looks beside the weights, then into ComfyUI.
        max_length: tokens of a caption; None takes what the file says, else what `version` reads.

    Raises ValueError for a file that cannot be read, is no T5 or is quantised, and where there is no tokenizer.
    """

    def __init__(
        self,
        path: str | os.PathLike = BUNDLED,
        tokenizer: str | os.PathLike | None = None,
        max_length: int | None = None,
        version: str = "1.2",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if version not in CAPTION_LENGTHS:
            raise ValueError(f"version is {version!r}; it must be one of {', '.join(CAPTION_LENGTHS)}")
        path = Path(BUNDLED_FOLDER / "text_encoder.safetensors" if path == BUNDLED else path)
        state_dict, metadata, _ = _read("text encoder", path)
        self.state_dict = _encoder_alone(state_dict)
        self.config = _named("text encoder", path, lambda: _checked(self.state_dict))
        own = (metadata.get("opensora") or {}).get("config") or {}
        self.max_length = max_length or own.get("max_length") or CAPTION_LENGTHS[version]
        self.tokenizer_folder = find_tokenizer(tokenizer, path)
        self.dtype, self.device = dtype, torch.device(device)

    @cached_property
    def key(self) -> str:
        """Tells this encoder from others: a sha256 of weights, tokenizer, length and the dtype that it computes in."""
        tokens = hashlib.sha256((self.tokenizer_folder / TOKENIZER).read_bytes()).hexdigest()
        return digest(self.state_dict, self.config, self.dtype, self.max_length, tokens)

    @cached_property
    def module(self) -> Any:
        """transformers' T5EncoderModel, on its device."""
        module = t5_module(self.config)
        table = self.state_dict["shared.weight"]
        weights = {**self.state_dict, "encoder.embed_tokens.weight": table}
        module.load_state_dict({key: tensor.to(self.dtype) for key, tensor in weights.items()}, assign=True)
        return module.to(self.device).eval().requires_grad_(False)

    @cached_property
    def tokenizer(self) -> Any:
        """transformers' tokenizer."""
        return load_tokenizer(self.tokenizer_folder)

    def tokens(self, caption: str) -> list[int]:
        """Token ids of a caption, cleaned, cut to the length, the end token last: as the nodes read prompts."""
        ids = self.tokenizer(clean_caption(caption), verbose=False)["input_ids"]
        return [*[token for token in ids if token not in (PAD, END)][: self.max_length - 1], END]

    @torch.no_grad()
    def __call__(self, caption: str) -> tuple[Tensor, Tensor]:
        """Features [L, C] on the CPU, fp32 and zero in the padding, and mask [L] (1 = a real token)."""
        tokens = torch.tensor([self.tokens(caption)], device=self.device)
        # Padding is attended by nobody: without it the features of the others are the same.
        found = self.module(input_ids=tokens).last_hidden_state[0].float().cpu()
        features = found.new_zeros(self.max_length, found.shape[1])
        features[: len(found)] = found
        return features, (torch.arange(self.max_length) < len(found)).long()


def digest(state_dict: Mapping[str, Tensor], *settings: object) -> str:
    """sha256 over weights, whatever file they come from, and the `repr` of settings."""
    found = hashlib.sha256(repr(settings).encode())
    for key in sorted(state_dict):
        tensor = state_dict[key].detach().cpu().contiguous()
        found.update(f"{key} {tensor.dtype} {list(tensor.shape)}".encode())
        values: Any = tensor.reshape(-1).view(torch.uint8).numpy()
        found.update(values)
    return found.hexdigest()


def t5_module(config: Mapping[str, Any]) -> Any:
    """An untrained T5 encoder (transformers' T5EncoderModel) of a configuration as `config_of` tells it."""
    transformers = _transformers()
    sizes = {name: config[name] for name in ("vocab_size", "d_model", "num_layers", "num_heads", "d_kv", "d_ff")}
    activation = "gated-gelu_pytorch_tanh" if config.get("is_gated_act", True) else "relu"
    return transformers.T5EncoderModel(
        transformers.T5Config(
            **sizes, feed_forward_proj=activation, dropout_rate=0.0, pad_token_id=PAD, eos_token_id=END
        )
    )


def load_tokenizer(folder: str | os.PathLike) -> Any:
    """The T5 tokenizer of this folder (`tokenizer.json` and its companions). Raises ValueError without one."""
    if not (Path(folder) / TOKENIZER).is_file():
        raise ValueError(f"tokenizer is {str(folder)!r}; it must be a folder that holds {TOKENIZER}")
    return _transformers().AutoTokenizer.from_pretrained(str(folder))


def find_tokenizer(folder: str | os.PathLike | None, weights: Path) -> Path:
    """The folder with T5's tokenizer.json: the one given, or beside the weights, or in ComfyUI. ValueError without."""
    places = [Path(folder)] if folder is not None else list(_places(weights))
    found = next((place for place in places if (place / TOKENIZER).is_file()), None)
    if found is None:
        raise ValueError(
            f"tokenizer is {folder and str(folder)!r}; it must be a folder that holds {TOKENIZER}; looked in "
            f"{', '.join(map(str, places))}; ComfyUI has one in {COMFYUI_TOKENIZER.as_posix()}"
        )
    return found


def _places(weights: Path) -> Iterator[Path]:
    folder = weights if weights.is_dir() else weights.parent
    yield from (folder, folder / "tokenizer", folder.parent / "tokenizer")
    if os.environ.get("COMFYUI_PATH"):
        yield Path(os.environ["COMFYUI_PATH"]) / COMFYUI_TOKENIZER
    yield Path(__file__).absolute().parents[4] / COMFYUI_TOKENIZER  # where the pack lies in custom_nodes/


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ValueError("text is encoded with the package transformers: pip install transformers") from error
    return transformers


def _read(what, path):
    try:
        return read_model(path)
    except (ValueError, OSError) as error:
        raise ValueError(f"{what}: {error}") from error


def _named(what, path, plan):
    """What `plan` returns, its refusals with the file's name."""
    try:
        return plan()
    except ValueError as error:
        raise ValueError(f"{what}: {path}: {error}") from error


def _encoder_alone(state_dict):
    """A T5's weights without its decoder, the table of its words under one name."""
    found = {key: tensor for key, tensor in state_dict.items() if not key.startswith(UNUSED)}
    tied = found.pop("encoder.embed_tokens.weight", None)
    return found if tied is None else {"shared.weight": tied, **found}


def _checked(state_dict):
    """The configuration of these weights, all of which are there and as they are."""
    config = config_of(state_dict)
    check_keys(state_dict, config)
    quantised = [key for key in state_dict if key.rpartition(".")[2] in QUANTISATION or key == "scaled_fp8"]
    if quantised:
        raise ValueError(f"it is quantised ({quantised[0]}, …), which is not read here; use t5xxl_fp16.safetensors")
    return config
