"""How much memory a transformer needs beside its weights, as measured by counting the tensors that are alive."""

import math
from collections.abc import Sequence

import torch

from ....model.transformers.skeleton import VideoTransformer

# Values alive at once for each token and channel of the hidden size, by family, in 16-bit. The blocks decide: q, k and
# v with their norms and rotations.
TOKEN_VALUES = {"stdit": 9, "stdit2": 10, "stdit3": 11, "stdit3_v1_3": 13, "pixart": 9}
CAPTION_VALUES = 3  # likewise for each token of the caption, beside the channels it comes with
LATENT_BYTES = 40  # what a sampler holds of a latent value: noise, latents, masks and both predictions, in fp32
MARGIN = 1.1  # workspaces and what the allocator rounds up, which a count of tensors does not see


def transformer_bytes(
    network: VideoTransformer, shape: Sequence[int], caption_length: int, dtype: torch.dtype
) -> float:
    """Bytes for one call of `network`.

    Args:
        shape: of the noisy latents, [B, C, T, H, W].
        caption_length: tokens of the captions that it reads.
    """
    config, B = network.config, shape[0]
    tokens = B * math.prod(-(-length // patch) for length, patch in zip(shape[2:], config.patch_size))
    values = TOKEN_VALUES[network.family] * config.hidden_size * tokens
    values += B * caption_length * (config.caption_channels + CAPTION_VALUES * config.hidden_size)
    return MARGIN * values * dtype.itemsize + LATENT_BYTES * math.prod(shape)
