"""The networks and the mathematics alone, on a GPU that is not there, where a tensor of a CPU that meets one raises.

What tells them of the clip may lie on either: sizes, masks, timesteps, references and the caller's draws.
"""

import pytest
import torch
from fake_gpu import CPU, GPU, FakeGPU, on_cpu
from families import SMALL, clip, small_family
from golden import difference
from opensora_comfy.model import flow, flow_v1_3, iddpm, load_transformer, load_vae, masks, pins
from opensora_comfy.model.vaes.slicing import Slices, in_slices
from small import (
    CAPTION_CHANNELS,
    CAPTION_LENGTH,
    VAE_CONFIG,
    random_weights,
    small_causal_vae,
    small_image_vae,
    small_vae,
)

VAES = {"vae_v1_2": small_vae, "vae_2d": small_image_vae, "vae_v1_3": small_causal_vae}


def randn(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(name):
    weights = small_family(name)[1]
    return load_transformer(weights, SMALL[name][3]).eval().requires_grad_(False)


def inputs(name):
    """(x, caption, masks and sizes by name) of two clips."""
    shape = clip(name)["samples"].shape[1:]
    given = {
        "caption_mask": (torch.arange(CAPTION_LENGTH) < 7)[None].repeat(2, 1),
        "fps": torch.tensor([24.0, 24.0]),
        "height": torch.tensor([40.0, 40.0]),
        "width": torch.tensor([48.0, 48.0]),
        "num_frames": torch.tensor([17.0, 17.0]),
    }
    return randn(2, *shape), randn(2, CAPTION_LENGTH, CAPTION_CHANNELS, seed=2), given


def both(compute, module, where):
    """compute(module, gpu), which moves what it is told to with `gpu`: on the CPU, and with `module` on a GPU."""
    with torch.no_grad():
        expected = compute(module, lambda each: each)
        with FakeGPU() as fake:
            module = module.to(GPU) if module is not None else None
            found = compute(module, (lambda each: fake.place(each)) if where == GPU else lambda each: each)
    return found, expected


def agree(found, expected, device=GPU):
    assert found.device == device and difference(on_cpu(found), expected) <= 1e-5


@pytest.mark.parametrize("where", [CPU, GPU])
@pytest.mark.parametrize("name", SMALL)
def test_networks(name, where):
    """One call; what it is told of the clip lies on `where`, the latents on the GPU."""
    x, caption, given = inputs(name)
    frames = x.shape[2]
    given["frame_mask"] = (torch.arange(frames) != 1)[None].repeat(2, 1)
    if name == "stdit3_v1_3":
        given |= {"condition": x.flip(0), "condition_mask": (x > 0).float(), "null_caption": caption[:1]}

    def call(module, there):
        told = {key: there(value) for key, value in given.items()}
        if name == "stdit3_v1_3":
            told["condition_frames"] = [0, 3]
        device = next(module.parameters()).device
        return module(x.to(device), torch.tensor([700.0, 700.0]).to(device), there(caption).to(device), **told)

    agree(*both(call, network(name), where))


@pytest.mark.parametrize("where", [CPU, GPU])
@pytest.mark.parametrize("name", [name for name in SMALL if name != "pixart"])
def test_sampling(name, where):
    """The original's loops: latents on the GPU; frame masks, timesteps, sizes and draws on `where`."""
    x, caption, given = inputs(name)
    values = torch.tensor([0.0, 0.6, 1.0, 1.0, 1.0])[: x.shape[2]][None].repeat(2, 1)

    def run(module, there):
        device = next(module.parameters()).device
        told = {key: there(value) for key, value in given.items()}
        told |= {"frame_mask": there(values), "noise": lambda step, shape: there(randn(*shape, seed=step + 5))}
        arguments = module, x.to(device), caption.to(device), module.null_caption
        if module.prediction == "epsilon":
            return iddpm.sample(*arguments, steps=3, guidance=3.0, **told)
        steps = there(flow.timesteps(3, 40, 48, 17))
        if name == "stdit3":
            return flow.sample(*arguments, timesteps=steps, guidance=3.0, **told)
        kept = torch.zeros(x.shape)
        kept[:, :, 0] = 1
        told |= {"condition": there(x.flip(0)), "condition_mask": there(kept), "condition_frames": [0]}
        told |= {"negative_caption": there(caption.flip(1)), "negative_mask": there(given["caption_mask"].flip(1))}
        return flow_v1_3.sample(*arguments, timesteps=steps, guidance=3.0, options=flow_v1_3.OFFICIAL, **told)

    agree(*both(run, network(name), where))


@pytest.mark.parametrize("sliced", [False, True])
@pytest.mark.parametrize("family", VAES)
def test_vaes(family, sliced):
    """Two chunks there and back with draws from the CPU; whole, and in slices of maps that wait in main memory."""
    module = load_vae(random_weights(VAES[family](), 5), VAE_CONFIG).eval().requires_grad_(False)
    frames = {"vae_v1_2": 18, "vae_2d": 5, "vae_v1_3": 33}[family]
    video = randn(1, 3, frames, 24, 16).clamp(-1, 1)

    def both_ways(module, there):
        device = next(module.parameters()).device
        with in_slices(Slices(2**14, device, CPU) if sliced else None):
            shown = video if sliced else video.to(device)
            latents = module.encode(shown, lambda kind, index, shape: randn(*shape, seed=index))
            found = module.decode(latents.to(device), frames)
        return torch.cat([latents.to(device).flatten(), found.to(device).flatten()])

    agree(*both(both_ways, module, CPU))


@pytest.mark.parametrize("where", [CPU, GPU])
def test_masks_and_pins(where):
    """References and pictures on `where`, the clip they go into on the GPU."""
    clip, reference, images = randn(4, 15, 3, 2), randn(4, 10, 3, 2, seed=2), torch.rand(20, 8, 8, 3)
    groups = [range(1), range(1, 5), range(5, 9), range(9, 13), range(13, 17)]

    def fill(_, there):
        latents, mask = masks.apply(there(clip) if where == GPU else clip, [there(reference)], "0,0,0,0,5,0.3")
        pinned = pins.encode_groups(
            lambda pixels: pixels.movedim(-1, 0)[None, :, :5], there(images), groups, frame=0, chunk_latents=5
        )
        return torch.cat([latents.flatten(), mask, *(each.flatten() for each in pinned.values())])

    agree(*both(fill, None, where), device=where)
