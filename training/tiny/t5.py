"""The tiny T5 text encoder and its tokenizer: captions to features."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import transformers


def build_model(config: dict, vocab_size: int | None = None) -> transformers.T5EncoderModel:
    """An untrained T5 v1.1 encoder of the given sizes: gated GELU, position bias in the first block only."""
    sizes = {name: config[name] for name in ("d_model", "num_layers", "num_heads", "d_kv", "d_ff")}
    return transformers.T5EncoderModel(
        transformers.T5Config(
            **sizes,
            vocab_size=vocab_size or config["vocab_size"],
            feed_forward_proj="gated-gelu_pytorch_tanh",
            dropout_rate=0.0,
            pad_token_id=0,
            eos_token_id=1,
        )
    )


def load_model(state_dict: dict[str, torch.Tensor], config: dict) -> transformers.T5EncoderModel:
    """The encoder with these weights, in fp32, ready to encode. Missing or unexpected keys raise RuntimeError."""
    model = build_model(config)
    tied = {"encoder.embed_tokens.weight": state_dict["shared.weight"]}
    model.load_state_dict({name: value.float() for name, value in {**state_dict, **tied}.items()})
    return model.eval().requires_grad_(False)


def load_tokenizer(folder: str | os.PathLike) -> transformers.PreTrainedTokenizerBase:
    """The T5 tokenizer of this folder (`tokenizer.json` and its companions)."""
    if not (Path(folder) / "tokenizer.json").is_file():
        raise ValueError(f"tokenizer is {str(folder)!r}; it must be a folder that holds tokenizer.json")
    return transformers.AutoTokenizer.from_pretrained(str(folder))


def pad(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask [N, L], padded on the right with 0, the T5 padding token."""
    length = max(len(row) for row in rows)
    tokens = torch.tensor([[*row, *[0] * (length - len(row))] for row in rows])
    mask = torch.arange(length) < torch.tensor([[len(row)] for row in rows])
    return tokens, mask.long()


@torch.no_grad()
def encode(
    model: transformers.T5EncoderModel,
    tokenizer: transformers.PreTrainedTokenizerBase,
    captions: Sequence[str],
    max_length: int = 120,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features [N, max_length, 64] in fp32 and mask [N, max_length] (1 = a real token) of cleaned captions.

    The end token is appended, longer captions are cut, padding goes to the right and is attended by nobody. The
    features of padding are zero: they mean nothing.
    """
    rows = tokenizer(list(captions), truncation=True, max_length=max_length)["input_ids"]
    tokens, mask = pad(rows)
    features = model(input_ids=tokens, attention_mask=mask).last_hidden_state * mask[..., None]
    extra = max_length - tokens.shape[1]
    return torch.nn.functional.pad(features, (0, 0, 0, extra)), torch.nn.functional.pad(mask, (0, extra))


class TextEncoder(NamedTuple):
    """The tiny T5 and its tokenizer."""

    model: transformers.T5EncoderModel
    tokenizer: transformers.PreTrainedTokenizerBase

    def captions(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Features and mask of captions as `encode` gives them, cut to the longest of them."""
        features, mask = encode(*self, texts)
        length = int(mask.sum(1).max())
        return features[:, :length], mask[:, :length]
