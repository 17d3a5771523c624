"""Buckets and the plan of an epoch, row by row as the original's."""

import json
from functools import partial

import pytest
from golden import FOLDER
from opensora_comfy.training.data import aspect_ratios
from opensora_comfy.training.data.buckets import Buckets, plan

VERSIONS = ["1.1", "1.2", "1.3"]


def recorded(name, version):
    return json.loads((FOLDER / "training" / f"{name}_v{version.replace('.', '_')}.json").read_text())


@pytest.mark.parametrize("version", ["1.1", "1.3"])
def test_sizes_of_every_resolution(version):
    for resolution, known in recorded("aspect", version).items():
        sizes = aspect_ratios.sizes(resolution, version)
        assert list(sizes.items()) == [(ratio, tuple(size)) for ratio, size in known["ratios"].items()]
        assert aspect_ratios.area(resolution, version) == known["pixels"]
    assert len(aspect_ratios.resolutions(version)) == len(recorded("aspect", version))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_row_finds_its_bucket(version):
    rows = 0
    for name, table in recorded("buckets", version).items():
        if table["cls"] != "Bucket":  # the class that 1.3's data set cannot reach
            continue
        buckets = Buckets(table["config"], version)
        assert len(buckets) == table["num_bucket"]
        for frames, height, width, interval, seed, *known in table["rows"]:
            bucket = buckets.assign(frames, height, width, interval, seed)
            found = [None] if bucket is None else [*bucket, *buckets.shape(bucket), buckets.batch_size(bucket)]
            assert found == known, (name, frames, height, width, interval, seed)
            rows += 1
    assert rows > 1000


def planned(*arguments, **settings):
    return [["-".join(map(str, entry)) for entry in batch] for batch in plan(*arguments, **settings)]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_epoch_is_planned_alike(version):
    table = recorded("batches", version)
    for case in table["plans"]:
        buckets = Buckets(table["configs"][case["config"]], version)
        settings = {key: case[key] for key in ("seed", "epoch", "frame_interval", "drop_last")}
        settings["shuffle"] = case.get("shuffle", True)

        batches = partial(planned, table["manifest"], buckets, **settings)
        assert batches() == case["one_rank"]
        if "two_ranks" in case:
            assert [batches(ranks=2, rank=rank) for rank in (0, 1)] == case["two_ranks"]
        if "resume_after_3_steps_on_2_ranks" in case:
            resumed = case["resume_after_3_steps_on_2_ranks"]
            done = resumed["state"]["last_micro_batch_access_index"]
            assert [batches(ranks=2, rank=rank, done=done) for rank in (0, 1)] == resumed["two_ranks"]
            assert batches(done=done) == resumed["one_rank"]


def test_what_is_refused():
    with pytest.raises(ValueError, match="resolution is '241p'; Open-Sora 1.2 has .*; the nearest is 240p"):
        Buckets({"241p": {51: (1.0, 1)}})
    with pytest.raises(ValueError, match="resolution is '2k'; Open-Sora 1.1"):
        Buckets({"2k": {51: (1.0, 1)}}, "1.1")
    with pytest.raises(
        ValueError, match="probability of 240p, 51 frames, is 1.5; it must be within 0 … 1, the nearest is 1"
    ):
        Buckets({"240p": {51: (1.5, 1)}})
    refused = {
        "a length must be at least 1": {0: (1.0, 1)},
        "the batch size of 240p, 51 frames, is None; it must be a whole number from 1 on": {51: (0.5, None)},
        "the batch size of 240p, 51 frames, is 0": {51: ((1.0, 0.5), 0)},
    }
    for words, lengths in refused.items():
        with pytest.raises(ValueError, match=words):
            Buckets({"240p": lengths})
    with pytest.raises(ValueError, match="version is '7.7'; buckets are those of 1.1, 1.2, 1.3"):
        Buckets({"240p": {51: (1.0, 1)}}, "7.7")


def test_every_published_configuration_is_understood():
    published = json.loads((FOLDER / "training" / "published_configs.json").read_text())
    known = {name: config["bucket_config"] for name, config in published.items() if "bucket_config" in config}
    for name, config in known.items():
        if name != "1.1/benchmark":  # a search for batch sizes: ranges stand where others have probabilities
            assert len(Buckets(config, name.split("/")[0])) > 0
    assert len(known) > 10


def test_ranks_that_no_padding_fills_get_as_many_batches():
    buckets = Buckets({"144p": {16: (1.0, 1)}})
    plans = [plan([(17, 144, 256)], buckets, seed=0, epoch=0, ranks=3, rank=rank, drop_last=False) for rank in range(3)]
    assert plans == [[], [], []]
