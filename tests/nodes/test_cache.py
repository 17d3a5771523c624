"""Open-Sora Cache: what is left out, in every way to sample; what it says of it; that nothing stays behind."""

import logging
from types import SimpleNamespace

import pytest
import torch
from caches import STEPS, cached, caching, nothing_left
from families import SMALL, VIDEO, clip, negative, ours, small_family
from golden import difference
from opensora_comfy.training.tiny.painting import psnr
from opensora_comfy.training.tiny.shapes import Scene, render
from small import pack
from stock import computed, ksampler, ksampler_advanced, sampler_custom_advanced, stock
from tiny import run as tiny_run

MASK = [0.0, 1.0, 1.0, 0.0, 1.0]
WAYS = {
    "original": lambda model, positive, latent: ours(model, positive, latent, steps=STEPS),
    "ksampler": lambda model, positive, latent: ksampler(
        model, positive, negative(model, positive), latent, steps=STEPS
    ),
}


class Counted:
    """Counts the layers that are really computed, by prompt, whoever asks for them."""

    def __init__(self, monkeypatch, model):
        self.count, own = 0, {module for _, module in caching().layers(model.model.diffusion_model)}
        for kind in {type(module) for module in own}:
            monkeypatch.setattr(kind, "forward", self._counting(kind.forward, own))
        hook = model.model.diffusion_model.final_layer.register_forward_pre_hook(self._rows)
        self.close, self.pending = hook.remove, set()

    def _counting(self, forward, own):
        def counting(module, *given, **named):
            self.pending |= {module} & own  # in 1.3 once for each caption
            return forward(module, *given, **named)

        return counting

    def _rows(self, module, given):
        self.count, self.pending = self.count + len(self.pending) * len(given[0]), set()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SMALL)
def test_a_speed_of_0_changes_nothing_and_the_model_is_left_alone(comfy, models, positive, name, way, saved):
    model, latent, sample = models[name], clip(name, MASK), WAYS[way]
    whole = sample(model, positive, latent)
    assert torch.equal(sample(cached(cached(model), 0.0), positive, latent), whole)
    assert not saved
    sample(cached(model), positive, latent)
    assert len(saved) == 1 and nothing_left(model)
    assert torch.equal(sample(model, positive, latent), whole)


@pytest.mark.parametrize(("name", "mask"), [*((name, None) for name in SMALL), *((name, MASK) for name in VIDEO)])
@pytest.mark.parametrize("way", WAYS)
def test_what_is_said_to_be_saved_is(comfy, models, positive, monkeypatch, name, way, mask, saved):
    """And kept frames leave as they came, to the bit; the clip is near the one of a run without."""
    model, latent, sample = models[name], clip(name, mask), WAYS[way]
    whole = sample(model, positive, latent)
    counted = Counted(monkeypatch, model)
    fewer = sample(cached(model), positive, latent)
    counted.close()
    (run_,) = saved
    assert counted.count == run_.computed_layers < 0.8 * run_.layers
    assert run_.layers == run_.calls * len(list(caching().layers(model.model.diffusion_model)))
    assert run_.computed_calls < run_.calls
    assert torch.isfinite(fewer).all() and 0 < difference(fewer, whole) < 0.5
    if mask is not None:
        kept = [index for index, value in enumerate(mask[: latent["samples"].shape[2]]) if value == 0]
        assert torch.equal(fewer[:, :, kept], latent["samples"][:, :, kept])
    assert nothing_left(model)


def test_more_speed_computes_less(comfy, models, positive, saved):
    for speed in (0.25, 0.5, 0.75, 1.0):
        ours(cached(models["stdit3"], speed), positive, clip("stdit3"), steps=30)
    shares = [run_.computed_layers / run_.layers for run_ in saved]
    assert shares == sorted(shares, reverse=True) and shares[-1] < shares[0] < 1


def test_runs_know_nothing_of_one_another(comfy, models, positive):
    """Two nodes behind one another are the last; the same run twice is the same, another one in between or not."""
    model, latent = cached(cached(models["stdit3"], 0.3)), clip("stdit3")
    first = ours(model, positive, latent, steps=STEPS)
    ours(model, positive, clip("stdit3", MASK), steps=STEPS, seed=8)
    assert torch.equal(ours(model, positive, latent, steps=STEPS), first)
    assert torch.equal(ours(cached(models["stdit3"]), positive, latent, steps=STEPS), first)


def test_batches(comfy, models, positive, saved):
    """Clips beside one another share the decisions; so may prompts, each for a clip of its own."""
    prompts = [
        [torch.cat([positive[0][0], 0.5 * positive[0][0]]), {"attention_mask": positive[0][1]["attention_mask"]}]
    ]
    for conditioning in (positive, prompts):
        whole, fewer = (
            ours(model, conditioning, clip("stdit3", MASK, batch=2), steps=STEPS)
            for model in (models["stdit3"], cached(models["stdit3"]))
        )
        assert fewer.shape[0] == 2 and difference(fewer, whole) < 0.5
        assert torch.equal(fewer[:, :, [0, 3]], whole[:, :, [0, 3]])
    assert all(run_.computed_calls < run_.calls for run_ in saved)


@pytest.mark.parametrize("name", ["stdit2", "stdit3", "stdit3_v1_3"])
def test_prompts_in_one_call_or_one_after_the_other(comfy, models, positive, monkeypatch, name):
    model, latent = cached(models[name]), clip(name, MASK)
    together = ours(model, positive, latent, steps=STEPS)
    base = type(model.model)
    required = base.memory_required
    monkeypatch.setattr(base, "memory_required", lambda self, shape, **named: 1e30 if shape[0] > 1 else 1.0)
    with computed(model) as calls:
        apart = ours(model, positive, latent, steps=STEPS)
    monkeypatch.setattr(base, "memory_required", required)
    assert len(calls) > STEPS
    assert difference(apart, together) <= 1e-4


def test_several_prompts_and_areas(comfy, models, positive, saved):
    """Prompts side by side are told apart; an area is a picture of its own size."""
    other = [[-positive[0][0], {**positive[0][1], "area": (5, 4, 3, 0, 0, 2), "strength": 1.0}]]
    whole, fewer = (
        ksampler(model, [*positive, *other], negative(model, positive), clip("stdit3"), steps=STEPS)
        for model in (models["stdit3"], cached(models["stdit3"]))
    )
    (run_,) = saved
    assert run_.calls == 4 * STEPS and run_.computed_calls < run_.calls  # ComfyUI gives the negative that area too
    assert difference(fewer, whole) < 0.5


@pytest.mark.parametrize("schedule", ["standard_static", "standard_uniform", "looped_uniform", "batched"])
def test_context_windows(comfy, models, positive, saved, schedule):
    """Every window has its own results; windows that move from step to step are new, and computed."""
    latent = clip("stdit3", MASK)
    latent["samples"] = torch.randn(1, 4, 10, 5, 6, generator=torch.Generator().manual_seed(9))
    latent |= {"noise_mask": torch.ones(1, 1, 10, 5, 6), "frames": 34}
    latent["noise_mask"][:, :, [0, 9]] = 0
    inputs = {"context_length": 5, "context_overlap": 2, "dim": 2, "context_schedule": schedule}
    windows = "comfy_extras.nodes_context_windows"
    model = stock(windows, "ContextWindowsManualNode", model=models["stdit3"], **inputs)[0]
    whole, fewer = (ours(each, positive, latent, steps=STEPS) for each in (model, cached(model)))
    assert torch.equal(fewer[:, :, [0, 9]], latent["samples"][:, :, [0, 9]])
    assert difference(fewer, whole) < 0.5
    (run_,) = saved
    still = schedule in ("standard_static", "batched")
    assert (run_.computed_calls < 0.9 * run_.calls) == still


@pytest.mark.parametrize(
    "sampler",
    ["heun", "dpm_2", "dpmpp_2s_ancestral", "euler_ancestral", "dpmpp_sde", "dpmpp_2m", "uni_pc", "dpm_adaptive"],
)
def test_samplers(comfy, models, positive, saved, sampler):
    """Those with two calls a step, those that make noise, those that go back: near the clip of a run without."""
    latent = clip("stdit3", MASK)
    whole, fewer = (
        ksampler(model, positive, negative(model, positive), latent, sampler=sampler, steps=20)
        for model in (models["stdit3"], cached(models["stdit3"], 0.7))
    )
    (run_,) = saved
    assert run_.computed_layers < run_.layers
    assert torch.isfinite(fewer).all() and difference(fewer, whole) < 0.5


def test_a_run_in_two_halves_and_one_of_a_part(comfy, models, positive, saved):
    model = cached(models["stdit3"])
    none = negative(model, positive)
    first = ksampler_advanced(model, positive, none, clip("stdit3"), 0, 10, steps=20)
    second = ksampler_advanced(model, positive, none, first, 10, 20, steps=20)["samples"]
    whole = ksampler(models["stdit3"], positive, none, clip("stdit3"), steps=20)
    assert difference(second, whole) < 0.5
    ksampler(model, positive, none, {"samples": whole}, steps=STEPS, denoise=0.4)
    sampler_custom_advanced(model, positive, none, clip("stdit3"), steps=STEPS)
    assert len(saved) == 4 and all(run_.computed_calls < run_.calls for run_ in saved)


@pytest.mark.parametrize("name", VIDEO)
def test_frames_that_wake_on_the_way(comfy, models, positive, name, saved):
    """From that step on they are another picture: nothing is forecast from before."""
    latent = clip(name, [0.0, 0.5, 1.0, 0.3, 1.0])
    whole, fewer = (ours(model, positive, latent, steps=20) for model in (models[name], cached(models[name])))
    assert torch.equal(fewer[:, :, 0], latent["samples"][:, :, 0])
    assert difference(fewer, whole) < 0.5 and saved[0].computed_calls < saved[0].calls


def test_calls_are_told_apart(comfy):
    """By prompt, kept frames, window, shape and replaced blocks."""
    x, keys = torch.zeros(2, 4, 3, 2, 2), caching()._keys
    frames = torch.tensor([[0, 1, 1], [1, 1, 1]], dtype=torch.int32)
    calls = [
        (x, {"uuids": [1, 2]}, {}),
        (x, {"uuids": [1, 2]}, {"frame_mask": frames}),
        (x[:, :, :2], {"uuids": [1, 2]}, {}),
        (x, {"uuids": [1, 2], "context_window": SimpleNamespace(index_list=[0, 1, 2])}, {}),
        (x, {"uuids": [1, 2], "context_window": SimpleNamespace(index_list=[3, 4, 5])}, {}),
        (x, {"uuids": [1, 2], "patches_replace": {"dit": {("double_block", 1): print}}}, {}),
    ]
    found = [key for call in calls for key in keys(*call)]
    assert len(set(found)) == len(found) == 12
    assert [key for call in calls for key in keys(*call)] == found


def test_the_ends_of_a_schedule_are_computed(comfy, models, positive, monkeypatch):
    """The first two steps, to forecast from, and the last two; change is counted in generated frames."""
    left_out, counted = [], []
    decide, change = caching().Cache._decide, caching()._change

    def decided(self, *given):
        decide(self, *given)
        left_out.append(self.skips)

    def changed(before, after, generated):
        counted.append(generated.tolist())
        return change(before, after, generated)

    monkeypatch.setattr(caching().Cache, "_decide", decided)
    monkeypatch.setattr(caching(), "_change", changed)
    ours(cached(models["stdit3"]), positive, clip("stdit3", MASK), steps=20)
    assert left_out[:2] == left_out[-2:] == [False, False] and sum(left_out) >= 5
    assert counted == [[MASK]] * 19


def test_only_generated_frames_count(comfy, models, positive, saved):
    """Kept frames do not change: were they counted, a clip that has mostly such would be left out far longer."""
    change = caching()._change
    before, after = torch.ones(1, 3, 4, 8), torch.tensor([1.0, 1.0, 1.5]).view(1, 3, 1, 1).expand(1, 3, 4, 8)
    assert change(before, after, torch.tensor([[0.0, 0.0, 1.0]])) == pytest.approx(0.5)
    assert change(before, after, torch.zeros(1, 3)) == 0
    shown = torch.zeros(2, 4, 3, 2, 2)
    told = {"frame_mask": torch.tensor([[0, 1, 1], [1, 1, 0]], dtype=torch.int32), "condition_frames": [1]}
    assert caching()._generated(shown, told).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_blocks_left_out_by_guidance_are_another_network(comfy, models, positive, saved):
    """SkipLayerGuidanceDiT asks for the same prompt without a layer: not what is known of the whole network."""
    inputs = {"double_layers": "1", "single_layers": "", "scale": 3.0, "start_percent": 0.0, "end_percent": 1.0}
    model = stock("comfy_extras.nodes_slg", "SkipLayerGuidanceDiT", model=models["stdit3"], **inputs)[0]
    whole, fewer = (ours(each, positive, clip("stdit3"), steps=20) for each in (model, cached(model)))
    (run_,) = saved
    assert run_.calls == 3 * 20 and run_.computed_calls < run_.calls
    assert difference(fewer, whole) < 0.5


def test_compiled_models(comfy, models, positive, monkeypatch, saved):
    """Steps are left out before the compiled network begins, and layers keep nothing: no graph is made for it."""
    import comfy.ldm.modules.attention as backends
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    # As on a GPU: the attention of a CPU looks up the free memory, which no compiler follows.
    monkeypatch.setattr(pack("nodes.comfy.transformer.attention"), "optimized_attention", backends.attention_pytorch)

    def compiled(model):
        model = model.clone()
        set_torch_compile_wrapper(model=model, backend=backend, fullgraph=True)
        return model

    graphs, runs = [], []

    def backend(graph, inputs):
        graphs.append(1)

        def counted(*given):
            runs.append(1)
            return graph.forward(*given)

        return counted

    latent = clip("stdit3", MASK)
    for model in (cached(compiled(models["stdit3"])), compiled(cached(models["stdit3"]))):
        torch._dynamo.reset()
        graphs.clear()
        runs.clear()
        ours(model, positive, latent, steps=STEPS)
        run_ = saved[-1]
        assert run_.computed_layers * run_.calls == run_.layers * run_.computed_calls
        assert len(graphs) <= 2 and 0 < len(runs) < STEPS
    torch._dynamo.reset()


def interrupted(step):
    """A stand-in for ComfyUI's previews that interrupts the run behind a step."""
    import comfy.model_management as management

    def callback(number, *others):
        if number == step:
            raise management.InterruptProcessingException

    return lambda *given: callback


def test_an_interrupt_leaves_nothing_behind(comfy, models, positive, monkeypatch, saved):
    import comfy.model_management as management
    import latent_preview

    model, latent = cached(models["stdit3"]), clip("stdit3")
    expected = ours(model, positive, latent, steps=STEPS)
    with monkeypatch.context() as patched:
        patched.setattr(latent_preview, "prepare_callback", interrupted(6))
        with pytest.raises(management.InterruptProcessingException):
            ours(model, positive, latent, steps=STEPS)
    assert nothing_left(model) and len(saved) == 2 and 0 < saved[1].calls < saved[0].calls
    assert torch.equal(ours(model, positive, latent, steps=STEPS), expected)


# --- what it says


def test_the_node_says_what_was_saved(comfy, models, positive, caplog):
    with caplog.at_level(logging.INFO):
        ours(cached(models["stdit3"]), positive, clip("stdit3"), steps=STEPS)
    assert "block calls saved (" in caplog.text


def test_runs_of_one_execution_are_summed(comfy, monkeypatch):
    """As Extend, Connect and Loop make them; the text goes to the node that the model came from."""
    from comfy_execution.utils import CurrentNodeContext

    report = pack("nodes.comfy.caching_report")
    shown = []

    class Server:
        def send_progress_text(self, text, node_id):
            shown.append((node_id, text))

    monkeypatch.setattr(report, "running_server", Server)
    with CurrentNodeContext("first", "7", None):
        told = report.Report()
    run_ = caching().Saved()
    run_.calls, run_.computed_calls, run_.layers, run_.computed_layers = 20, 10, 200, 80
    for prompt in ("second", "second", "third"):
        with CurrentNodeContext(prompt, "9", None):
            told(run_)
    one = "120 of 200 block calls saved (60%); the network was computed in 10 of 20 calls."
    two = "240 of 400 block calls saved (60%); the network was computed in 20 of 40 calls. In 2 runs."
    assert shown == [("7", one), ("7", two), ("7", one)]


def test_other_models_are_refused(comfy):
    with pytest.raises(ValueError, match="not an Open-Sora transformer"):
        cached(object())


# --- the bundled model

SCENE = Scene("circle", "red", "white", "right", 13.0, (21.0, 32.0), 22 / 16, 64, 64, 17)


@pytest.mark.parametrize("pinned", [False, True])
def test_the_picture_stays(tiny, pinned, saved):
    """At the node's own speed the tiny model computes half of its blocks or less, and shows the same."""
    latent = tiny.pin(tiny.empty(), render(SCENE)[:1]) if pinned else tiny.empty()
    positive = tiny.text("a red circle moves right on a white background")
    whole, fewer = (
        tiny_run("OpenSoraSampler", model=model, positive=positive, latent=latent)[0]
        for model in (tiny.model, tiny_run("OpenSoraCache", model=tiny.model)[0])
    )
    found, (run_,) = psnr(tiny.decode(fewer)[None], tiny.decode(whole)[None], 1), saved
    print(f"pinned {pinned}: {run_.computed_layers / run_.layers:.0%} of the block calls, {found:.1f} dB")
    assert found >= 45 and run_.computed_layers <= 0.5 * run_.layers
    if pinned:
        assert torch.equal(fewer["samples"][:, :, 0], latent["samples"][:, :, 0])


@pytest.mark.parametrize("node", ["OpenSoraExtend", "OpenSoraConnect", "OpenSoraLoop"])
def test_long_clips(tiny, saved, node):
    """Each segment and bridge is a run of its own; the clips that are given stay."""
    start = tiny.encode(render(SCENE))
    given = {"first": start, "second": tiny.encode(render(SCENE).flip(0))} if "Connect" in node else {"latent": start}
    values = {"positive": tiny.text("a red circle moves right on a white background"), "vae": tiny.vae, **given}
    whole, fewer = (
        tiny_run(node, model=model, **values)[0]
        for model in (tiny.model, tiny_run("OpenSoraCache", model=tiny.model)[0])
    )
    assert saved and all(run_.computed_calls < run_.calls for run_ in saved)
    assert torch.equal(fewer["samples"][:, :, :5], whole["samples"][:, :, :5])
    if "second" in given:
        assert torch.equal(fewer["samples"][:, :, -5:], whole["samples"][:, :, -5:])
    assert psnr(tiny.decode(fewer)[None], tiny.decode(whole)[None], 1) >= 35
    assert nothing_left(tiny.model)


# --- LoRA


def test_a_lora_before_or_after_it(comfy, models, positive, saved):
    """The order of the nodes does not matter, and what was kept without a LoRA is not taken for what it makes."""
    import comfy.sd

    name = "stdit3"
    generator, key = torch.Generator().manual_seed(0), "spatial_blocks.0.attn.qkv"
    out, into = small_family(name)[1][f"{key}.weight"].shape
    weights = {
        f"diffusion_model.{key}.lora_A.weight": torch.randn(2, into, generator=generator),
        f"diffusion_model.{key}.lora_B.weight": torch.randn(out, 2, generator=generator),
    }

    def lora(model):
        return comfy.sd.load_lora_for_models(model, None, weights, 1.0, 0.0)[0]

    def made(model):
        return ours(model, positive, clip(name, MASK), steps=STEPS)

    model = models[name]
    whole, plain = made(lora(model)), made(cached(model))
    before, after = made(cached(lora(model))), made(lora(cached(model)))
    assert torch.equal(before, after) and len(saved) == 3
    assert difference(before, whole) < 0.4 * difference(plain, whole)
    assert torch.equal(made(cached(model)), plain) and nothing_left(model)
