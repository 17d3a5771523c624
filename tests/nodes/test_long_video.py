"""Extend, Connect, Loop and the prompt schedule: kept latents, windows, seeds, prompts by segment, refusals, interrupt."""

import logging

import pytest
import torch
from small import (
    CAPTION_CHANNELS,
    CAPTION_LENGTH,
    NORM_GROUPS,
    pack,
    random_weights,
    run,
    small_causal_vae,
    small_image_vae,
    write,
)  # fmt: skip

SETTINGS = {"seed": 5, "steps": 2, "cfg": 3.0, "sampler_name": "original"}
LATENTS = (2, 3)  # height and width
# generation: lengths of a clip and of one chunk more, of its context and its segment
COUNTS = {"1.2": (17, 34, 17, 17), "1.3": (17, 33, 17, 16), "2d": (6, 10, 4, 4)}


@pytest.fixture(scope="module")
def setups(comfy, model, models, vae, tmp_path_factory):
    """Generation -> (MODEL, VAE)."""
    folder, load = tmp_path_factory.mktemp("vaes"), pack("nodes.comfy.vae").load_vae
    config = {"spatial_norm_groups": NORM_GROUPS}

    def small(name, network):
        return load(write(folder / f"{name}.safetensors", random_weights(network, 7), config=config))

    return {
        "1.2": (model, vae),
        "1.3": (models["stdit3_v1_3"], small("causal", small_causal_vae())),
        "2d": (models["stdit"], small("image", small_image_vae())),
    }


def prompt(seed):
    """CONDITIONING with 7 real tokens."""
    caption = torch.randn(1, CAPTION_LENGTH, CAPTION_CHANNELS, generator=torch.Generator().manual_seed(seed))
    mask = (torch.arange(CAPTION_LENGTH) < 7).long()[None]
    return [[caption * mask[..., None], {"attention_mask": mask, "pooled_output": None}]]


def scheduled(*starts):
    """The prompts 10, 11, … from these segments on."""
    return [
        entry
        for number, start in enumerate(starts)
        for entry in pack("nodes.comfy.conditioning").from_segment(prompt(10 + number), start)
    ]


def clip_of(vae, frames, batch=1, seed=1, **keys):
    """A LATENT of random latents for so many frames."""
    network = vae.first_stage_model
    shape = (batch, network.latent_channels, network.latent_frames(frames), *LATENTS)
    sizes = {"fps": 12.0, "frames": frames, "height": 8 * LATENTS[0], "width": 8 * LATENTS[1]}
    return {"samples": torch.randn(shape, generator=torch.Generator().manual_seed(seed)), **sizes, **keys}


def call(node, setup, **inputs):
    model, vae = setup
    given = {"model": model, "vae": vae, "positive": prompt(3), "context": 17, "segment": 17, **SETTINGS, **inputs}
    return run(getattr(pack("nodes.long_video"), node), **given)[0]


def extend(setup, latent, frames=17, direction="forward", **inputs):
    return call("OpenSoraExtend", setup, latent=latent, frames=frames, direction=direction, **inputs)


def by_hand(setup, samples, kept, frames, **inputs):
    """What Open-Sora Sampler makes of a window whose latents `kept` are masked off."""
    mask = torch.ones(len(samples), 1, *samples.shape[2:])
    mask[:, :, list(kept)] = 0
    latent = {**clip_of(setup[1], frames), "samples": samples, "noise_mask": mask, "frames": frames}
    given = {"model": setup[0], "positive": prompt(3), "latent": latent, "denoise": 1.0, **SETTINGS, **inputs}
    return run(pack("nodes.sampler").OpenSoraSampler, **given)[0]["samples"]


def gap(samples, latents):
    """The same latents with `latents` empty ones behind them."""
    return torch.cat([samples, samples.new_zeros(*samples.shape[:2], latents, *samples.shape[3:])], dim=2)


def with_ends(setup, window, bridge, first, second, total):
    """A window whose `bridge` (a range of its latents) begins with the last frame of one clip and ends with another's first.

    By Open-Sora Keyframe, in an empty clip of `total` frames that ends with the bridge.
    """
    vae = setup[1]
    groups = vae.first_stage_model.groups(total)
    decode, keyframe = pack("nodes.codec").OpenSoraVAEDecode, pack("nodes.keyframe").OpenSoraKeyframe
    window = window.clone()
    for clip, shown, place, index in ((first, -1, bridge[0], -len(bridge)), (second, 0, bridge[-1], -1)):
        images = run(decode, vae=vae, samples=clip)[0].unflatten(0, (len(window), -1))[:, shown]
        frame = groups[index][0 if shown == -1 else -1]
        for row, image in enumerate(images):
            empty = {**clip_of(vae, total), "samples": torch.zeros(1, window.shape[1], len(groups), *LATENTS)}
            pinned = run(keyframe, latent=empty, vae=vae, image=image[None], frame=frame, strength=1.0)[0]
            window[row, :, place] = pinned["samples"][0, :, index]
    return window


def with_last_met(setup, bridge, second):
    """A bridge of one chunk whose last latent is encoded from its own frames, the last ones led to `second`'s first."""
    vae, decode = setup[1], pack("nodes.codec").OpenSoraVAEDecode
    frames, goals = (
        run(decode, vae=vae, samples=latent)[0].unflatten(0, (len(bridge), -1))
        for latent in ({"samples": bridge}, second)
    )
    bridge = bridge.clone()
    for row, (clip, goal) in enumerate(zip(frames, goals[:, 0])):
        for number, share in enumerate((0.25, 0.5, 0.75, 1.0), start=13):
            clip[number] = (1 - share) * clip[number] + share * goal
        latent = run(pack("nodes.codec").OpenSoraVAEEncode, vae=vae, pixels=clip, fps=24.0)[0]
        bridge[row, :, -1] = latent["samples"][0, :, -1]
    return bridge


@pytest.mark.parametrize("generation", COUNTS)
@pytest.mark.parametrize("batch", [1, 2])
def test_one_segment_is_a_masked_run_of_the_sampler(setups, generation, batch):
    setup, (frames, total, context, segment) = setups[generation], COUNTS[generation]
    clip = clip_of(setup[1], frames, batch)
    out = extend(setup, clip, total - frames, context=context, segment=segment)
    T, new = clip["samples"].shape[2], setup[1].first_stage_model.latent_frames(total) - clip["samples"].shape[2]
    seen = T if generation != "2d" else context
    window = by_hand(setup, gap(clip["samples"][:, :, -seen:], new), range(seen), total if seen == T else context + new)
    assert torch.equal(out["samples"][:, :, :T], clip["samples"])
    assert torch.equal(out["samples"][:, :, T:], window[:, :, seen:])
    assert out["samples"].shape[2] == T + new and out["samples"][:, :, T:].std() > 0.1
    assert {key: out[key] for key in ("frames", "fps", "width", "height")} == {
        "frames": total, "fps": 12.0, "width": 24, "height": 16,
    }  # fmt: skip


@pytest.mark.parametrize("generation", COUNTS)
def test_backward_is_a_masked_run_too(setups, generation):
    setup, (frames, total, context, segment) = setups[generation], COUNTS[generation]
    clip = clip_of(setup[1], frames)
    out = extend(setup, clip, total - frames, "backward", context=context, segment=segment)
    T = clip["samples"].shape[2]
    new = out["samples"].shape[2] - T
    seen = T if generation != "2d" else context
    start = torch.cat([torch.zeros_like(clip["samples"][:, :, :new]), clip["samples"][:, :, :seen]], dim=2)
    window = by_hand(setup, start, range(new, new + seen), total if seen == T else context + new)
    assert out["frames"] == total and torch.equal(out["samples"][:, :, new:], clip["samples"])
    assert torch.equal(out["samples"][:, :, :new], window[:, :, :new])


@pytest.mark.parametrize("generation", COUNTS)
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_two_segments_are_two_runs_with_seeds_in_turn(setups, generation, direction):
    setup, (frames, total, context, segment) = setups[generation], COUNTS[generation]
    settings, step = dict(context=context, segment=segment), total - frames
    clip = clip_of(setup[1], frames)
    once = extend(setup, extend(setup, clip, step, direction, **settings), step, direction, **settings, seed=6)
    both = extend(setup, clip, 2 * step, direction, **settings)
    assert torch.equal(both["samples"], once["samples"]) and both["frames"] == once["frames"] == frames + 2 * step
    again = extend(setup, extend(setup, clip, step, direction, **settings), step, direction, **settings)
    assert not torch.equal(both["samples"], again["samples"])


def test_a_longer_segment_and_context_are_seen_at_once(setups):
    setup = setups["1.2"]
    clip = clip_of(setup[1], 51)
    out = extend(setup, clip, 34, context=34, segment=34)
    window = by_hand(setup, gap(clip["samples"][:, :, 5:], 10), range(10), 68)
    assert torch.equal(out["samples"][:, :, 15:], window[:, :, 10:]) and out["frames"] == 85


def test_the_last_seed_is_followed_by_the_first(setups):
    clip = clip_of(setups["1.2"][1], 17)
    ends = extend(setups["1.2"], clip, 34, seed=2**64 - 1)["samples"]
    first = extend(setups["1.2"], clip, 17, seed=2**64 - 1)
    assert torch.equal(ends, extend(setups["1.2"], first, 17, seed=0)["samples"])


def test_what_speaks_of_the_old_clip_is_dropped(setups):
    mask = torch.ones(1, 1, 5, *LATENTS)
    clip = clip_of(setups["1.2"][1], 17, noise_mask=mask, keyframes=[{"name": "image"}], batch_index=[3], other="kept")
    out = extend(setups["1.2"], clip)
    assert not {"noise_mask", "keyframes"} & set(out) and out["other"] == "kept" and len(clip["samples"][0, 0]) == 5


def windows_of(setup, monkeypatch):
    """A list that fills with (samples, kept latents, frames) of every run."""
    sampling, seen = pack("nodes.comfy.sampling"), []
    original = sampling.sample

    def sample(model, positive, negative, latent, *rest, **keywords):
        kept = (latent["noise_mask"][0, 0, :, 0, 0] == 0).nonzero().flatten().tolist()
        seen.append((latent["samples"].clone(), kept, latent["frames"]))
        return original(model, positive, negative, latent, *rest, **keywords)

    monkeypatch.setattr(sampling, "sample", sample)
    return seen


# A clip, what is added, and how many latents stay: 1 frame is a latent of its own wherever its chunk goes on.
@pytest.mark.parametrize(
    ("frames", "added", "stay", "laid", "window"),
    [(1, 16, 1, 0, 17), (18, 16, 6, 0, 34), (22, 12, 7, 0, 34), (29, 5, 5, 3, 34), (20, 14, 5, 1, 34), (29, 4, 8, 0, 33),
     (12, 5, 0, 3, 17), (18, 3, 5, 0, 21)],
)  # fmt: skip
def test_a_begun_chunk_is_finished(setups, monkeypatch, frames, added, stay, laid, window):
    setup = setups["1.2"]
    clip = clip_of(setup[1], frames, batch=2)
    seen = windows_of(setup, monkeypatch)
    out = extend(setup, clip, added)
    T = setup[1].first_stage_model.latent_frames(frames + added)
    assert out["frames"] == frames + added and out["samples"].shape[2] == T
    assert torch.equal(out["samples"][:, :, :stay], clip["samples"][:, :, :stay])
    ((start, kept, seen_frames),) = seen
    assert kept == list(range(stay + laid)) and seen_frames == window
    for number in range(2 * bool(laid)):  # what is laid there again is what the VAE makes of its frames
        images = pack("nodes.comfy.vae").decode(setup[1], clip["samples"][number : number + 1, :, stay:], frames % 17)
        images = torch.cat([images, images[-1:].expand(17 - len(images), -1, -1, -1)])
        again = pack("nodes.comfy.vae").encode(setup[1], images)
        assert torch.allclose(out["samples"][number, :, stay : stay + laid], again[0, :, :laid], atol=1e-5)


def test_a_begun_chunk_of_1_3_goes_on_as_it_is(setups):
    """Its frames fall into the same groups however long the chunk is."""
    clip = clip_of(setups["1.3"][1], 25)
    out = extend(setups["1.3"], clip, 8)
    assert out["frames"] == 33 and torch.equal(out["samples"][:, :, :8], clip["samples"])


@pytest.mark.parametrize(("generation", "bridge"), [("1.2", 17), ("1.3", 15), ("2d", 4)])
def test_connect_sees_both_ends(setups, generation, bridge):
    setup, (frames, _, context, segment) = setups[generation], COUNTS[generation]
    a, b = (clip_of(setup[1], frames, batch=2, seed=seed) for seed in (1, 2))
    out = call("OpenSoraConnect", setup, first=a, second=b, frames=bridge, context=context, segment=segment)
    T = a["samples"].shape[2]
    new = out["samples"].shape[2] - 2 * T
    assert new == (4 if generation == "2d" else 5) and out["frames"] == 2 * frames + bridge
    seen = T if generation != "2d" else context
    start = torch.cat([gap(a["samples"][:, :, -seen:], new), b["samples"][:, :, :seen]], dim=2)
    kept = [*range(seen), *range(seen + new, 2 * seen + new)]
    if generation != "2d":
        total = setup[1].first_stage_model.video_frames(T + new)
        start = with_ends(setup, start, range(seen, seen + new), a, b, total)
        kept += [seen, seen + new - 1]
    window = by_hand(setup, start, kept, 2 * (frames if seen == T else context) + bridge)
    made = window[:, :, seen : seen + new]
    made = made if generation == "2d" else with_last_met(setup, made, b)
    assert torch.equal(out["samples"][:, :, :T], a["samples"])
    assert torch.equal(out["samples"][:, :, -T:], b["samples"])
    assert torch.allclose(out["samples"][:, :, T : T + new], made, atol=1e-5)


def test_a_long_bridge_sees_the_second_clip_in_its_last_segment(setups, monkeypatch):
    setup = setups["1.2"]
    a, b = clip_of(setup[1], 29), clip_of(setup[1], 12, seed=2)
    seen = windows_of(setup, monkeypatch)
    out = call("OpenSoraConnect", setup, first=a, second=b, frames=22)
    assert [frames for _, _, frames in seen] == [34, 46]  # the second clip is shorter than the context
    assert torch.equal(seen[1][0][:, :, :5], out["samples"][:, :, 5:10])
    assert torch.equal(seen[1][0][:, :, 10:], b["samples"]) and torch.equal(out["samples"][:, :, -3:], b["samples"])
    assert out["frames"] == 63 and out["samples"].shape[2] == 18


@pytest.mark.parametrize(("generation", "bridge"), [("1.2", 17), ("1.3", 16), ("2d", 4)])
def test_loop_sees_the_end_and_then_the_beginning(setups, generation, bridge):
    setup, (_, frames, context, segment) = setups[generation], COUNTS[generation]
    clip = clip_of(setup[1], frames)
    out = call("OpenSoraLoop", setup, latent=clip, frames=bridge, context=context, segment=segment)
    T = clip["samples"].shape[2]
    new, seen = out["samples"].shape[2] - T, 4 if generation == "2d" else 5
    start = torch.cat([gap(clip["samples"][:, :, -seen:], new), clip["samples"][:, :, :seen]], dim=2)
    size = {"1.2": 51, "1.3": 49, "2d": 12}[generation]
    kept = [*range(seen), *range(seen + new, 2 * seen + new)]
    if generation != "2d":
        start = with_ends(setup, start, range(seen, seen + new), clip, clip, frames + bridge)
        kept += [seen, seen + new - 1]
    window = by_hand(setup, start, kept, size)
    made = window[:, :, seen : seen + new]
    made = made if generation == "2d" else with_last_met(setup, made, clip)
    assert torch.equal(out["samples"][:, :, :T], clip["samples"]) and out["frames"] == frames + bridge
    assert torch.allclose(out["samples"][:, :, T:], made, atol=1e-5)


@pytest.mark.parametrize("node", ["OpenSoraExtend", "OpenSoraLoop"])
def test_the_network_sees_no_more_of_a_longer_video(setups, node):
    """Memory stays flat: what it is called with has the same shape however much is made."""
    model, vae = setups["1.2"]
    shapes = {}
    for frames in (34, 68, 136):
        called, watched = set(), model.clone()

        def watch(apply, args, called=called):
            called.add(tuple(args["input"].shape[2:]))
            return apply(args["input"], args["timestep"], **args["c"])

        watched.set_model_unet_function_wrapper(watch)
        direction = {"direction": "forward"} if node == "OpenSoraExtend" else {}
        call(node, (watched, vae), latent=clip_of(vae, 34), frames=frames, **direction)
        shapes[frames] = called
    last = {(15, *LATENTS)} if node == "OpenSoraLoop" else set()  # a loop's last window also has its beginning
    assert set(map(frozenset, shapes.values())) == {frozenset({(10, *LATENTS), *last})}


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
    return run(pack("nodes.text").OpenSoraLoadTextEncoder, text_encoder_name="tiny (bundled)", device="default")[0]


def encode(node, clip, text, **scores):
    given = {"aesthetic_score": 0.0, "motion_score": 0.0, "camera_motion": "none", "clean_caption": True, **scores}
    return run(node, clip=clip, prompt=text, **given)[0]


def test_schedule_encodes_each_prompt_as_text_encode_does(text_encoder):
    node, plain = pack("nodes.prompt_schedule").OpenSoraPromptSchedule, pack("nodes.text").OpenSoraTextEncode
    conditioning = pack("nodes.comfy.conditioning")
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


@pytest.mark.parametrize(
    ("generation", "inputs", "words"),
    [
        ("1.2", {"frames": 10}, r"frames is 10; the 27 frames of the whole .* are 8 and 12$"),
        ("1.2", {"frames": 20, "direction": "backward"}, "frames is 20; in front .* chunks of 17 fit: .* 17 and 34$"),
        ("1.2", {"frames": 3, "direction": "backward"}, "the nearest is 17$"),
        ("1.2", {"context": 20}, "context is 20; .* chunks of 17 frames, .* are 17 and 34$"),
        ("1.2", {"segment": 16}, "segment is 16; .* the nearest is 17$"),
        ("1.3", {"frames": 17}, "frames is 17; the 34 frames .* are 16 and 32$"),
        ("1.3", {"frames": 16, "context": 20}, "context is 20; .* chunks of 17 frames, .* are 17 and 33$"),
        ("1.3", {"frames": 17, "direction": "backward"}, "chunks of 16 fit: the nearest are 16 and 32$"),
        # A wire brings numbers that the widgets do not allow.
        ("1.2", {"frames": 0}, "frames is 0; there must be something to make: the nearest is 4$"),
        ("1.2", {"frames": -17}, "frames is -17; .* the nearest is 4$"),
        ("1.2", {"frames": 0, "direction": "backward"}, "frames is 0; .* the nearest is 17$"),
        ("2d", {"frames": 0, "context": 4, "segment": 4}, "frames is 0; .* the nearest is 1$"),
        ("1.3", {"frames": 16, "context": 0}, "context is 0; .* the nearest is 17$"),
        ("1.3", {"frames": 16, "segment": -40}, "segment is -40; .* the nearest is 17$"),
    ],
)
def test_counts_that_are_refused(setups, generation, inputs, words):
    with pytest.raises(ValueError, match=words):
        extend(setups[generation], clip_of(setups[generation][1], 17), **inputs)


def test_a_lone_image_that_new_frames_cannot_lead_to(setups):
    """The chunks of 1.3 share a frame, and a lone image is only that frame; elsewhere it is a chunk of its own."""
    setup = setups["1.3"]
    image, clip = clip_of(setup[1], 1), clip_of(setup[1], 17)
    with pytest.raises(ValueError, match="latent has 1 frame; .* at least 17.*Open-Sora Keyframe at frame -1"):
        extend(setup, image, 16, "backward")
    with pytest.raises(ValueError, match="second has 1 frame; .* at least 17"):
        call("OpenSoraConnect", setup, first=clip, second=image, frames=15)
    assert call("OpenSoraConnect", setup, first=image, second=clip, frames=15)["frames"] == 32 + 1
    assert extend(setups["1.2"], clip_of(setups["1.2"][1], 1), 17, "backward")["frames"] == 18


@pytest.mark.parametrize(
    ("frames", "added", "words"),
    [(17, 0, "frames is 0; .* the nearest is 17$"),
     (17, 20, "the 17 frames of first that is 37, .* multiple of 17: the nearest are 17 and 34$"),
     (29, 17, "29 frames of first that is 46, .* are 5 and 22$")],
)  # fmt: skip
def test_bridges_that_are_refused(setups, frames, added, words):
    setup = setups["1.2"]
    with pytest.raises(ValueError, match=words):
        call("OpenSoraConnect", setup, first=clip_of(setup[1], frames), second=clip_of(setup[1], 17), frames=added)


@pytest.mark.parametrize(
    ("frames", "added", "words"),
    [(17, 10, "clip's 17 frames that is 27, and it must be whole chunks of 17: the nearest is 17$"),
     (1, 16, "latent has 1 frames; .* needs at least 17$")],
)  # fmt: skip
def test_loops_that_are_refused(setups, frames, added, words):
    with pytest.raises(ValueError, match=words):
        call("OpenSoraLoop", setups["1.2"], latent=clip_of(setups["1.2"][1], frames), frames=added)


def test_clips_that_do_not_go_together(setups):
    setup = setups["1.2"]
    first, other = clip_of(setup[1], 17), clip_of(setup[1], 17)
    tall = {**other, "samples": torch.zeros(1, 4, 5, 6, 2), "height": 48, "width": 16}
    for second, words in (
        (tall, "first is 24 x 16 and second 16 x 48; .*Open-Sora Fit Image"),
        ({**other, "fps": 24.0}, "first has 12 frames per second and second 24"),
        (clip_of(setup[1], 17, batch=2), "first is a batch of 1 clips and second of 2"),
        ({"samples": torch.zeros(1, 16, 5, *LATENTS)}, "second has shape .* this VAE's video latents have 4"),
    ):
        with pytest.raises(ValueError, match=words):
            call("OpenSoraConnect", setup, first=first, second=second, frames=17)
    nearly = {**first, "fps": 12.0005}  # as 30000 / 1001, and 29.97 typed
    assert call("OpenSoraConnect", setup, first=first, second=nearly, frames=17)["fps"] == 12.0
    with pytest.raises(ValueError, match="vae is vae_2d, .* Open-Sora 1.2"):
        extend((setup[0], setups["2d"][1]), clip_of(setups["2d"][1], 6))


def test_one_progress_bar_over_all_segments(comfy, setups, monkeypatch):
    import comfy.utils

    seen = []
    monkeypatch.setattr(
        comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, preview, **_: seen.append((value, total))
    )
    extend(setups["1.2"], clip_of(setups["1.2"][1], 17), 51)
    values, totals = zip(*seen)
    assert values == tuple(sorted(set(values))) and values[-1] == 6  # newer versions leave some out, to save time
    assert set(totals) == {6}


def interrupted_at(setup, call_number):
    """(MODEL, VAE) whose network asks for an interrupt at its call of this number, from 1."""
    import comfy.model_management

    model, calls = setup[0].clone(), []

    def watch(apply, args):
        calls.append(1)
        if len(calls) == call_number:
            comfy.model_management.interrupt_current_processing(True)
        return apply(args["input"], args["timestep"], **args["c"])

    model.set_model_unet_function_wrapper(watch)
    return model, setup[1]


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_an_interrupt_keeps_the_finished_segments(comfy, setups, caplog, direction):
    """Two steps a segment, so the interrupt comes in the third."""
    setup, node = setups["1.2"], pack("nodes.long_video").OpenSoraExtend
    clip, before = clip_of(setup[1], 29), node.fingerprint_inputs(frames=85)
    added = 68 if direction == "backward" else 73
    with caplog.at_level(logging.WARNING):
        part = extend(interrupted_at(setup, 5), clip, added, direction)
    whole = extend(setup, clip, added, direction)
    frames, T = (29 + 34, 18) if direction == "backward" else (51, 15)
    kept = whole["samples"][:, :, -T:] if direction == "backward" else whole["samples"][:, :, :T]
    assert torch.equal(part["samples"], kept) and part["frames"] == frames
    assert f"{frames} of {29 + added} frames are finished" in caplog.text
    # ComfyUI asks again before the next run, and another answer makes it forget the part.
    assert node.fingerprint_inputs(frames=85) != before


def test_only_the_node_that_was_cut_short_runs_again(comfy, setups):
    """Two Extends in a row are one class; what the finished one made stays in ComfyUI's cache."""
    from comfy_execution.utils import CurrentNodeContext

    node = pack("nodes.long_video").OpenSoraExtend

    def asked(node_id):
        with CurrentNodeContext("prompt", node_id):
            return node.fingerprint_inputs()

    before = asked("cut"), asked("whole")
    with CurrentNodeContext("prompt", "cut"):
        extend(interrupted_at(setups["1.2"], 3), clip_of(setups["1.2"][1], 17), 34)
    assert asked("cut") != before[0] and asked("whole") == before[1]


def test_an_interrupt_in_the_first_segment_stops_the_run(comfy, setups):
    import comfy.model_management as management

    before = pack("nodes.long_video").OpenSoraExtend.fingerprint_inputs()
    with pytest.raises(management.InterruptProcessingException):
        extend(interrupted_at(setups["1.2"], 1), clip_of(setups["1.2"][1], 17), 34)
    assert pack("nodes.long_video").OpenSoraExtend.fingerprint_inputs() == before


def test_an_interrupted_bridge_leaves_the_second_clip_out(comfy, setups, caplog):
    setup = setups["1.2"]
    first, second = clip_of(setup[1], 17), clip_of(setup[1], 17, seed=2)
    with caplog.at_level(logging.WARNING):
        part = call("OpenSoraConnect", interrupted_at(setup, 3), first=first, second=second, frames=34)
    whole = call("OpenSoraConnect", setup, first=first, second=second, frames=34)
    assert part["frames"] == 34 and torch.equal(part["samples"], whole["samples"][:, :, :10])
    assert "34 of 68 frames are finished and kept; the second clip is left out" in caplog.text


def test_an_interrupt_at_the_last_touch_keeps_the_whole(comfy, setups, caplog, monkeypatch):
    """The bridge is made, but its last latent stays the pin that was encoded from a still."""
    import comfy.model_management as management

    setup, node = setups["1.2"], pack("nodes.long_video").OpenSoraLoop
    clip, before = clip_of(setup[1], 17), node.fingerprint_inputs()
    whole = call("OpenSoraLoop", setup, latent=clip, frames=17)

    def stop(*arguments):
        raise management.InterruptProcessingException

    monkeypatch.setattr(pack("nodes.long_video"), "meet", stop)
    with caplog.at_level(logging.WARNING):
        part = call("OpenSoraLoop", setup, latent=clip, frames=17)
    assert torch.equal(part["samples"][:, :, :-1], whole["samples"][:, :, :-1])
    assert not torch.allclose(part["samples"][:, :, -1], whole["samples"][:, :, -1], atol=1e-3)
    assert "may jump at a seam" in caplog.text and node.fingerprint_inputs() != before
