"""Steps and layers whose result hardly changes are not computed again: what Open-Sora Cache puts on a MODEL.

Two levels. A whole call of the network is left out while what enters its first block has changed little since the last
one that was computed (TeaCache, Liu et al. 2024); its clean latents are then forecast along the line through the last
two (as TaylorSeer, Liu et al. 2025, does with features). In the calls that are computed, layers of a kind that changes
less than the whole keep their output for longer (Pyramid Attention Broadcast, Zhao et al. 2024). docs/caching.md has
what was measured.
"""

import contextlib
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import partial

import comfy.model_management as management
import torch
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn

from ....model.transformers.layers import CrossAttention, Mlp, SelfAttention
from ....model.transformers.skeleton import VideoTransformer

KEY = "opensora_cache"
# How far a result may be carried at a speed of 1: the relative change of what enters the first block, times the share
# of the schedule. A forecast along a line is wrong by the product of both distances, which grows with their square.
FULL_SPEED = 1 / 15
# How far each kind of layer carries its output, in what a whole step does; at 0 it is computed whenever the network is.
RANGES: dict[type[nn.Module], float] = {SelfAttention: 0.0, CrossAttention: 1.25, Mlp: 0.0}
LAST = 2  # steps at the end of a schedule that are always computed: the largest, and nothing mends them any more
FORGET = 4  # evaluations without a call after which what is known of it is let go
COMPILED = "torch_compile_kwargs"  # ComfyUI's mark on a MODEL that TorchCompileModel compiles


def install(model: ModelPatcher, speed: float, told: Callable[["Saved"], None]) -> ModelPatcher:
    """A clone of MODEL that caches at `speed` in 0…1; 0 takes away what an earlier node put there.

    `told` is called at the end of every run, interrupted ones too.
    """
    model = model.clone()
    model.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)
    model.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, KEY)
    if speed > 0:
        model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, partial(_run, speed, told))
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, _call)
    return model


@dataclass
class Saved:
    """What a run computed of what there was: calls of the network for a prompt, and the layers of their blocks."""

    calls: int = 0
    computed_calls: int = 0
    layers: int = 0
    computed_layers: int = 0

    def __add__(self, other: "Saved") -> "Saved":
        return Saved(*(own + more for own, more in zip(astuple(self), astuple(other))))


def _run(speed, told, executor, *arguments, **named):
    """Outer-sample wrapper: a cache for this run alone, which goes with it however it ends."""
    guider = executor.class_obj
    base = guider.model_patcher.model
    pieces, cache = base.diffusion_model.pieces, Cache(base, speed**2 * FULL_SPEED, COMPILED in guider.model_options)
    before = base.cache, pieces.give_back
    base.cache, pieces.give_back = cache, cache.give_back
    try:
        return executor(*arguments, **named)
    finally:
        base.cache, pieces.give_back = before
        cache.let_go()
        told(cache.saved)


def _call(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **named):  # noqa: B006 — as ComfyUI declares it
    """Apply-model wrapper."""
    cache = executor.class_obj.cache
    call = partial(executor, x, t, c_concat, c_crossattn, control, transformer_options, **named)
    return call() if cache is None else cache.call(call, x, t, transformer_options, named)


class Known:
    """Of one prompt in one window: where it was computed last, at most twice, as (position, clean latents)."""

    def __init__(self) -> None:
        self.results: list[tuple[float, Tensor]] = []
        self.used = 0

    @property
    def ready(self) -> bool:
        """Whether there is something to forecast from."""
        return len(self.results) == 2

    def take(self, position: float, clean: Tensor) -> None:
        """Note a result [B, C, T, h, w]. Another at the same place replaces it; a way back begins anew."""
        self.results = [result for result in self.results if result[0] < position][-1:]
        self.results.append((position, clean))

    def forecast(self, position: float) -> Tensor:
        """The clean latents at `position` on the line through both."""
        (before, older), (last, newer) = self.results
        return torch.lerp(older, newer, (position - before) / (last - before))


class Cache:
    """What is kept in one run of sampling, and what is decided by it.

    A sampler's calls at one noise level are one evaluation; the first of them decides for all whether it is computed.
    Calls are told apart by prompt, window, shape, the frames that are kept and the blocks that patches replace: of a
    call that is new nothing is known, and it is computed.
    """

    def __init__(self, base: BaseModel, reach: float, whole: bool = False) -> None:
        """`reach`: how far results are carried; `whole`: keep no outputs of layers, which compiled calls cannot."""
        self.base, self.network, self.reach, self.whole = base, base.diffusion_model, reach, whole
        self.saved = Saved()
        self.parts = len(list(layers(self.network)))
        self.known: dict[tuple, Known] = {}
        self.outputs: dict[tuple, tuple[int, dict[tuple, tuple[float, float, Tensor]]]] = {}
        self.room = 0.0  # bytes that the outputs of layers may take
        self.levels: list[float] | None = None  # noise levels of the run
        self.evaluation, self.level, self.seen = 0, None, set()
        self.leader: tuple | None = None
        self.entered: Tensor | None = None  # what the leader's first block was last given
        self.clock = self.computed_at = 0.0  # the change of that, summed; and at the last computed evaluation
        self.skips = False

    def let_go(self) -> None:
        """Forget everything."""
        self.known, self.outputs, self.entered = {}, {}, None

    def give_back(self) -> bool:
        """Where memory ran out: let go of the layers' outputs, and keep no more. Whether there were any."""
        had, self.whole = self.held() > 0, True
        for _, kept in self.outputs.values():
            kept.clear()  # the call that failed has it in hand
        return had

    def bytes(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        """What is kept of a call with latents of `shape` [B, C, T, H, W], at most: two results in fp32, one input.

        The outputs of layers come on top, and take no more than `room`: half of what the network leaves free.
        """
        config = self.network.config
        tokens = shape[0] * math.prod(-(-length // patch) for length, patch in zip(shape[2:], config.patch_size))
        return 2 * 4 * math.prod(shape) + tokens * config.hidden_size * dtype.itemsize

    def call(self, compute: Callable[[], Tensor], x: Tensor, t: Tensor, options: dict, named: dict) -> Tensor:
        """The clean latents of x [n · B, C, T, h, w] at the noise levels t [n · B]: computed, or forecast."""
        keys, level = _keys(x, options, named), float(t[0])
        if self.levels is None:
            sigmas = options.get("sample_sigmas")
            self.levels = [] if sigmas is None else sigmas.tolist()
            free = management.get_free_memory(x.device) - self.base.memory_required(x.shape)
            self.room = max(0.0, free / 2)
        position = _position(level, self.levels)
        last = position > len(self.levels) - 1 - LAST - 1e-3
        if level != self.level or not self.seen.isdisjoint(keys):
            self._begin(level, keys[0])
            self._decide(x[: len(x) // len(keys)], t, position, last, named)
        self.seen.update(keys)
        known = [self.known.setdefault(key, Known()) for key in keys]
        for each in known:
            each.used = self.evaluation
        self.saved.calls += len(keys)
        self.saved.layers += len(keys) * self.parts
        if self.skips and all(each.ready for each in known):
            return torch.cat([each.forecast(position) for each in known]).to(x)
        self.saved.computed_calls += len(keys)
        self.saved.computed_layers += len(keys) * self.parts
        with self._kept_layers(keys, position, last, options):
            clean = compute()
        for each, part in zip(known, clean.chunk(len(keys))):
            each.take(position, part.clone())
        return clean

    def _begin(self, level, leader):
        """A new evaluation at a noise level; whose first call is that of another leader, has no change to measure."""
        self.evaluation, self.level, self.seen = self.evaluation + 1, level, set()
        if leader != self.leader:
            self.leader, self.entered = leader, None
        alive = self.evaluation - FORGET
        self.known = {key: each for key, each in self.known.items() if each.used >= alive}
        self.outputs = {key: each for key, each in self.outputs.items() if each[0] >= alive}

    def _decide(self, x, t, position, last, named):
        """Whether this evaluation, whose leader is shown x [B, C, T, h, w], is left out."""
        before, self.entered = self.entered, self._entering(x, t[: len(x)])
        if before is not None:
            self.clock += _change(before, self.entered, _generated(x, named))
        known = self.known.get(self.leader)
        ready = before is not None and known is not None and known.ready and not last
        self.skips = ready and self._far(self.computed_at, known.results[0][0], position) < self.reach
        if not self.skips:
            self.computed_at = self.clock

    def _far(self, clock, place, position):
        """From another evaluation to this one: the change in between, times the share of the schedule."""
        return (self.clock - clock) * (position - place) / len(self.levels)

    def _entering(self, x, t):
        """What the first block's attention reads of x [B, C, T, h, w], but for positions: tokens [B, T, S, C]."""
        base, network = self.base, self.network
        x = base.model_sampling.calculate_input(t, x).to(base.manual_cast_dtype or base.get_dtype())
        timestep = base.process_timestep(base.model_sampling.timestep(t).float())
        tokens = network.x_embedder(network.pad_to_patches(x))
        block = network.get_submodule(f"{network.config.BLOCKS}.0")
        table = block.scale_shift_table.to(tokens)
        told = network.t_block(network.t_embedder(timestep, tokens.dtype)[:, None])
        shift, scale = (table[:2] + told.unflatten(-1, (-1, table.shape[-1]))[:, :, :2]).unbind(2)
        return block.kernels.modulated_norm(tokens, shift, scale)

    @contextlib.contextmanager
    def _kept_layers(self, keys, position, last, options):
        """A block in which layers that keep their output for longer than a step may give what they gave before.

        Not where users' patches look at attention or take the place of blocks: they may change from step to step.
        """
        if self.whole or last or options.get("patches") or options.get("patches_replace"):
            yield
            return
        _, kept = self.outputs.get(keys, (0, {}))
        self.outputs[keys] = self.evaluation, kept
        counts = Counter()

        def forward(module, reach, *arguments):
            if self.whole:
                return type(module).forward(module, *arguments)
            place = module, counts[module]  # 1.3 reads two captions, one after the other
            counts[module] += 1
            if place in kept and self._far(*kept[place][:2], position) < reach:
                self.saved.computed_layers -= len(keys) * (place[1] == 0)
                return kept[place][2]
            out = type(module).forward(module, *arguments)
            if place in kept or self.held() + out.nbytes <= self.room:
                kept[place] = self.clock, position, out
            return out

        changed = [(module, RANGES[kind]) for kind, module in layers(self.network) if RANGES[kind] > 0]
        try:
            for module, steps in changed:
                module.forward = partial(forward, module, steps * self.reach)
            yield
        finally:
            for module, _ in changed:
                module.__dict__.pop("forward", None)  # in pieces (low_memory.py) a layer has another one, and drops it

    def held(self) -> int:
        """Bytes of the outputs of layers."""
        return sum(out.nbytes for _, kept in self.outputs.values() for *_, out in kept.values())


def layers(network: VideoTransformer) -> Iterator[tuple[type[nn.Module], nn.Module]]:
    """(kind, layer) of all that a network's blocks are made of; kinds are those of RANGES."""
    for name, module in network.named_modules():
        kind = next((kind for kind in RANGES if isinstance(module, kind)), None)
        if kind is not None and "blocks." in name:
            yield kind, module


def _keys(x, options, named):
    """One key for each prompt of a call on x [n · B, C, T, h, w]."""
    window, prompts = options.get("context_window"), options.get("uuids") or [None]
    replaced = frozenset(
        (kind, place) for kind, all_ in (options.get("patches_replace") or {}).items() for place in all_
    )
    alike = (None if window is None else tuple(window.index_list)), tuple(x.shape[1:]), replaced
    frames = [None] * len(prompts)
    if named.get("frame_mask") is not None:
        frames = [str(part.tolist()) for part in named["frame_mask"].chunk(len(prompts))]
    return tuple((prompt, own, *alike) for prompt, own in zip(prompts, frames))


def _position(level, levels):
    """Where a noise level lies among the falling ones of a schedule: its index, with a fraction between two of them."""
    for index, (upper, lower) in enumerate(itertools.pairwise(levels)):
        if level > lower:
            return index + max(0.0, upper - level) / (upper - lower)
    return max(0.0, len(levels) - 1.0)


def _change(before, after, generated):
    """The relative change between tokens [B, T, S, C], in the frames that `generated`, [B, T], counts."""
    moved, size = ((values.abs().float().mean((2, 3)) * generated).sum() for values in (after - before, before))
    return float(moved / size.clamp(min=1e-12))


def _generated(x, named):
    """1 where a frame of x [B, C, T, h, w] is being generated, 0 where it is kept: [B, T]."""
    counted = x.new_ones(x.shape[0], x.shape[2])
    if named.get("frame_mask") is not None:
        counted = (named["frame_mask"][: len(x)] != 0).to(counted)
    counted[:, list(named.get("condition_frames") or ())] = 0
    return counted
