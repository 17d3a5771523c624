"""The transformer's clips as the trainer reads them: what is drawn follows from the step and the clip, and it resumes."""

from collections import Counter
from dataclasses import replace

import numpy
import pytest
import torch
from opensora_comfy.model.transformers.stdit3 import STDiT3, STDiT3Config
from opensora_comfy.model.vaes.v1_2 import VideoVAE
from opensora_comfy.training.checkpoints import entries
from opensora_comfy.training.tiny import latents, run
from opensora_comfy.training.tiny.examples import FPS, Rendered, TinyObjective
from opensora_comfy.training.tiny.recipe import VAE
from opensora_comfy.training.trainer.steps import Draws, Place, Schedule
from opensora_comfy.training.trainer.trainer import Trainer

SMALL = STDiT3Config(depth=1, hidden_size=32, num_heads=2, caption_channels=8, model_max_length=30)


def letters(text):
    """Stands where the text encoder does: a token for each of the first letters."""
    features = torch.zeros(30, 8)
    codes = torch.tensor([ord(letter) for letter in text[:30]])
    features[: len(codes)] = torch.sin(codes[:, None] * torch.arange(1, 9))
    return features, (torch.arange(30) < len(codes)).long()


@pytest.fixture(scope="module")
def buckets():
    torch.manual_seed(0)
    vae, rng = VideoVAE(VAE).eval(), numpy.random.default_rng(0)
    return [latents.encode_bucket(vae, rng, 6, 64, 64, frames) for frames in (17, 34, 1)]


def drawn(clips, count, **options):
    network = STDiT3(SMALL)
    schedule = Schedule(Draws(clips, TinyObjective(), network.null_caption.detach(), seed=0), **options)
    return list(schedule.read(Place(), count))


def test_a_step_is_of_one_bucket_and_costs_about_the_same(buckets):
    clips = Rendered(buckets, letters, batch=4)
    batches = [batch for step, (batch,) in drawn(clips, 300)]
    found = Counter((int(batch[0].sizes["num_frames"]), len(batch)) for batch in batches)
    assert set(found) == {(17, 4), (34, 2), (1, 6)} and all(
        len({d.sizes["num_frames"] for d in b}) == 1 for b in batches
    )
    assert 0.72 < found[17, 4] / 300 < 0.88  # 0.68 of 0.68 + 0.13 + 0.04
    assert len({(step.epoch, index) for step, _ in drawn(clips, 50) for index in step.batches[0]}) == sum(
        step.count for step, _ in drawn(clips, 50)
    )


def test_draws_follow_from_the_step_and_the_clip(buckets):
    """Anew in each step: captions, frame rates, masks, noise; the same wherever a run goes on, and for each process."""
    clips = Rendered(buckets, letters, batch=4)
    whole, again = drawn(clips, 8), drawn(Rendered(buckets, letters, batch=4), 8, workers=1)
    for (step, (batch,)), (other, (others,)) in zip(whole, again):
        assert step == other and all(torch.equal(a.noise, b.noise) and a.t == b.t for a, b in zip(batch, others))
        assert all(torch.equal(a.caption, b.caption) and a.sizes == b.sizes for a, b in zip(batch, others))
    read = [clips.read(0, number) for number in range(40)]
    assert len({tuple(example.features.flatten().tolist()) for example in read}) > 10
    assert {example.sizes["fps"] for example in read} == set(FPS)
    parts = [drawn(clips, 8, rank=rank, ranks=2) for rank in range(2)]
    for (first, _), (second, _) in zip(*parts):
        assert not {*first.batches[0]} & {*second.batches[0]} and first.count == second.count


def test_timesteps_cover_the_range_and_move_toward_noise(buckets):
    """In every batch; all but a quarter of them are moved."""
    times = [d.t for _, (batch,) in drawn(Rendered(buckets[:1], letters, batch=6), 200) for d in batch]
    assert len(times) == 1200 and sum(t > 750 for t in times) / 1200 == pytest.approx(
        0.75 * 0.6 + 0.25 * 0.25, abs=0.05
    )
    even = replace(TinyObjective(), transform=0.0)
    clips, null = Rendered(buckets[:1], letters, batch=6), STDiT3(SMALL).null_caption.detach()
    for _, (batch,) in Schedule(Draws(clips, even, null, seed=0)).read(Place(), 20):
        assert [int(drawn.t / 1000 * 6) for drawn in batch] == list(range(6))


def test_a_place_in_a_batch_is_no_matter_of_what_is_shown(buckets):
    """Purple on gray is drawn more often, and at every range of t alike."""
    bucket = replace(buckets[0], scenes=[replace(buckets[0].scenes[0], color=c, background="gray") for c in
                                         ("purple", "red", "blue", "green", "orange", "yellow")])  # fmt: skip
    clips = Rendered([bucket], letters, batch=3)
    places = Counter(
        place for number in range(1000) for place, index in enumerate(clips.steps(number)[0][0][0]) if not index
    )
    assert sum(places.values()) > 700 and max(places.values()) < 1.25 * min(places.values())


def trainer(folder, buckets, **options):
    torch.manual_seed(0)
    clips, how = Rendered(buckets, letters, batch=3), run.settings(6, 1e-3, muon_rate=0.01)
    return Trainer(STDiT3(SMALL), clips, TinyObjective(), how, run.saving(folder), say=lambda words: None, **options)


def test_a_run_on_them_goes_on_where_it_stopped(tmp_path, buckets):
    whole = trainer(tmp_path / "whole", buckets)
    whole.run()
    stopped = trainer(tmp_path / "stopped", buckets, on_step=lambda entry: entry["step"] == 3)
    stopped.run()
    assert stopped.step == 3
    on = trainer(tmp_path / "stopped", buckets)
    on.run()
    losses = [[line["loss"] for line in entries(tmp_path / name / "log.jsonl")] for name in ("whole", "stopped")]
    assert losses[0] == losses[1] and len(losses[0]) == 6
    assert all(torch.equal(value, whole.parameters[name]) for name, value in on.parameters.items())
