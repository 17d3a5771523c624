"""Turns a T5 file into a ComfyUI CLIP, and a prompt into the CONDITIONING that Open-Sora reads."""

import inspect
import logging
from collections import Counter
from types import SimpleNamespace

import comfy.model_management as management
import comfy.sd
import comfy.text_encoders.sd3_clip
import comfy.text_encoders.t5
import comfy.utils
import torch
from comfy import sd1_clip

from ....model.files import metadata_tensor, read_model
from ....model.t5 import check_keys, config_of
from ....model.text import add_scores, clean_caption
from ..sampling.run import base_model_of
from .prompt import split_weights

MAX_LENGTH = 300  # tokens of Open-Sora 1.2 and 1.3; a MODEL says its own (120 in 1.0, 200 in 1.1)
DEFAULT_VERSION, SCORE_VERSIONS = "1.2", ("1.2", "1.3")
METADATA = "opensora_metadata"  # of the file, among what ComfyUI hands a tokenizer
DEVICES = ("default", "cpu")
SPECIAL_TOKENS = {"end": 1, "pad": 0}
# The other half of a whole T5, and what ComfyUI's text encoders have beside every model; encoding needs none of it.
UNUSED = ("decoder.", "lm_head.", "logit_scale", "text_projection")


class OpenSoraT5(sd1_clip.SDClipModel):
    """ComfyUI's T5 of any size, with its attention mask used and handed on."""

    def __init__(self, config, device="cpu", dtype=None, model_options={}):  # noqa: B006 — as ComfyUI declares it
        super().__init__(
            device=device,
            dtype=dtype,
            textmodel_json_config=dict(config),
            special_tokens=SPECIAL_TOKENS,
            model_class=comfy.text_encoders.t5.T5,
            enable_attention_masks=True,
            return_attention_masks=True,
            model_options=model_options,
        )
        self.channels = config["d_model"]


class OpenSoraTextModel(sd1_clip.SD1ClipModel):
    """What comfy.sd.CLIP calls. The name t5xxl is where LoRA loaders look for T5 weights."""

    def __init__(self, config, file_dtype, device="cpu", dtype=None, model_options={}):  # noqa: B006
        dtype = management.pick_weight_dtype(file_dtype, dtype, device)
        super().__init__(
            device=device, dtype=dtype, name="t5xxl", clip_model=OpenSoraT5, model_options=model_options, config=config
        )


class OpenSoraPieceTokenizer(comfy.text_encoders.sd3_clip.T5XXLTokenizer):
    """ComfyUI's T5 tokenizer after Open-Sora's caption cleaning, always padded to one length."""

    def tokenize_with_weights(
        self, text, return_word_ids=False, tokenizer_options=None, clean=True, max_length=None, **kwargs
    ):
        """One row of (token, weight[, word id]), `max_length` long: the prompt, the end token, padding.

        Weights are split off before cleaning, which would take their parentheses away. A prompt that is too long
        loses its end, with a warning in the log.
        """
        max_length = max_length or self.max_length
        row = []
        pieces = [(text, 1.0)] if kwargs.get("disable_weights") else split_weights(text)
        for word, (piece, weight) in enumerate(pieces, start=1):
            ids = self.tokenizer(clean_caption(piece) if clean else piece, verbose=False)["input_ids"]
            # A literal "</s>" in the prompt would end it early.
            row += [(token, weight, word) for token in ids if token not in SPECIAL_TOKENS.values()]
        dropped = len(row) - (max_length - 1)
        if dropped > 0:
            logging.warning(
                "Open-Sora: the prompt has %d tokens and the model reads %d; its last %d tokens were dropped",
                len(row), max_length - 1, dropped,
            )  # fmt: skip
            row = row[: max_length - 1]
        row.append((SPECIAL_TOKENS["end"], 1.0, 0))
        row += [(SPECIAL_TOKENS["pad"], 1.0, 0)] * (max_length - len(row))
        return [row if return_word_ids else [(token, weight) for token, weight, _ in row]]


class OpenSoraTokenizer(sd1_clip.SD1Tokenizer):
    """What comfy.sd.CLIP calls to tokenise; stock CLIP Text Encode gets cleaned captions through it."""

    def __init__(self, embedding_directory=None, tokenizer_data={}):  # noqa: B006
        super().__init__(
            embedding_directory=embedding_directory,
            tokenizer_data=tokenizer_data,
            clip_name="t5xxl",
            name="t5xxl",
            tokenizer=OpenSoraPieceTokenizer,
        )
        self.metadata = tokenizer_data.get(METADATA) or {}

    def state_dict(self):
        """What ComfyUI's Save nodes write beside the weights: the file's metadata."""
        return (
            {f"t5xxl.{key}": tensor for key, tensor in metadata_tensor(self.metadata).items()} if self.metadata else {}
        )


def _quantisation(state_dict, metadata):
    """(state dict as this ComfyUI wants it, model options) for a file that may be quantised."""
    if hasattr(comfy.utils, "convert_old_quants"):
        state_dict, _ = comfy.utils.convert_old_quants(dict(state_dict), model_prefix="", metadata=metadata)
        found = comfy.utils.detect_layer_quantization(state_dict, "")
        return state_dict, {} if found is None else {"quantization_metadata": found}
    if "_quantization_metadata" in metadata or any(key.endswith(".comfy_quant") for key in state_dict):
        raise ValueError(
            "this text encoder is quantised in a way that this version of ComfyUI cannot read; update ComfyUI, or use "
            "t5xxl_fp16.safetensors or t5xxl_fp8_e4m3fn_scaled.safetensors"
        )
    marker = state_dict.get("scaled_fp8")
    if marker is None:
        return state_dict, {}
    dtype = torch.float8_e4m3fn if marker.dtype == torch.float32 else marker.dtype
    return {key: tensor for key, tensor in state_dict.items() if key != "scaled_fp8"}, {"scaled_fp8": dtype}


def load_text_encoder(path, device="default", disable_dynamic=False):
    """A comfy.sd.CLIP around the T5 encoder in `path`: from the bundled one to T5 v1.1 XXL, fp8 included.

    Args:
        path: a single file as ComfyUI users have it, or a Hugging Face folder with its shards (or its index).
        device: "default" leaves the choice to ComfyUI; "cpu" keeps the encoder off the GPU.
        disable_dynamic: ComfyUI asks for a plain ModelPatcher when it clones a model itself.

    Raises ValueError for a damaged file, one that is no T5 encoder, or keys that do not fit.
    """
    try:
        state_dict, metadata, _ = read_model(path)
    except (ValueError, OSError) as error:
        raise ValueError(f"text_encoder_name: {error}") from error
    try:
        state_dict = {key: tensor for key, tensor in state_dict.items() if not key.startswith(UNUSED)}
        tied = state_dict.pop("encoder.embed_tokens.weight", None)  # the same table under its other name
        if tied is not None:
            state_dict.setdefault("shared.weight", tied)
        config = config_of(state_dict)
        check_keys(state_dict, config)
        parameters = comfy.utils.calculate_parameters(state_dict)
        state_dict, model_options = _quantisation(state_dict, metadata)
        file_dtype = _file_dtype(state_dict, quantised=bool(model_options))
    except ValueError as error:
        raise ValueError(f"text_encoder_name: {path}: {error}") from error

    if device == "cpu":
        model_options["load_device"] = model_options["offload_device"] = torch.device("cpu")
    own = metadata.get("opensora") or {}
    tokenizer_data = {"t5xxl_max_length": (own.get("config") or {}).get("max_length", MAX_LENGTH), METADATA: own}
    # Newer versions place the model on its device while they construct it, so it must have its weights by then.
    newer = {"state_dict": [state_dict], "disable_dynamic": disable_dynamic}
    known = inspect.signature(comfy.sd.CLIP.__init__).parameters
    keywords = {name: value for name, value in newer.items() if name in known}
    clip = comfy.sd.CLIP(
        SimpleNamespace(
            clip=OpenSoraTextModel, tokenizer=OpenSoraTokenizer, params={"config": config, "file_dtype": file_dtype}
        ),
        tokenizer_data=tokenizer_data,
        parameters=parameters,
        model_options=model_options,
        **keywords,
    )
    if "state_dict" not in keywords:
        clip.load_sd(state_dict)
    clip.patcher.cached_patcher_init = (_load_patcher, (path, device))
    return clip


def _file_dtype(state_dict, quantised):
    """The dtype to keep weights in: the norms' where layers are quantised, else that of most values."""
    if quantised:
        return state_dict["encoder.final_layer_norm.weight"].dtype
    sizes = Counter()
    for tensor in state_dict.values():
        sizes[tensor.dtype] += tensor.numel()
    return sizes.most_common(1)[0][0]


def _load_patcher(path, device="default", disable_dynamic=False):
    """The patcher alone, which ComfyUI rebuilds to clone it for another device or for compiling."""
    return load_text_encoder(path, device, disable_dynamic).patcher


def encode_prompt(clip, prompt, aesthetic=0.0, motion=0.0, camera=None, clean=True, model=None):
    """CONDITIONING for `prompt`: features [1, L, channels] and `attention_mask` [1, L] (1 = a real token).

    Args:
        clip: a CLIP from `load_text_encoder`.
        aesthetic, motion: scores for the suffixes, 0 leaves one out; camera: a camera motion or None.
        clean: clean the caption as in training.
        model: the MODEL whose token length and wording to use; None is Open-Sora 1.2 with the encoder's own length.
            1.3 has words for scores; older generations have none of their own and get 1.2's numbers.

    Raises ValueError for a CLIP or MODEL of another family, or where the two do not belong together.
    """
    if not isinstance(getattr(clip, "tokenizer", None), OpenSoraTokenizer):
        raise ValueError("clip is not a text encoder for Open-Sora; connect the output of Load Open-Sora Text Encoder")
    max_length, version = None, DEFAULT_VERSION
    if model is not None:
        network = base_model_of(model).diffusion_model
        channels = clip.cond_stage_model.t5xxl.channels
        if channels != network.caption_channels:
            raise ValueError(
                f"clip gives {channels} channels a token, this model reads {network.caption_channels}: the tiny text "
                "encoder belongs to the tiny model, t5xxl to the official ones; choose the other in Load Open-Sora "
                "Text Encoder"
            )
        max_length, version = network.max_caption_length, network.version
    wording = version if version in SCORE_VERSIONS else DEFAULT_VERSION
    prompt = add_scores(prompt, aesthetic or None, motion or None, camera, version=wording)
    tokens = clip.tokenize(prompt, clean=clean, max_length=max_length)
    return clip.encode_from_tokens_scheduled(tokens)
