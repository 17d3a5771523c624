"""TorchCompileModel's way to compile: compiled code runs, in one piece, and gives the same clip."""

import pytest
import torch
from families import SMALL, clip, ours
from golden import difference
from long_clips import prompt
from small import pack
from stock import stock

MASK = [0.0, 1.0, 1.0, 0.0, 1.0]


@pytest.fixture(autouse=True)
def one_piece(comfy, monkeypatch):
    """The attention that ComfyUI has on a GPU; that of a CPU looks up the free memory, which no compiler follows."""
    import comfy.ldm.modules.attention as backends

    monkeypatch.setattr(pack("nodes.comfy.transformer.attention"), "optimized_attention", backends.attention_pytorch)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def compilations():
    """(graphs compiled so far, {why a graph was broken off: how often})."""
    counters = torch._dynamo.utils.counters
    return counters["stats"]["unique_graphs"], dict(counters["graph_break"])


def compiled(model, backend, **options):
    """A clone of MODEL compiled as TorchCompileModel does it, which offers its backends by name only."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    model = model.clone()
    set_torch_compile_wrapper(model=model, backend=backend, **options)
    return model


@pytest.mark.parametrize("name", ["stdit3", "stdit3_v1_3"])
def test_compiled_code_runs_in_one_piece(comfy, models, positive, name):
    """Every step goes through one graph without a break, and the results agree."""
    graphs, runs = [], []

    def backend(graph, inputs):
        graphs.append(len(graph.graph.nodes))

        def run(*given):
            runs.append(1)
            return graph.forward(*given)

        return run

    latent = clip(name, MASK)
    plain = ours(models[name], positive, latent, steps=2)
    fast = ours(compiled(models[name], backend, fullgraph=True), positive, latent, steps=2)
    assert len(runs) == 2 and len(graphs) <= 2 and max(graphs) > 100
    assert difference(fast, plain) <= 1e-5
    assert torch.equal(fast[:, :, [0, 3]], latent["samples"][:, :, [0, 3]])


# Graphs of a whole network, and of its blocks one by one, which share them whatever the depth: 1.0's first block adds the
# frames' positions, 1.2 and 1.3 have two kinds, and in 1.3 rows come by two and by three, with kept frames and without.
GRAPHS = {"stdit": (1, 2), "stdit2": (1, 1), "stdit3": (1, 2), "stdit3_v1_3": (2, 4), "pixart": (1, 1)}


@pytest.mark.parametrize("by_block", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_is_compiled_once(comfy, models, positive, name, by_block):
    """Not again from step to step, nor for another seed, prompt or mask; and in one piece, the variance of 1.0 and 1.1 too."""
    network = models[name].model.diffusion_model
    blocks = [f"diffusion_model.{key}" for key, _ in network.named_modules() if key.split(".")[-1].isdigit()]
    blocks = [key for key in blocks if "blocks" in key and key.count(".") == 2]
    model = compiled(models[name], "eager", **({"keys": blocks} if by_block else {}))

    def sample(model, *values, **options):
        return ours(model, latent=clip(name, [1.0] if name == "pixart" else values), steps=3, **options)

    first = sample(model, 0.0, 1.0, 0.6, 0.0, 1.0, positive=positive)
    once = compilations()
    assert once == (GRAPHS[name][by_block], {})
    others = [
        sample(model, 0.0, 1.0, 0.6, 0.0, 1.0, positive=positive, seed=6),
        sample(model, 0.0, 1.0, 0.6, 0.0, 1.0, positive=prompt(4)),
        sample(model, 0.0, 0.4, 1.0, 0.0, 0.7, positive=positive),
    ]
    assert compilations() == once
    assert difference(first, sample(models[name], 0.0, 1.0, 0.6, 0.0, 1.0, positive=positive)) <= 1e-5
    changed = [difference(other, first) > 1e-3 for other in others]
    assert changed == [True, True, name != "pixart"]


def test_the_node(comfy, models, positive):
    """TorchCompileModel itself; inductor, its first choice, takes a minute on a CPU to compile even this network."""
    model, latent = models["stdit3"], clip("stdit3", MASK)
    fast = stock("comfy_extras.nodes_torch_compile", "TorchCompileModel", model=model, backend="aot_eager")[0]
    plain = ours(model, positive, latent, steps=2)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    result = ours(fast, positive, latent, steps=2)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > before
    assert difference(result, plain) <= 1e-5


def test_patches_work_on_compiled_models(comfy, models, positive):
    """A block that is left out is left out of the compiled network as well."""
    model = models["stdit3"].clone()
    model.set_model_patch_replace(lambda args, extra: args, "dit", "double_block", 1)
    latent = clip("stdit3", MASK)
    expected = ours(model, positive, latent, steps=2)
    assert difference(ours(compiled(model, "eager"), positive, latent, steps=2), expected) <= 1e-5
    assert difference(ours(models["stdit3"], positive, latent, steps=2), expected) > 1e-3


def test_prompts_one_after_the_other_on_a_compiled_model(comfy, models, positive, monkeypatch):
    """The original's sampler of 1.1 takes the variance of the right one, though newer nodes compile whichever comes first."""

    def no_room(self, input_shape, cond_shapes={}):  # noqa: B006 — as ComfyUI declares it
        return 1e30 if input_shape[0] > 1 else 1.0

    monkeypatch.setattr(type(models["stdit2"].model), "memory_required", no_room)
    options = {"guard_filter_fn": lambda entries: ["transformer_options" not in entry.name for entry in entries]}
    model, latent = models["stdit2"], clip("stdit2")
    plain = ours(model, positive, latent, steps=3)
    fast = ours(compiled(model, "aot_eager", options=options), positive, latent, steps=3)
    assert difference(fast, plain) <= 1e-5


def test_no_table_is_made_inside_a_compiled_call():
    """Timestep frequencies are worked out on the CPU, for which some backends have no compiler."""
    made = []

    def backend(graph, inputs):
        made.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    embed = pack("model.transformers.layers").sinusoidal_embedding
    values = torch.tensor([3.0, 500.0])
    assert torch.equal(torch.compile(embed, backend=backend)(values), embed(values))
    assert made and not any("arange" in each or "exp" in each for each in made)
