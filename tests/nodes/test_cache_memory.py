"""Open-Sora Cache: what it takes of memory, and what it does where there is too little."""

import gc
import logging
import weakref
from types import SimpleNamespace

import pytest
from caches import STEPS, cached, caching, nothing_left
from families import SMALL, clip, ours
from golden import difference


@pytest.fixture
def caches(monkeypatch):
    """All caches of the runs that follow, by weak reference, and what each held most of: (bytes, of them layers')."""
    found, kind = [], caching().Cache
    made, call = kind.__init__, kind.call

    def init(self, *given, **named):
        made(self, *given, **named)
        found.append((weakref.ref(self), []))

    def measured(self, compute, x, *given):
        clean = call(self, compute, x, *given)
        results = sum(result.nbytes for known in self.known.values() for _, result in known.results)
        found[-1][1].append((results + self.entered.nbytes, self.held(), self.bytes(x.shape, x.dtype), self.room))
        return clean

    monkeypatch.setattr(kind, "__init__", init)
    monkeypatch.setattr(kind, "call", measured)
    return found


@pytest.mark.parametrize("name", SMALL)
def test_what_is_kept_is_bounded_and_let_go(comfy, models, positive, monkeypatch, caches, saved, name):
    """By the estimate, and the outputs of layers by half of what the network leaves free."""
    model, most = models[name], []
    shape = clip(name)["samples"].repeat(2, 1, 1, 1, 1).shape
    for free in (10**12, "half", 0):
        room = most[0] // 2 if free == "half" else free

        def free_memory(device, room=room):
            return model.model.memory_required(shape) + 2 * room

        monkeypatch.setattr(caching(), "management", SimpleNamespace(get_free_memory=free_memory))
        ours(cached(model), positive, clip(name), steps=STEPS)
        cache, held = caches[-1]
        gc.collect()
        assert cache() is None
        assert all(kept <= estimate for kept, _, estimate, _ in held)
        most.append(max(layers for _, layers, _, _ in held))
        assert most[-1] <= room
    assert most[0] > most[1] > most[2] == 0
    shares = [run_.computed_layers / run_.layers for run_ in saved]
    assert shares[0] < shares[1] < shares[2] == saved[2].computed_calls / saved[2].calls


def test_comfyui_makes_room_for_it(comfy, models, positive, monkeypatch):
    import comfy.model_management as management

    asked, load = [], management.load_models_gpu
    monkeypatch.setattr(
        management,
        "load_models_gpu",
        lambda *given, **named: asked.append(named["memory_required"]) or load(*given, **named),
    )
    for model in (models["stdit3"], cached(models["stdit3"])):
        ours(model, positive, clip("stdit3"), steps=4)
    tokens, latents = 2 * 5 * 9, 2 * 4 * 5 * 5 * 6
    assert asked[1] - asked[0] == pytest.approx(2 * 4 * latents + 4 * 48 * tokens, rel=0.01)


def test_where_memory_runs_out_layers_are_let_go_first(comfy, models, positive, caches, caplog):
    """The network then goes on whole, and keeps no more of them; only if that does not help, in pieces."""
    model = cached(models["stdit3"])
    expected = ours(model, positive, clip("stdit3"), steps=STEPS)
    asked, alive = [], []

    def once(module, inputs):
        import comfy.model_management as management

        cache = caches[-1][0]()
        if not asked and cache.held():
            asked.extend(weakref.ref(out) for _, kept in cache.outputs.values() for *_, out in kept.values())
            raise management.OOM_EXCEPTION("no memory left")
        alive.append(sum(out() is not None for out in asked))

    hook = models["stdit3"].model.diffusion_model.final_layer.register_forward_pre_hook(once)
    with caplog.at_level(logging.WARNING):
        result = ours(model, positive, clip("stdit3"), steps=STEPS)
    hook.remove()
    assert len(asked) == 4 and not any(alive) and "pieces" not in caplog.text
    assert caches[1][1][-1][1] == 0
    assert difference(result, expected) < 0.5 and nothing_left(model)


def test_in_pieces(comfy, models, positive, saved):
    """A network that never fits goes on in pieces, of which no outputs are kept; steps are left out as before."""
    network = models["stdit3"].model.diffusion_model
    expected = ours(cached(models["stdit3"]), positive, clip("stdit3"), steps=STEPS)
    kept = network.pieces
    try:
        network.pieces = type(kept)()
        network.pieces.size, network.pieces.count = 0, 4
        result = ours(cached(models["stdit3"]), positive, clip("stdit3"), steps=STEPS)
    finally:
        network.pieces = kept
    assert difference(result, expected) < 0.5
    assert saved[1].computed_calls == saved[0].computed_calls and nothing_left(models["stdit3"])
