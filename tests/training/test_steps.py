"""Four whole steps of training of a tiny network: losses, gradients, weights and averages as the original's."""

import copy
from functools import partial

import pytest
import torch
from golden import FOLDER, Case
from opensora_comfy import model
from opensora_comfy.training.losses import iddpm, rectified_flow
from opensora_comfy.training.optimizers import ema_update, warmup
from safetensors.torch import load_file


def conditions_of_1_3(x0, frames):
    """What 1.3's network is told of the frames that are given as a condition; its embedders run without any, too."""
    mask = torch.zeros_like(x0)
    mask[:, :, frames] = 1.0
    return {"condition": x0 * mask, "condition_mask": mask, "condition_frames": frames}


@pytest.mark.parametrize("name", ["v1_1", "v1_2_mask", "v1_3"])
def test_four_steps(name):
    case = Case(f"training/train_steps_{name}")
    meta, version = case.meta, case.meta["version"]
    tensors = load_file(FOLDER / "training" / f"train_steps_{name}.safetensors")
    transformer = model.load_transformer(
        {key[2:]: value for key, value in tensors.items() if key.startswith("w.")}, meta["config"]
    ).train()
    trainable = dict(transformer.named_parameters())
    for key, parameter in trainable.items():
        parameter.requires_grad_(key in meta["trainable"])
    parameters = [parameter for parameter in trainable.values() if parameter.requires_grad]
    settings = meta["optimizer"]
    adam = torch.optim.AdamW(parameters, lr=settings["lr"], betas=settings["betas"], eps=1e-8, weight_decay=0.0)
    average = copy.deepcopy(transformer)
    B = case.inputs["x0"].shape[1]
    sizes = {key: torch.full((B,), float(meta[key])) for key in ("height", "width", "num_frames", "fps")}

    for step in range(meta["steps"]):
        given = {key: value[step] for key, value in case.inputs.items()}
        null = transformer.null_caption.expand(B, -1, -1)
        caption = torch.where(given["drop"].bool().view(-1, 1, 1), null, given["y"][:, 0])
        frames = (meta["mask_index"] or [[]] * meta["steps"])[step]
        masked = "frame_mask" in given and not frames  # 1.3 has one or the other
        frame_mask = given["frame_mask"].bool() if masked else None
        more = conditions_of_1_3(given["x0"], frames) if version == "1.3" else {}

        known = {"caption": caption, "caption_mask": given["text_mask"], "frame_mask": frame_mask, **sizes, **more}
        arguments = partial(transformer, **known), given["x0"], given["t"], given["noise"]
        if version == "1.1":
            loss = iddpm(*arguments, frame_mask=frame_mask)["loss"]
        else:
            loss = rectified_flow(*arguments, frame_mask=frame_mask, version=version, condition_frames=frames)
        assert loss.mean().item() == pytest.approx(meta["loss"][step], abs=3e-6)

        rate = warmup(step, settings["warmup_steps"] or 0, settings["lr"], version)
        assert rate == pytest.approx(meta["lr"][step])
        adam.param_groups[0]["lr"] = rate
        adam.zero_grad()
        loss.mean().backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, settings["grad_clip"])
        assert norm.item() == pytest.approx(meta["grad_norm_before_clip"][step], rel=1e-5)
        adam.step()
        ema_update(average, transformer, meta["ema_decay"])

    def gaps(module, prefix):
        state = module.state_dict()
        known = {key[len(prefix) :]: value for key, value in case.outputs.items() if key.startswith(prefix)}
        assert known
        return {key: (state[key] - value).abs().max().item() for key, value in known.items()}

    # A key bias has no gradient in exact arithmetic; Adam makes steps of the rounding's.
    for key, gap in [*gaps(transformer, "final.").items(), *gaps(average, "ema.").items()]:
        assert key.endswith("cross_attn.kv_linear.bias") or gap < 2e-5, (key, gap)
