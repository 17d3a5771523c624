"""Which examples come when, and that their draws are theirs alone."""

import random

import pytest
import torch
from opensora_comfy.training.trainer.steps import Draws, Place, Schedule
from small_runs import clip, mixed_clips, network, objective, prepared


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def draws_of(examples, **options):
    return Draws(examples, objective(**options), network().null_caption.detach(), seed=5)


def flat(read):
    """{(epoch, clip): its draws} of what a schedule has read."""
    return {
        (step.epoch, index): drawn
        for step, batches in read
        for part, batch in zip(step.batches, batches)
        for index, drawn in zip(part, batch)
    }


def same(left, right):
    return (
        left.t == right.t
        and left.sizes == right.sizes
        and all(
            torch.equal(getattr(left, name), getattr(right, name))
            for name in ("clean", "noise", "frame_mask", "caption")
        )
    )


def test_draws_belong_to_the_example(cache):
    """Neither workers, nor the order of the clips, nor what shares a batch, nor a restart changes one."""
    clips, count = mixed_clips(), 8
    plain = flat(Schedule(draws_of(prepared(cache, clips, seed=2))).read(Place(), count))
    assert len(plain) == 2 * len(clips)
    by_workers = flat(Schedule(draws_of(prepared(cache, clips, seed=2)), workers=2).read(Place(), count))
    assert not any(drawn.clean.is_shared() for drawn in by_workers.values())  # containers have little such memory
    assert by_workers.keys() == plain.keys() and all(same(by_workers[key], plain[key]) for key in plain)

    order = list(range(len(clips)))
    random.Random(0).shuffle(order)
    steps = list(Schedule(draws_of(prepared(cache, [clips[n] for n in order], seed=2))).read(Place(), count))
    shuffled = flat(steps)
    assert all(same(shuffled[epoch, place], plain[epoch, order[place]]) for epoch, place in shuffled)
    # Even their batches are the same.
    before = list(Schedule(draws_of(prepared(cache, clips, seed=2))).steps(Place(), count))
    assert [[[order[place] for place in part] for part in step.batches] for step, _ in steps] == [
        step.batches for step in before
    ]

    alone = prepared(cache, clips, {"32x32": {1: 1, 17: 1}, "16x32": {17: 1}}, seed=2)
    apart = flat(Schedule(draws_of(alone), accumulate=2).read(Place(), 5))
    assert {key[1] for key in apart} == set(range(len(clips)))
    assert all(same(drawn, plain[key]) for key, drawn in apart.items())

    schedule = Schedule(draws_of(prepared(cache, clips, seed=2)))
    third = list(schedule.steps(Place(), 3))[-1].then
    rest = flat(schedule.read(third, count - 3))
    assert all(same(drawn, plain[key]) for key, drawn in rest.items())


def test_draws_differ_between_epochs_and_examples(cache):
    draws = flat(Schedule(draws_of(prepared(cache, mixed_clips(), seed=2))).read(Place(), 12))
    assert len({drawn.t for drawn in draws.values()}) == len(draws) == 27
    first = [drawn for key, drawn in draws.items() if key[1] == 0]
    assert len(first) == 3 and not torch.equal(first[0].noise, first[1].noise)


def test_each_epoch_has_every_example_once(cache):
    """For any number of processes, batch sizes, accumulation and way, wherever a run goes on."""
    rng = random.Random(7)
    clips = mixed_clips()
    for trial in range(60):
        way = rng.choice(["buckets", "padding", "packing"])
        buckets = {
            "32x32": {1: [rng.choice([0.3, 1]), rng.randint(1, 4)], 17: [rng.choice([0.3, 1]), rng.randint(1, 3)]},
            "16x32": {17: rng.randint(1, 3)},
        }
        some = rng.sample(clips, rng.randint(1, len(clips)))
        ranks, options = rng.randint(1, 4), {"accumulate": rng.randint(1, 3), "budget": rng.choice([0, 0, 30, 60])}
        examples = prepared(cache, some, buckets, way=way, seed=trial)
        of = [Schedule(draws_of(examples), rank=rank, ranks=ranks, **options) for rank in range(ranks)]
        per_epoch = [len(examples.steps(epoch, ranks=ranks, **options)) for epoch in range(3)]
        steps = [list(each.steps(Place(), sum(per_epoch))) for each in of]
        assert all(len(each) == sum(per_epoch) for each in steps)
        for epoch in range(3):
            seen = [n for each in steps for step in each if step.epoch == epoch for part in step.batches for n in part]
            assert sorted(seen) == list(range(len(some)))
        for together in zip(*steps):
            assert len({(step.epoch, step.count, step.then) for step in together}) == 1
            assert sum(len(part) for step in together for part in step.batches) == together[0].count
        cut = rng.randrange(sum(per_epoch))
        place = steps[0][cut].then
        for each, known in zip(of, steps):
            assert list(each.steps(place, len(known) - cut - 1)) == known[cut + 1 :]


def test_budgets_bound_what_each_process_takes(cache):
    """Videos have 20 or 10 tokens here, pictures 4."""
    for way in ("packing", "padding"):
        examples = prepared(cache, mixed_clips(), way=way)
        tokens = [{(17, 32): 20, (17, 16): 10, (1, 32): 4}[each.frames, each.height] for each in examples.clips]
        for ranks in (1, 2, 3):
            for step in examples.steps(0, ranks=ranks, budget=30):
                for batch in step:
                    assert len(batch) == ranks
                    assert all(sum(tokens[n] for n in part) <= 30 for part in batch)


@pytest.mark.parametrize("way", ["buckets", "padding", "packing"])
def test_the_largest_batch_is_that_of_any_epoch(cache, way):
    """Even where the first epochs draw nothing of the largest bucket, and where a bucket is not full."""
    buckets = {"64x64": {17: [0.01, 4]}, "32x32": {1: 9, 17: 2}}
    clips = [clip(n, height=64, width=64) for n in range(2)] + [clip(n, frames=1) for n in range(4)]
    draws = draws_of(prepared(cache, clips, buckets, way=way))
    schedule = Schedule(draws)
    assert {draws.examples.shape(n, 0).height for n in range(2)} <= {32, 64}
    found = schedule.largest()
    tall = [drawn.sizes["height"] for drawn in found]
    assert tall.count(64.0) == 2 and all(drawn.clean.shape[1] == 5 for drawn in found if drawn.sizes["height"] == 64)
