"""Extend, Connect and Loop: kept latents, windows, seeds, one progress bar."""

import pytest
import torch
from long_clips import COUNTS, LATENTS, SETTINGS, call, clip_of, extend, prompt
from small import pack, run


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
    groups = vae.first_stage_model.counting.groups(total)
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


@pytest.fixture
def met_at_once(monkeypatch):
    """Ends of bridges are encoded once, as `with_last_met` does (test_seams.py: several times)."""
    monkeypatch.setattr(pack("nodes.seams"), "ATTEMPTS", 1)


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
    sampling, seen = pack("nodes.comfy.sampling.long_run"), []
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
        images = pack("nodes.comfy.vae.video_vae").decode(
            setup[1], clip["samples"][number : number + 1, :, stay:], frames % 17
        )
        images = torch.cat([images, images[-1:].expand(17 - len(images), -1, -1, -1)])
        again = pack("nodes.comfy.vae.video_vae").encode(setup[1], images)
        assert torch.allclose(out["samples"][number, :, stay : stay + laid], again[0, :, :laid], atol=1e-5)


def test_a_begun_chunk_of_1_3_goes_on_as_it_is(setups):
    """Its frames fall into the same groups however long the chunk is."""
    clip = clip_of(setups["1.3"][1], 25)
    out = extend(setups["1.3"], clip, 8)
    assert out["frames"] == 33 and torch.equal(out["samples"][:, :, :8], clip["samples"])


@pytest.mark.parametrize(("generation", "bridge"), [("1.2", 17), ("1.3", 15), ("2d", 4)])
def test_connect_sees_both_ends(setups, met_at_once, generation, bridge):
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
        total = setup[1].first_stage_model.counting.video_frames(T + new)
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
def test_loop_sees_the_end_and_then_the_beginning(setups, met_at_once, generation, bridge):
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
