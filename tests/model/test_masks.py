"""The mask strategy text and the prompt schedule against the original's tables."""

import pytest
import torch
from golden import table
from opensora_comfy.model import masks, text

TABLE = table("mask_strategy")


@pytest.mark.parametrize("row", TABLE["parse"], ids=lambda row: row["s"] or "empty")
def test_parse(row):
    if "error" in row:
        with pytest.raises(ValueError, match="strategy is"):
            masks.parse(row["s"])
    else:
        assert masks.parse(row["s"]) == [tuple(entry) for entry in row["out"]]


def test_no_strategy_has_no_entries():
    assert masks.parse(None) == []


@pytest.mark.parametrize("row", TABLE["nearest"], ids=str)
def test_nearest(row):
    assert masks.nearest(row["value"], row["point"], row["max_value"]) == row["out"]


def numbered(start, frames):
    return torch.arange(start, start + frames, dtype=torch.float32).view(1, -1, 1, 1).repeat(2, 1, 3, 4)


@pytest.mark.parametrize("row", TABLE["apply"], ids=lambda row: f"{row['strategy']} {row['loop_i']} {row['align']}")
def test_apply(row):
    before = numbered(1000, row["z_frames"])
    references = [numbered(100 * (index + 1), frames) for index, frames in enumerate(row["ref_frames"])]
    entries = masks.parse(row["strategy"])
    latents, mask = masks.apply(before, references, entries, loop=row["loop_i"], align=row["align"])
    assert latents[0, :, 0, 0].tolist() == row["z"] and torch.equal(latents, latents[:1, :, :1, :1].expand_as(latents))
    assert mask.tolist() == pytest.approx(row["mask"])
    assert torch.equal(before, numbered(1000, row["z_frames"]))


def test_loops_go_on_from_what_was_generated():
    first, second = TABLE["loops"]
    strategies, references = list(first["before"]), [1, 0]
    for row in (first, second):
        for index, strategy in enumerate(strategies):
            strategies[index] = masks.continue_loop(strategy, row["loop_i"], references[index], first["cond_len"])
            references[index] += 1
        assert strategies == row["after"] and references == row["n_refs"]


@pytest.mark.parametrize("row", TABLE["prompts"], ids=lambda row: row["prompt"])
def test_prompt_schedule(row):
    for prompt in (row["prompt"], row["merged"]):
        assert [text.prompt_for_loop(prompt, loop) for loop in range(len(row["loops"]))] == row["loops"]


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        ("0,0,0,0,1,2", "^strategy is '0,0,0,0,1,2': character 11, '2', is the edit_ratio; it must be from 0"),
        ("0,0,0,0,1,nan", "character 11, 'nan', is the edit_ratio"),
        ("0;0,0,0,0,-1", "character 11, '-1', is the length; it must be 0 or more"),
        ("0,1", "asks for reference 1; there are 1"),
        ("0,0,0,16", "target_start 16, but that clip has 15 latent frames.*nearest is 14"),
        ("0,0,-4", "reference_start -4, but that clip has 3 latent frames.*nearest is -3"),
    ],
)
def test_what_cannot_be_is_refused(strategy, words):
    with pytest.raises(ValueError, match=words):
        masks.apply(numbered(1000, 15), [numbered(100, 3)], strategy)


def test_entries_that_were_parsed_before_are_refused_too():
    with pytest.raises(ValueError, match="has the length -1"):
        masks.apply(numbered(1000, 15), [numbered(100, 3)], masks.parse("0,0,0,0,-1"))


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        ("x", "^strategy is 'x': character 1, 'x', is no whole number for loop$"),
        ("0,0,x", "character 5, 'x', is no whole number for reference_start$"),
        ("0;x", "character 3, 'x', is no whole number for loop$"),
        ("0; 0,  1.5", "character 8, '1.5', is no whole number for reference$"),
        ("0,0,0,0,1,firm", "character 11, 'firm', is no number for edit_ratio$"),
        ("0,0,0,0,1,0,9", "character 13, '9', is value 7 of its entry; the most are 6: loop, reference, "),
        ("0;", "^strategy is '0;': at character 3 a whole number for loop is missing$"),
        ("0,,1", "at character 3 a whole number for reference is missing$"),
        (";0", "at character 1 a whole number for loop is missing$"),
        ("0,0,0,0,1, ;0", "at character 12 a number for edit_ratio is missing$"),
    ],
)
def test_malformed_text_is_pointed_at(strategy, words):
    with pytest.raises(ValueError, match=words):
        masks.parse(strategy)


def test_a_position_that_aligns_into_the_clip_counts():
    """As in the original: latent frame 7 of 7 is none, but with chunks of 5 it means the second chunk."""
    _, mask = masks.apply(numbered(0, 7), [numbered(100, 1)], "0,0,0,7", align=5)
    assert mask.tolist() == [1, 1, 1, 1, 1, 0, 1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int32])
def test_mask_values_are_fp32_whatever_the_latents_are(dtype):
    _, mask = masks.apply(numbered(0, 7).to(dtype), [numbered(100, 1)], "0,0,0,0,1,0.3")
    assert mask.dtype == torch.float32 and torch.equal(mask[:2], torch.tensor([0.3, 1.0]))


def test_an_entry_is_quoted_with_all_its_digits():
    with pytest.raises(ValueError, match="entry 0,0,0,1234567,1,0.25 has the target_start 1234567"):
        masks.apply(numbered(0, 7), [numbered(100, 1)], "0,0,0,1234567,1,0.25")


@pytest.mark.parametrize("prompt", ["|0| a |1", "|0| a |x| b", "|0| a |2| b |1| c"])
def test_a_broken_schedule_is_refused(prompt):
    with pytest.raises(ValueError, match="prompt is"):
        text.prompt_for_loop(prompt, 0)
