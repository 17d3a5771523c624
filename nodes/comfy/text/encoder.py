"""The T5 text encoder inside ComfyUI's CLIP: captions cleaned and padded as Open-Sora reads them."""

import logging
from typing import Any

import comfy.model_management as management
import comfy.text_encoders.sd3_clip
import comfy.text_encoders.t5
import torch
from comfy import sd1_clip

from ....model.files import metadata_tensor
from ....model.text import clean_caption
from .prompt import split_weights

METADATA = "opensora_metadata"  # of the file, among what ComfyUI hands a tokenizer
SPECIAL_TOKENS = {"end": 1, "pad": 0}
Device = torch.device | str


class OpenSoraT5(sd1_clip.SDClipModel):
    """ComfyUI's T5 of any size, with its attention mask used and handed on."""

    def __init__(
        self, config: dict, device: Device = "cpu", dtype: torch.dtype | None = None, model_options: dict | None = None
    ) -> None:
        super().__init__(
            device=device,
            dtype=dtype,
            textmodel_json_config=dict(config),
            special_tokens=SPECIAL_TOKENS,
            model_class=comfy.text_encoders.t5.T5,
            enable_attention_masks=True,
            return_attention_masks=True,
            model_options=model_options or {},
        )
        self.channels = config["d_model"]


class OpenSoraTextModel(sd1_clip.SD1ClipModel):
    """What comfy.sd.CLIP calls. The name t5xxl is where LoRA loaders look for T5 weights."""

    def __init__(
        self, config: dict, file_dtype: torch.dtype, device: Device = "cpu", dtype: torch.dtype | None = None,
        model_options: dict | None = None,
    ) -> None:  # fmt: skip
        dtype = management.pick_weight_dtype(file_dtype, dtype, device)
        super().__init__(
            device=device,
            dtype=dtype,
            name="t5xxl",
            clip_model=OpenSoraT5,
            model_options=model_options or {},
            config=config,
        )


class OpenSoraPieceTokenizer(comfy.text_encoders.sd3_clip.T5XXLTokenizer):
    """ComfyUI's T5 tokenizer after Open-Sora's caption cleaning, always padded to one length."""

    def tokenize_with_weights(
        self, text: str, return_word_ids: bool = False, tokenizer_options: dict | None = None, clean: bool = True,
        max_length: int | None = None, **kwargs: Any,
    ) -> list[list[tuple]]:  # fmt: skip
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

    def __init__(self, embedding_directory: str | None = None, tokenizer_data: dict | None = None) -> None:
        super().__init__(
            embedding_directory=embedding_directory,
            tokenizer_data=tokenizer_data or {},
            clip_name="t5xxl",
            name="t5xxl",
            tokenizer=OpenSoraPieceTokenizer,
        )
        self.metadata = (tokenizer_data or {}).get(METADATA) or {}

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What ComfyUI's Save nodes write beside the weights: the file's metadata."""
        own = metadata_tensor(self.metadata) if self.metadata else {}
        return {f"t5xxl.{key}": tensor for key, tensor in own.items()}


def refuse_other_clip(clip: object) -> None:
    """ValueError for a CLIP that is none of this pack's."""
    if not isinstance(getattr(clip, "tokenizer", None), OpenSoraTokenizer):
        raise ValueError("clip is not a text encoder for Open-Sora; connect the output of Load Open-Sora Text Encoder")


def refuse_other_width(clip: Any, network: Any) -> None:
    """ValueError for a CLIP of this pack whose features a transformer cannot read."""
    channels = clip.cond_stage_model.t5xxl.channels
    if channels != network.caption_channels:
        raise ValueError(
            f"clip gives {channels} channels a token, this model reads {network.caption_channels}: the tiny text "
            "encoder belongs to the tiny model, t5xxl to the official ones; choose the other in Load Open-Sora "
            "Text Encoder"
        )
