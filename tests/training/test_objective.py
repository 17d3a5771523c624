"""The loss of a batch: of every example alone, whatever it shares its batch, its step or its memory with."""

from dataclasses import replace

import pytest
import torch
from opensora_comfy.training import lora
from opensora_comfy.training.config import TrainConfig
from opensora_comfy.training.data.draws import seed_of
from opensora_comfy.training.objective import Objective, draw, fixed, loss
from opensora_comfy.training.trainer.learner import learner_of, recompute_blocks
from small_runs import COUNTING, VERSIONS, clip, mixed_clips, network, objective, prepared, trainer

VIDEO = list(VERSIONS)
LENGTH = {family: 17 if COUNTING[family].factor > 1 else 4 for family in VIDEO}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def drawn(cache, module, family="stdit3", clips=None, epoch=0, **options):
    length = LENGTH[family]
    buckets = {"32x32": {1: 3, length: 2}, "16x32": {length: 2}}
    examples = prepared(cache, clips or mixed_clips(), buckets, family)
    null = module.null_caption.detach().float()
    aim = objective(family, **options)
    return [draw(examples.read(n, epoch), aim, null, seed=1, epoch=epoch) for n in range(len(examples))], aim


@pytest.mark.parametrize("way", ["packing", "padding"])
def test_other_ways_are_the_loss_of_each_alone(cache, way):
    """Of clips of several shapes, lengths, captions, masks and fps in one call."""
    module = network()
    batch, aim = drawn(cache, module)
    assert len({each.clean.shape for each in batch}) == 3 and any(not each.frame_mask.all() for each in batch)
    alone = torch.cat([loss(module, [each], aim) for each in batch])
    together = loss(module, batch, replace(aim, way=way))
    assert torch.allclose(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", VIDEO)
def test_a_bucket_is_the_loss_of_each_alone(cache, family):
    """In 1.3 whatever frames each is conditioned on."""
    module = network(family)
    clips = [clip(n, frames=LENGTH[family]) for n in range(6)]
    batch, aim = drawn(cache, module, family, clips, epoch=2)
    if family == "stdit3_v1_3":
        assert len({each.condition_frames for each in batch}) > 1
    else:
        assert any(not each.frame_mask.all() for each in batch)
    alone = torch.cat([loss(module, [each], aim) for each in batch])
    assert torch.allclose(loss(module, batch, aim), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "family, way", [*((family, "buckets") for family in VIDEO), ("stdit3", "packing"), ("stdit3", "padding")]
)
def test_gradient_checkpointing_gives_the_same_gradients(cache, family, way):
    gradients = []
    for recompute in (False, True):
        module = network(family)
        batch, aim = drawn(cache, module, family, [clip(n, frames=LENGTH[family]) for n in range(2)])
        calls = []
        first = module.spatial_blocks[0] if hasattr(module, "spatial_blocks") else module.blocks[0]
        first.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        if recompute:
            recompute_blocks(module)
        loss(module, batch, replace(aim, way=way)).mean().backward()
        gradients.append([None if p.grad is None else p.grad.clone() for p in module.parameters()])
        assert len(calls) == 1 + recompute
    for left, right in zip(*gradients):
        assert (left is None) == (right is None) and (left is None or torch.equal(left, right))


@pytest.mark.parametrize("family", VIDEO)
def test_what_the_network_is_told(cache, family):
    """Kept frames as they are (of 1.0 and 1.1 a little noisy), in 1.3 the condition beside what is noisy all over."""
    module, told = network(family), []
    module.register_forward_pre_hook(lambda _, args, kwargs: told.append((args, kwargs)), with_kwargs=True)
    clips, some = [clip(n, frames=LENGTH[family]) for n in range(3)], []
    for epoch in range(8):
        batch, aim = drawn(cache, module, family, clips, epoch=epoch)
        some += [each for each in batch if each.condition_frames or not each.frame_mask.all()]
    assert max(len(each.condition_frames) or int((~each.frame_mask).sum()) for each in some) > 1
    for each in some:
        told.clear()
        loss(module, [each], aim)
        ((noisy, t), given) = told[0]
        noisy = noisy[0]
        assert t.tolist() == [each.t] and all(given[name].tolist() == [value] for name, value in each.sizes.items())
        length = int(each.caption_mask.sum())
        assert torch.equal(given["caption"][0], each.caption[:length]) and given["caption_mask"].all()
        frames = list(each.condition_frames)
        if family == "stdit3_v1_3":
            expected = torch.zeros_like(each.clean)
            expected[:, frames] = each.clean[:, frames]
            assert given["condition_frames"] == frames and torch.equal(given["condition"][0], expected)
            assert given["condition_mask"][0].sum((0, 2, 3)).nonzero().flatten().tolist() == frames
            assert given["frame_mask"] is None
            continue
        assert torch.equal(given["frame_mask"][0], each.frame_mask)
        far = (noisy - each.clean).abs().amax((0, 2, 3))
        assert far[~each.frame_mask].max() < (1e-6 if aim.is_flow else 0.05)
        assert each.t < 30 or far[each.frame_mask].min() > 0.02


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_a_step_is_the_mean_over_its_examples(cache, accumulate):
    """Not over its batches, which differ in size."""
    examples = prepared(cache, mixed_clips(), seed=3)
    running = trainer(
        cache / f"run{accumulate}", examples, train={"accumulate": accumulate, "clip": 0, "learning_rate": 1e-9}
    )
    for step, batches in running.schedule.read(running.place, 2):
        flat = [each for batch in batches for each in batch]
        assert len(flat) == step.count and len(batches) == min(accumulate, len(step.batches))
        with torch.no_grad():
            alone = [float(loss(running.network, [each], running.objective)) for each in flat]
        found = running.update(step, batches)
        assert found["loss"] == pytest.approx(sum(alone) / len(alone), rel=1e-5) and found["count"] == len(flat)
        reference = network()
        mean = torch.cat([loss(reference, [each], running.objective) for each in flat]).mean()
        mean.backward()
        norm = torch.cat([p.grad.flatten() for p in reference.parameters() if p.grad is not None]).norm()
        assert found["norm"] == pytest.approx(float(norm), rel=1e-4)


@pytest.mark.parametrize("family", VIDEO)
@pytest.mark.parametrize("branches", ["look", "motion"])
def test_lora_branches_learn_from_pictures_too(cache, family, branches):
    """Over time a picture has nothing to attend to, and yet goes the same way."""
    module = network(family)
    lora.inject(module, 2, 2.0, branches)
    batch, aim = drawn(cache, module, family, [clip(n, frames=1) for n in range(2)])
    assert all(each.frame_mask.all() and each.condition_frames == () for each in batch)
    value = loss(module, batch, aim).mean()
    value.backward()
    assert any(layer.up.grad is not None for layer in lora.layers(module).values())


def test_how_often_what_is_drawn(cache):
    """Captions are dropped, stills stand in and strategies are drawn as often as asked for."""
    module = network()
    examples = prepared(cache, [clip(n) for n in range(4)])
    null = module.null_caption.detach()
    aim = Objective(ratios={"image_head": 0.5}, caption_dropout=0.25, stills=0.5)
    found = [
        (draw(examples.read(n, epoch), aim, null, seed=0, epoch=epoch), examples.read(n, epoch))
        for epoch in range(100) for n in range(4)
    ]  # fmt: skip
    dropped = [torch.equal(each.caption[0], null[0]) for each, _ in found]
    masked = [(each, example) for each, example in found if not each.frame_mask[0]]
    still = [torch.equal(each.clean[:, 0], example.stills[:, 0]) for each, example in masked]
    assert abs(sum(dropped) / 400 - 0.25) < 0.07 and abs(len(masked) / 400 - 0.5) < 0.08
    assert abs(sum(still) / len(still) - 0.5) < 0.12
    assert all(torch.equal(each.clean[:, 1:], example.latents[:, 1:]) for each, example in masked)


def test_validation_is_always_the_same(cache):
    examples = prepared(cache, [clip(0)])
    one, two = (fixed(examples.middle(0), 250.0) for _ in range(2))
    assert torch.equal(one.noise, two.noise) and one.t == 250.0 and one.frame_mask.all()
    assert not torch.equal(one.noise, fixed(examples.middle(0), 500.0).noise)


def test_seeds_differ_by_each_part_and_stay():
    assert len({seed_of(a, b, c) for a in range(3) for b in range(3) for c in ("1", "11", "x")}) == 27
    assert seed_of(1, 12) != seed_of(11, 2) and seed_of(0, 0, "a") == 9196027511977055662


@pytest.mark.parametrize(("kind", "expected"), [("full", torch.bfloat16), ("lora", None)])
def test_all_weights_in_bf16_are_computed_by_autocast_in_a_run_and_in_its_trial(kind, expected):
    """A LoRA's base is bf16 itself; weights that learn are fp32."""
    settings = TrainConfig(kind=kind, precision="bf16")
    assert learner_of(torch.nn.Linear(1, 1), Objective(), settings).autocast is expected
