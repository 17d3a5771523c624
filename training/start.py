"""A video model's first weights: those of an image model, and branches that begin at nothing.

What is new beside a PixArt transformer (attention over time, sizes, frames per second, 1.3's conditions) ends in layers
of zeros, so at 512 pixels, where all count positions alike, the first forward makes of every frame what the image model
made of it. As Open-Sora starts its models
(https://github.com/hpcaitech/Open-Sora, utils/ckpt_utils.py), but for what its file names decide there.
"""

from collections.abc import Mapping

import torch

from ..model.checkpoints.loading import CLASSES, plan_transformer

FAMILIES = {"1.0": "stdit", "1.1": "stdit2", "1.2": "stdit3", "1.3": "stdit3_v1_3"}
EMBEDDERS = ("csize_embedder", "ar_embedder", "fl_embedder", "fps_embedder")
# What begins at zero, by the ends of the modules' names: the last layer of each branch that an image model lacks.
ZERO = {
    "1.0": ("attn_temp.proj",),
    "1.1": ("attn_temp.proj", *(f"{name}.mlp.2" for name in EMBEDDERS)),
    "1.2": ("fps_embedder.mlp.2",),
    "1.3": ("fps_embedder.mlp.2", "x_embedder_cond.proj", "x_embedder_cond_mask.proj"),
}
TEMPORAL = ("attn.proj", "cross_attn.proj", "mlp.fc2")  # of 1.2's and 1.3's temporal blocks
# What a video model cannot have otherwise than its image model.
FIXED = "depth hidden_size num_heads caption_channels in_channels patch_size mlp_ratio pred_sigma".split()
FOURFOLD = 4  # 1.3's latents have four times the channels


def from_image_model(
    state_dict: Mapping[str, torch.Tensor], version: str, config: Mapping[str, object] | None = None
) -> dict[str, torch.Tensor]:
    """The state dict that a video model of `version` ("1.0" … "1.3") starts from, fp32.

    Args:
        state_dict: a PixArt transformer's, as `load_transformer` takes it.
        config: configuration keys of the video model; left out: the image model's, with its queries and keys as they
            are (no qk_norm, and in 1.3 no windows and no rotation in space: give kernel_size and use_spatial_rope for
            those). A longer caption repeats the null caption's last token, a shorter one cuts it.

    Weights that no image model has are drawn from PyTorch's random state. Raises ValueError for another kind of file,
    for a version that is none, and where `config` asks for another depth or width.
    """
    if version not in FAMILIES:
        raise ValueError(f"version is {version!r}; it must be one of {', '.join(FAMILIES)}; the newest is 1.3")
    config = dict(config or {})
    image = plan_transformer(state_dict, {"num_heads": config.get("num_heads")})
    if image.network.family != "pixart":
        raise ValueError(
            f"these weights are {image.network.family}, a video model; an image model is a PixArt transformer"
        )
    network, config_class = CLASSES[FAMILIES[version]]
    module = network(config_class(**_config(image.config, config_class, config, version)))
    initialise(module, version)
    own = module.state_dict()
    found = {key: value for key, value in _video_keys(image.weights, version, own).items() if key in own}
    module.load_state_dict(found, strict=False)
    if version == "1.1" and image.config.size_embedders:  # 1.1 reads them as PixArt's model for 1024 pixels does
        kept = ("csize_embedder.", "ar_embedder.")
        module.load_state_dict({k: v for k, v in image.weights.items() if k.startswith(kept)}, strict=False)
    return module.state_dict()


def _config(image, config_class, given, version):
    """The video model's configuration: the image model's where both know a field, then what is given."""
    known = {name: getattr(image, name) for name in FIXED} | {"model_max_length": image.model_max_length}
    if version == "1.3":
        known |= {"in_channels": FOURFOLD * image.in_channels, "kernel_size": None, "use_spatial_rope": False}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    given = {name: value for name, value in given.items() if value is not None or name == "kernel_size"}
    for name in FIXED:
        value = given.get(name, known[name])
        if value != known[name]:
            raise ValueError(f"config says {name} = {given[name]}, but from this image model it is {known[name]}")
    if version != "1.0":
        known["qk_norm"] = image.qk_norm
    fields = config_class.__dataclass_fields__
    return known | {name: value for name, value in given.items() if name in fields}


@torch.no_grad()
def initialise(module: torch.nn.Module, version: str) -> None:
    """Weights to begin with, as the original draws them: Xavier for Linear layers, and new branches at zero."""
    for name, part in module.named_modules():
        if isinstance(part, torch.nn.Linear):
            torch.nn.init.xavier_uniform_(part.weight)
            torch.nn.init.zeros_(part.bias)
        temporal = ".temporal_blocks." in f".{name}" and name.endswith(TEMPORAL)
        if temporal or (name and name.endswith(ZERO[version])):
            for parameter in part.parameters():
                torch.nn.init.zeros_(parameter)
    for name, parameter in module.named_parameters():
        if "scale_shift_table" in name:
            torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)


def _video_keys(weights, version, own):
    """The image model's tensors by the video model's keys, in its shapes."""
    spatial = "spatial_blocks." if version in ("1.2", "1.3") else "blocks."
    found = {
        key.replace("blocks.", spatial, 1) if key.startswith("blocks.") else key: value.float()
        for key, value in weights.items()
        if not key.startswith(("pos_embed", "csize_embedder.", "ar_embedder."))
    }
    found["x_embedder.proj.weight"] = found["x_embedder.proj.weight"].unsqueeze(2)
    null = found["y_embedder.y_embedding"]
    length = len(own["y_embedder.y_embedding"])
    found["y_embedder.y_embedding"] = torch.cat([null, null[-1:].expand(max(0, length - len(null)), -1)])[:length]
    if version == "1.3":
        _widen(found, own)
    return found


def _widen(found, own):
    """Four channels to sixteen: each of the four stands for four, which together weigh as much."""
    weight = found["x_embedder.proj.weight"]
    channels = own["x_embedder.proj.weight"].shape[1]
    times = channels // weight.shape[1]
    found["x_embedder.proj.weight"] = weight.repeat(1, times, 1, 1, 1) / times
    halves = 2 if len(own["final_layer.linear.bias"]) == 2 * channels * weight[0, 0].numel() else 1
    for name in ("weight", "bias"):
        value = found[f"final_layer.linear.{name}"]
        # The last layer's rows are (place in the patch, half, channel).
        rows = value.view(weight[0, 0].numel(), halves, -1, *value.shape[1:])
        found[f"final_layer.linear.{name}"] = rows.repeat(1, 1, times, *[1] * (value.ndim - 1)).flatten(0, 2)
