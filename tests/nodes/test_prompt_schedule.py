"""Prompt schedules: encoded one by one, taken by segment, refused where they are malformed."""

import pytest
import torch
from long_clips import SETTINGS, clip_of, extend, prompt
from small import pack, run


def scheduled(*starts):
    """The prompts 10, 11, … from these segments on."""
    return [
        entry
        for number, start in enumerate(starts)
        for entry in pack("nodes.comfy.sampling.conditioning").from_segment(prompt(10 + number), start)
    ]


def test_prompts_change_by_segment(setups):
    setup = setups["1.2"]
    clip, parts = clip_of(setup[1], 17), [prompt(10), prompt(10), prompt(11)]
    expected = clip
    for index, part in enumerate(parts):
        expected = extend(setup, expected, seed=5 + index, positive=part, negative=prompt(20))
    whole = extend(setup, clip, 51, positive=scheduled(0, 2), negative=prompt(20))
    assert torch.equal(whole["samples"], expected["samples"])
    first = extend(setup, clip, positive=prompt(10), negative=prompt(10))
    second = extend(setup, first, seed=6, positive=prompt(10), negative=prompt(11))
    whole = extend(setup, clip, 34, positive=prompt(10), negative=scheduled(0, 1))
    assert torch.equal(whole["samples"], second["samples"])


def test_the_sampler_takes_the_first_prompt_of_a_schedule(setups):
    model, vae = setups["1.2"]

    def sample(positive, negative=None):
        given = {"model": model, "positive": positive, "negative": negative, "latent": clip_of(vae, 17), "denoise": 1.0}
        return run(pack("nodes.sampler").OpenSoraSampler, **given, **SETTINGS)[0]["samples"]

    assert torch.equal(sample(scheduled(0, 1)), sample(prompt(10)))
    assert torch.equal(sample(prompt(3), scheduled(0, 1)), sample(prompt(3), prompt(10)))


@pytest.fixture(scope="module")
def text_encoder(comfy):
    return run(pack("nodes.loaders").OpenSoraLoadTextEncoder, text_encoder_name="tiny (bundled)", device="default")[0]


def encode(node, clip, text, **scores):
    given = {"aesthetic_score": 0.0, "motion_score": 0.0, "camera_motion": "none", "clean_caption": True, **scores}
    return run(node, clip=clip, prompt=text, **given)[0]


def test_schedule_encodes_each_prompt_as_text_encode_does(text_encoder):
    node, plain = pack("nodes.prompt_schedule").OpenSoraPromptSchedule, pack("nodes.text").OpenSoraTextEncode
    conditioning = pack("nodes.comfy.sampling.conditioning")
    for text in ("|0| sunrise |2| noon", " | 0 |sunrise| 2 |noon"):
        found = encode(node, text_encoder, text, motion_score=5.0)
        for segment, word in enumerate(["sunrise", "sunrise", "noon", "noon"]):
            (entry,) = conditioning.for_segment(found, segment)
            (expected,) = encode(plain, text_encoder, word, motion_score=5.0)
            assert torch.equal(entry[0], expected[0])
            assert torch.equal(entry[1]["attention_mask"], expected[1]["attention_mask"])
    (entry,) = encode(node, text_encoder, "a plain | prompt")
    (expected,) = encode(plain, text_encoder, "a plain | prompt")
    assert torch.equal(entry[0], expected[0])


def test_a_prompt_that_comes_back_is_encoded_once(text_encoder, monkeypatch):
    conditioning, read = pack("nodes.comfy.sampling.conditioning"), []
    own = pack("nodes.text").encode_prompt
    monkeypatch.setattr(pack("nodes.text"), "encode_prompt", lambda *given: read.append(given[1]) or own(*given))
    found = encode(pack("nodes.prompt_schedule").OpenSoraPromptSchedule, text_encoder, "|0| noon |2| dusk |4| noon")
    assert read == ["noon", "dusk"]
    first, last = (conditioning.for_segment(found, segment)[0] for segment in (0, 4))
    assert torch.equal(first[0], last[0]) and first[1]["opensora_segment"] == 0 and last[1]["opensora_segment"] == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("|1| noon", r"does not begin at \|0\|"),
        ("sunrise |2| noon", r"does not begin at \|0\|"),
        ("|0| a |2| b |1| c", r"\[0, 2, 1\], and they must rise"),
        ("|0| a |0| b", "must rise"),
        ("|0| a |1| |2| c", r"no text after \|1\|.*take \|1\| out"),
        ("|0| |2| noon", r"no text after \|0\|"),
        ("|0| a |1|", r"no text after \|1\|"),
        ("|0| a |x| b", r"stands the number of a segment, and 'x' is none$"),
        ("|0| a |1", r"after \|1 comes no prompt"),
    ],
)
def test_schedules_that_are_refused(text_encoder, text, words):
    with pytest.raises(ValueError, match=words) as refusal:
        encode(pack("nodes.prompt_schedule").OpenSoraPromptSchedule, text_encoder, text)
    assert str(refusal.value).startswith("prompt is")


def test_a_prompt_beyond_the_last_segment(setups):
    clip = clip_of(setups["1.2"][1], 17)
    with pytest.raises(
        ValueError, match="positive has a prompt that begins at segment 4, but here are segments 0 to 2"
    ):
        extend(setups["1.2"], clip, 51, positive=scheduled(0, 4))
    with pytest.raises(ValueError, match="negative has .* at segment 1, but here is segment 0 alone"):
        extend(setups["1.2"], clip, 17, negative=scheduled(0, 1))
