"""CLIP's image features from a file of weights (arXiv 2103.00020), built by transformers in the sizes that it has."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy
import torch
from PIL import Image
from torch import Tensor

from .packages import needed
from .weights import weights_of

MEAN, SPREAD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of red, green and blue
HEAD = 64  # numbers in an attention head, of every CLIP that OpenAI published
EMBEDDINGS = "vision_model.embeddings"
NEEDED = (
    f"{EMBEDDINGS}.class_embedding",
    f"{EMBEDDINGS}.patch_embedding.weight",
    f"{EMBEDDINGS}.position_embedding.weight",
    "vision_model.encoder.layers.0.mlp.fc1.weight",
    "visual_projection.weight",
)
# OpenAI's names → transformers'; the attention's three maps are one there, and the projection is transposed.
NAMES = (
    (r"^visual\.class_embedding$", f"{EMBEDDINGS}.class_embedding"),
    (r"^visual\.conv1\.", f"{EMBEDDINGS}.patch_embedding."),
    (r"^visual\.positional_embedding$", f"{EMBEDDINGS}.position_embedding.weight"),
    (r"^visual\.ln_pre\.", "vision_model.pre_layrnorm."),
    (r"^visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"^visual\.transformer\.resblocks\.(\d+)\.", r"vision_model.encoder.layers.\1."),
    (r"\.attn\.", ".self_attn."),
    (r"\.ln_([12])\.", r".layer_norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)


class ClipVision:
    """Features of pictures.

    Args:
        path: a CLIP, or its vision part, under the names of transformers' CLIPVisionModelWithProjection or OpenAI's.
        device: where it runs.

    Raises ValueError for a file that is no such model.
    """

    def __init__(self, path: str | Path, device: str = "cpu") -> None:
        self.device = device
        self.network = _built(_renamed(weights_of(path)), path).to(device)
        self.side = self.network.config.image_size

    @torch.no_grad()
    def __call__(self, frames: Sequence[numpy.ndarray]) -> Tensor:
        """[N, 768] (of ViT-L/14), not normalised, of upright frames uint8 [H, W, 3]."""
        pixels = torch.stack([prepared(frame, self.side) for frame in frames])
        return self.network(pixel_values=pixels.to(self.device)).image_embeds.float().cpu()


def prepared(frame: numpy.ndarray, side: int) -> Tensor:
    """A frame uint8 [H, W, 3] as CLIP takes it: the square in its middle, [3, side, side], normalised."""
    picture = Image.fromarray(frame)
    scale = side / min(picture.size)
    width, height = (max(side, round(length * scale)) for length in picture.size)
    left, top = (width - side) // 2, (height - side) // 2
    picture = picture.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + side, top + side))
    pixels = torch.from_numpy(numpy.array(picture)).movedim(-1, 0) / 255
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(SPREAD)[:, None, None]


def _renamed(weights):
    """The vision part alone, under transformers' names."""
    found = {}
    for name, value in weights.items():
        if name == "visual.proj":
            found["visual_projection.weight"] = value.T
        elif name.startswith("visual."):
            new = name
            for pattern, replacement in NAMES:
                new = re.sub(pattern, replacement, new)
            if ".in_proj_" in new:
                for part, rows in zip("qkv", value.chunk(3)):
                    found[new.replace("in_proj_", f"{part}_proj.")] = rows
            else:
                found[new] = value
        elif name.startswith(("vision_model.", "visual_projection.")) and not name.endswith("position_ids"):
            found[name] = value
    return {name: value.float() for name, value in found.items()}


def _built(weights, path):
    missing = [name for name in NEEDED if name not in weights]
    if missing:
        raise ValueError(f"{path}: this is no CLIP with a vision part, it lacks {missing[0]}; choose CLIP ViT-L/14")
    transformers = needed("transformers", "transformers", "the aesthetic score")
    embedding, patches, positions, inner, projection = (weights[name].shape for name in NEEDED)
    layers = {name.split(".")[3] for name in weights if name.startswith("vision_model.encoder.layers.")}
    config = transformers.CLIPVisionConfig(
        hidden_size=embedding[0],
        intermediate_size=inner[0],
        num_hidden_layers=len(layers),
        num_attention_heads=max(1, embedding[0] // HEAD),
        patch_size=patches[-1],
        image_size=round((positions[0] - 1) ** 0.5) * patches[-1],
        projection_dim=projection[0],
        hidden_act="quick_gelu",
    )
    network = transformers.CLIPVisionModelWithProjection(config)
    wanted = {name: value.shape for name, value in network.state_dict().items() if not name.endswith("position_ids")}
    wrong = [name for name in {**wanted, **weights} if name not in weights or wanted.get(name) != weights[name].shape]
    if wrong:
        shape = list(weights[wrong[0]].shape) if wrong[0] in weights else "missing"
        raise ValueError(
            f"{path}: {wrong[0]} is {shape} and should be {list(wanted.get(wrong[0], ()))}; choose CLIP ViT-L/14"
        )
    network.load_state_dict(weights, strict=False)
    return network.eval().requires_grad_(False)
