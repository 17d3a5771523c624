"""Clips of different shapes, padded or packed, are to the network what each is alone: prediction, loss, gradients."""

import random
from dataclasses import replace

import pytest
import torch
import torch.utils.checkpoint
from opensora_comfy.model.flow import add_noise
from opensora_comfy.model.frames import CHUNKS
from opensora_comfy.model.transformers.layers import matmul_attention
from opensora_comfy.model.transformers.mixed_shapes import ClipInputs
from opensora_comfy.model.transformers.packed import Layout, forward_packed
from opensora_comfy.model.transformers.padded import crop, forward_padded, pad_clips
from opensora_comfy.model.transformers.pixart import PixArt
from opensora_comfy.model.transformers.stdit import STDiT
from opensora_comfy.model.transformers.stdit2 import STDiT2
from opensora_comfy.model.transformers.stdit3 import STDiT3, STDiT3Config
from opensora_comfy.model.transformers.stdit3_v1_3 import STDiT3v13
from opensora_comfy.training.losses import rectified_flow

CONFIG = STDiT3Config(depth=2, hidden_size=48, num_heads=4, caption_channels=24, model_max_length=12, input_sq_size=64)
TOLERANCE = 1e-5
WAYS = ["padded", "packed"]


def network(attention=None, **changes):
    """A small STDiT3 whose every weight does something."""
    generator = torch.Generator().manual_seed(0)
    found = STDiT3(replace(CONFIG, **changes), attention=attention)
    for weight in found.parameters():
        scale = 0.2 if weight.shape[0] in (2, 6) or weight.ndim == 1 else 0.7 * weight[0].numel() ** -0.5
        around = float(weight.shape == (12,))  # norms of heads
        weight.data = torch.randn(weight.shape, generator=generator) * scale + around
    return found


def clip(seed, size, length=7, real=None, generated=None, fps=None, pixels=None, timestep=None):
    """A clip of latents `size` (T, H, W); `real` of its caption's tokens are; `generated` by frame, None: no mask."""
    generator = torch.Generator().manual_seed(seed)
    return ClipInputs(
        x=torch.randn(4, *size, generator=generator),
        timestep=torch.rand((), generator=generator) * 1000 if timestep is None else timestep,
        caption=torch.randn(length, CONFIG.caption_channels, generator=generator),
        caption_mask=None if real is None else torch.arange(length) < real,
        frame_mask=None if generated is None else torch.tensor(generated, dtype=torch.bool),
        fps=fps,
        height=pixels and pixels[0],
        width=pixels and pixels[1],
    )


def batch_of_one(each):
    """The arguments of `network.forward` for this clip alone."""
    row = {name: None if value is None else value[None] for name, value in (
        ("x", each.x), ("caption", each.caption), ("caption_mask", each.caption_mask), ("frame_mask", each.frame_mask),
    )}  # fmt: skip
    return {**row, "timestep": torch.as_tensor(each.timestep).reshape(1).float(),
            "fps": each.fps, "height": each.height, "width": each.width}  # fmt: skip


def predictions(way, model, clips):
    """[2C, T, H, W] of each clip: alone, padded or packed."""
    if way == "alone":
        return [model(**batch_of_one(each))[0] for each in clips]
    if way == "packed":
        return forward_packed(model, clips)
    arguments = pad_clips(clips)
    return crop(forward_padded(model, **arguments), arguments["latent_sizes"])


def losses(way, model, clips):
    """Rectified flow's loss of each clip, and the noisy latents that it was taken at, which want a gradient."""
    noises = [torch.randn(each.x.shape, generator=torch.Generator().manual_seed(9)) for each in clips]
    times = [torch.as_tensor(each.timestep).reshape(1).float() for each in clips]
    noisy = []
    for each, noise, t in zip(clips, noises, times):
        x_t = add_noise(each.x[None], noise[None], t)[0]
        if each.frame_mask is not None:
            x_t = torch.where(each.frame_mask[:, None, None], x_t, each.x)
        noisy.append(x_t.requires_grad_())
    found = predictions(way, model, [replace(each, x=x_t) for each, x_t in zip(clips, noisy)])
    return [
        rectified_flow(
            lambda x_t, t, prediction=prediction: prediction[None], each.x[None], t, noise[None],
            frame_mask=None if each.frame_mask is None else each.frame_mask[None],
        )[0]
        for each, noise, t, prediction in zip(clips, noises, times, found)
    ], noisy  # fmt: skip


def gradients(way, model, clips, which):
    """Of the sum of the losses of the clips `which`: by the weights' names, and by clip for its latents."""
    found, noisy = losses(way, model, clips)
    model.zero_grad(set_to_none=True)
    sum(found[number] for number in which).backward()
    by_weight = {name: torch.zeros_like(weight) if weight.grad is None else weight.grad.clone()
                 for name, weight in model.named_parameters()}  # fmt: skip
    return by_weight | {f"x of clip {n}": torch.zeros_like(x) if x.grad is None else x.grad
                        for n, x in enumerate(noisy)}  # fmt: skip


def apart(value, reference, least=0.0):
    """How far value is from reference, relative to its norm (to `least`, where that is more)."""
    return ((value - reference).norm() / max(reference.norm().item(), least, 1e-30)).item()


def assert_same_gradients(found, known):
    """Relative to each tensor; one that is a thousand times smaller than the whole gradient, relative to the whole."""
    whole = torch.cat([gradient.flatten() for gradient in known.values()]).norm().item()
    gaps = {name: apart(found[name], known[name], 1e-3 * whole) for name in known}
    assert max(gaps.values()) <= TOLERANCE, {name: gap for name, gap in gaps.items() if gap > TOLERANCE}


def mixed():
    """An image, a portrait, a landscape, odd sides, one latent to those of 102 frames, and all that may differ."""
    return [
        clip(1, (1, 8, 8), length=7, real=5),
        clip(2, (5, 10, 6), length=3, generated=[0, 1, 1, 1, 1], fps=24.0, pixels=(83, 52)),
        clip(3, (CHUNKS.latent_frames(102), 4, 6), length=12, real=1, fps=12.0),
        clip(4, (3, 7, 5), length=7, real=7, generated=[1, 0, 1], fps=8, timestep=0.0),
        clip(5, (1, 5, 9), length=2, generated=[1], timestep=1000.0),
        clip(6, (5, 6, 10), length=7, generated=[1] * 5, fps=30.0, pixels=(40.0, 88.0)),
        clip(7, (2, 1, 1), length=1, fps=60.0),
        clip(8, (5, 10, 6), length=4, real=2, fps=24.0),
    ]


def random_mix(seed):
    """Up to six clips drawn by `seed`."""
    draw, found = random.Random(seed), []
    for number in range(draw.randint(1, 6)):
        T = draw.choice([1, 1, 2, 5, 9, draw.randint(1, 30)])
        length = draw.randint(1, 12)
        found.append(
            clip(
                100 * seed + number,
                (T, draw.randint(1, 9), draw.randint(1, 9)),
                length=length,
                real=draw.choice([None, draw.randint(1, length)]),
                generated=draw.choice([None, [True] + [draw.random() < 0.6 for _ in range(T - 1)]]),
                fps=draw.choice([None, 8, 24.0, 60.0]),
                pixels=draw.choice([None, (draw.randint(8, 99), draw.randint(8, 99))]),
            )
        )
    return found


@pytest.mark.parametrize("attention", [None, matmul_attention], ids=["fused", "matmul"])
@pytest.mark.parametrize("way", WAYS)
def test_predictions_are_those_of_each_clip_alone(way, attention):
    model, clips = network(attention), mixed()
    with torch.no_grad():
        found, known = predictions(way, model, clips), predictions("alone", model, clips)
    assert [each.shape for each in found] == [(8, *each.size) for each in clips]
    assert all(each.dtype == torch.float32 for each in found)
    gaps = [apart(*pair) for pair in zip(found, known)]
    assert max(gaps) <= TOLERANCE, gaps


@pytest.mark.parametrize("way", WAYS)
def test_losses_and_gradients_are_those_of_each_clip_alone(way):
    """The gradients of one clip's loss do not know of the others, whose latents get none; nor do those of the sum."""
    model, clips = network(), mixed()
    found, known = (torch.stack(losses(each, model, clips)[0]) for each in (way, "alone"))
    assert torch.allclose(found, known, rtol=TOLERANCE, atol=0)
    for which in [*([number] for number in range(len(clips))), range(len(clips))]:
        assert_same_gradients(gradients(way, model, clips, which), gradients("alone", model, clips, which))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("way", WAYS)
def test_any_mix_gives_what_its_clips_give_alone(way, seed):
    model, clips = network(matmul_attention if seed % 2 else None, qk_norm=seed % 3 > 0), random_mix(seed)
    found, known = (torch.stack(losses(each, model, clips)[0]) for each in (way, "alone"))
    assert torch.allclose(found, known, rtol=TOLERANCE, atol=0)
    everyone = range(len(clips))
    assert_same_gradients(gradients(way, model, clips, everyone), gradients("alone", model, clips, everyone))


@pytest.mark.parametrize("way", WAYS)
def test_a_kept_frame_is_told_timestep_zero_and_passes_the_norm_twice(way):
    """Of a clip beside others, whose frames are not kept; all of an image may be."""
    model = network()
    clips = [clip(1, (4, 6, 6), generated=[0, 1, 0, 1]), clip(2, (2, 4, 8)), clip(3, (1, 4, 4), generated=[0])]
    with torch.no_grad():
        found, known = predictions(way, model, clips), predictions("alone", model, clips)
        plain = predictions(way, model, [replace(each, frame_mask=None) for each in clips])
    assert max(apart(*pair) for pair in zip(found, known)) <= TOLERANCE
    assert [apart(*pair) > 1e-2 for pair in zip(found, plain)] == [True, False, True]


def test_nothing_outside_of_a_clip_is_looked_at():
    """Nor does the prediction say anything there, in half precision as little."""
    model, clips = network(), mixed()
    arguments = pad_clips(clips)
    sizes = arguments["latent_sizes"]
    inside = torch.zeros_like(arguments["x"])
    for part in crop(inside, sizes):
        part.fill_(1)
    outside = inside[:, :1] == 0
    beyond = torch.arange(arguments["x"].shape[2]) >= torch.tensor([T for T, _, _ in sizes])[:, None]
    disturbed = {
        **arguments,
        "x": torch.where(outside, float("nan"), arguments["x"]),
        "frame_mask": arguments["frame_mask"] & ~beyond,
        "caption": arguments["caption"] + 100.0 * ~arguments["caption_mask"][..., None],
    }
    with torch.no_grad():
        found, other = forward_padded(model, **arguments), forward_padded(model, **disturbed)
        half = forward_padded(model.bfloat16(), **disturbed)
    assert torch.equal(found, other)
    assert not (found * outside).any() and not (half * outside).any()
    assert half.dtype == torch.float32 and half.isfinite().all()


def test_numbers_for_all_clips_are_those_of_each():
    model, arguments = network(), pad_clips([clip(1, (2, 4, 6)), clip(2, (3, 6, 4))])
    numbers = {"fps": 12.0, "height": 40, "width": 56.0}
    lists = {name: [value, value] for name, value in numbers.items()}
    tensors = {name: torch.tensor(values) for name, values in lists.items()}
    with torch.no_grad():
        found = [forward_padded(model, **{**arguments, **given}) for given in (numbers, lists, tensors)]
        left_out = forward_padded(model, **{**arguments, **dict.fromkeys(numbers)})
        plain = forward_padded(model, **arguments)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    assert torch.equal(left_out, plain) and not torch.allclose(left_out, found[0])


@pytest.mark.parametrize("way", WAYS)
def test_clips_of_one_shape_are_a_batch(way):
    model, clips = network(), [clip(seed, (3, 4, 6), timestep=10.0 * seed) for seed in range(3)]
    arguments = pad_clips(clips)
    del arguments["latent_sizes"], arguments["fps"], arguments["height"], arguments["width"]
    with torch.no_grad():
        known, found = model(**arguments), torch.stack(predictions(way, model, clips))
    assert apart(found, known) <= TOLERANCE


class Wrapped(torch.nn.Module):
    """A linear layer and an addition of low rank, as LoRA has it; its weight cannot be read."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear
        self.down = torch.nn.Linear(linear.in_features, 2, bias=False)
        self.up = torch.nn.Linear(2, linear.out_features, bias=False)

    def forward(self, x):
        return self.linear(x) + self.up(self.down(x))


@pytest.mark.parametrize("way", WAYS)
def test_wrapped_layers_take_part(way):
    """Every linear layer of the network wrapped: outputs and the wrappers' gradients as alone."""
    torch.manual_seed(0)
    model, clips = network(), mixed()
    plain = predictions(way, model, clips)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Linear) and not isinstance(module, Wrapped):
                setattr(module, name, Wrapped(child.requires_grad_(False)))
    assert apart(predictions(way, model, clips)[0], plain[0]) > 1e-2
    everyone = range(len(clips))
    found, known = gradients(way, model, clips, everyone), gradients("alone", model, clips, everyone)
    assert len([name for name in known if name.endswith("up.weight") and known[name].any()]) == 36
    assert_same_gradients(found, known)


class Recomputed(STDiT3):
    """Computes each depth anew for its gradient, by the seam that the plain forward has."""

    depths = 0

    def run_block(self, index, block, x, caption, t):
        self.depths += 1
        return torch.utils.checkpoint.checkpoint(block, x, caption, t, use_reentrant=False)


@pytest.mark.parametrize("way", WAYS)
def test_blocks_can_be_computed_anew_for_their_gradient(way):
    model, clips = network(), mixed()
    other = Recomputed(CONFIG)
    other.load_state_dict(model.state_dict())
    known, found = (gradients(way, each, clips, range(len(clips))) for each in (model, other))
    assert other.depths == CONFIG.depth
    assert all(torch.equal(found[name], known[name]) for name in known)


@pytest.mark.parametrize("other", [STDiT, STDiT2, STDiT3v13, PixArt])
@pytest.mark.parametrize("way", WAYS)
def test_other_families_are_refused_by_name(way, other):
    with torch.device("meta"):
        model = other()
    word = {"padded": "padding", "packed": "packing"}[way]
    with pytest.raises(ValueError, match=f"{word} is set, but the model is {other.family}: .*use buckets"):
        predictions(way, model, [clip(1, (1, 4, 4))])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"latent_sizes": [(2, 4, 6)]}, "latent_sizes has 1 entries, but x has 2 clips"),
        ({"latent_sizes": [(2, 4, 6), (3, 9, 0)]}, r"clip 1 is \(3, 9, 0\).*the nearest is \(3, 6, 1\)"),
        ({"fps": [24.0]}, "fps has 1 entries, but x has 2 clips"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    arguments = pad_clips([clip(1, (2, 4, 6)), clip(2, (3, 6, 4))])
    with pytest.raises(ValueError, match=message):
        forward_padded(network(), **{**arguments, **changes})


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"frame_mask": torch.ones(3)}, r"frame_mask of clip 1 has the shape \(3,\); it must be \(2,\)"),
        ({"caption_mask": torch.ones(8)}, r"caption_mask of clip 1 has the shape \(8,\); it must be \(7,\)"),
        ({"caption_mask": torch.zeros(7)}, "the caption of clip 1 has no real token"),
        ({"x": torch.zeros(3, 2, 4, 6)}, r"x of clip 1 has the shape \(3, 2, 4, 6\); it must be .* with C = 4"),
    ],
)
@pytest.mark.parametrize("way", WAYS)
def test_clips_that_do_not_fit_are_refused(way, changes, message):
    with pytest.raises(ValueError, match=message):
        predictions(way, network(), [clip(1, (2, 4, 6)), replace(clip(2, (2, 4, 6)), **changes)])
    with pytest.raises(ValueError, match="there are no clips"):
        predictions(way, network(), [])


def test_neighbours_of_like_shape_attend_in_one_call():
    layout = Layout(((1, 2, 3), (4, 3, 2), (4, 2, 3), (2, 4, 4)))
    assert layout.lengths == [6, 24, 24, 32]
    assert layout.space == [(1, 9, 6), (1, 2, 16)]
    assert layout.time == [(1, 1, 6), (2, 4, 6), (1, 2, 16)]
    clips, frames = layout.rows()
    assert clips.bincount().tolist() == layout.lengths
    assert frames[30:36].tolist() == [0] * 6 and frames[-1] == 1
