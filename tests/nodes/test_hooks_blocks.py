"""Patches of blocks and attention: SkipLayerGuidanceDiT, NAG, and what other packs put into a DiT."""

import importlib.util
from collections import Counter

import pytest
import torch
from families import SMALL, VIDEO, clip, negative, ours
from golden import difference
from stock import ksampler, stock
from tiny import run as node

MASK = [0.0, 1.0, 1.0, 0.0, 1.0]
SLG = "comfy_extras.nodes_slg"
SKIP = {
    "SkipLayerGuidanceDiT": {"double_layers": "1", "single_layers": "", "scale": 3.0, "start_percent": 0.0,
                             "end_percent": 1.0, "rescaling_scale": 0.0},
    "SkipLayerGuidanceDiTSimple": {"double_layers": "1", "single_layers": "", "start_percent": 0.0, "end_percent": 1.0},
}  # fmt: skip


def ways(model, positive, latent):
    yield "original", ours(model, positive, latent, steps=3)
    yield "ksampler", ksampler(model, positive, negative(model, positive), latent, steps=3)


def acts(models, name, patched, positive):
    """A patched run is another one, by both ways to sample, and kept frames stay."""
    latent = clip(name, MASK)
    for (way, changed), (_, plain) in zip(ways(patched, positive, latent), ways(models[name], positive, latent)):
        assert torch.isfinite(changed).all() and difference(changed, plain) > 1e-3, way
        if name != "pixart":
            assert torch.equal(changed[:, :, [0, 3]], latent["samples"][:, :, [0, 3]]), way


@pytest.mark.parametrize("node", SKIP)
@pytest.mark.parametrize("name", VIDEO)
def test_skip_layer_guidance_acts(comfy, models, positive, name, node):
    acts(models, name, stock(SLG, node, model=models[name], **SKIP[node])[0], positive)


@pytest.mark.parametrize("name", VIDEO)
def test_layers_that_are_not_there_change_nothing(comfy, models, positive, name):
    """A network has `depth` double blocks and no single ones."""
    inputs = {**SKIP["SkipLayerGuidanceDiTSimple"], "double_layers": "7, 8", "single_layers": "0, 1"}
    model = stock(SLG, "SkipLayerGuidanceDiTSimple", model=models[name], **inputs)[0]
    latent = clip(name, MASK)
    guarded = ours(model, positive, latent, steps=2, cfg=1.0)
    assert torch.equal(guarded, ours(models[name], positive, latent, steps=2, cfg=1.0))


def has_nag(comfy):
    """NAG came after 0.3.75."""
    from comfyui_version import __version__

    return tuple(int(part) for part in __version__.split(".")[:2]) >= (0, 33)


def test_nag_is_there_where_it_should_be(comfy):
    assert importlib.util.find_spec("comfy_extras.nodes_nag") is not None or not has_nag(comfy)


def with_nag(comfy, model, scale=5.0):
    """The MODEL behind ComfyUI's node where this version has it, else with the patch that such a node makes."""
    if has_nag(comfy):
        inputs = {"nag_scale": scale, "nag_alpha": 0.5, "nag_tau": 1.5}
        return stock("comfy_extras.nodes_nag", "NAGuidance", model=model, **inputs)[0]

    def nag(out, extra_options):
        which = extra_options["cond_or_uncond"]
        rows = out.shape[0] // len(which)
        halves = [slice(rows * which.index(kind), rows * (which.index(kind) + 1)) for kind in (0, 1)]
        positive, negative = (out[half] for half in halves)
        guided = positive * scale - negative * (scale - 1)
        ratio = guided.norm(p=1, dim=-1, keepdim=True) / positive.norm(p=1, dim=-1, keepdim=True).clamp_min(1e-6)
        out[halves[0]] = 0.5 * guided * ratio.clamp(max=1.5) / ratio + 0.5 * positive
        return out

    model = model.clone()
    model.set_model_attn1_output_patch(nag)
    return model


@pytest.mark.parametrize("name", VIDEO)
def test_nag_acts(comfy, models, positive, name):
    acts(models, name, with_nag(comfy, models[name]), positive)


@pytest.mark.parametrize("name", SMALL)
def test_nag_sits_where_the_text_enters(comfy, models, positive, name):
    """At the results of cross-attention, whose rows are the clips; other patches of attn1 stay at self-attention."""
    latent, model = clip(name, None if name == "pixart" else MASK), models[name].clone()
    shapes = {"nag": [], "other": []}

    def nag(out, extra_options):
        shapes["nag"].append(out.shape[0] // len(extra_options["cond_or_uncond"]))
        return out

    def other(out, extra_options):
        shapes["other"].append(out.shape[0] // len(extra_options["cond_or_uncond"]))
        return out

    model.set_model_attn1_output_patch(nag)
    plain = ours(model, positive, latent, steps=2)
    assert set(shapes["nag"]) == {latent["samples"].shape[0]}
    model.set_model_attn1_output_patch(other)
    assert torch.equal(ours(model, positive, latent, steps=2), plain)
    assert name == "pixart" or max(shapes["other"]) > max(shapes["nag"])


def shown_with_nag(comfy, tiny, trials, scale):
    """How many of the clips of captions show what the caption says, by attribute, with NAG before the sampler."""
    judge = importlib.import_module("opensora_comfy.training.tiny.judge").judge
    kept = Counter()
    for trial in trials:
        model = with_nag(comfy, tiny.model, scale)
        latent = node(
            "OpenSoraSampler", model=model, positive=tiny.text(trial.text), latent=tiny.empty(), seed=trial.seed
        )
        kept.update(name for name, agrees in judge(tiny.decode(latent[0])).agrees(trial.scene).items() if agrees)
    return kept


def trials_of(count):
    return importlib.import_module("opensora_comfy.training.tiny.evaluate").held_out_trials(count)


def test_nag_keeps_colors_shapes_and_motion(comfy, tiny):
    kept = shown_with_nag(comfy, tiny, trials_of(3), 5.0)
    assert kept == {"color": 3, "background": 3, "shape": 3, "motion": 3}


@pytest.mark.long
@pytest.mark.parametrize("scale", [1.5, 2.0, 5.0, 8.0])
def test_nag_on_24_prompts(comfy, tiny, scale):
    kept = shown_with_nag(comfy, tiny, trials_of(24), scale)
    print(f"NAG at scale {scale}: {dict(kept)} of 24")
    assert min(kept[name] for name in ("color", "background", "shape", "motion")) >= 22


@pytest.mark.parametrize("name", SMALL)
def test_a_block_can_be_replaced(comfy, models, positive, name):
    """The replacement sees tokens, caption and modulation, and can run the original block, which alone changes nothing."""
    seen = []

    def watch(args, extra):
        options = args["transformer_options"]
        seen.append((options["block"], options["block_index"], options["total_blocks"]))
        assert args["img"].ndim == 3 and args["img"].shape[0] in (2, 3) and args["vec"].shape[-2] == 6
        return extra["original_block"](args)

    watched, halved = models[name].clone(), models[name].clone()
    for index in (0, 1):
        watched.set_model_patch_replace(watch, "dit", "double_block", index)
    halved.set_model_patch_replace(
        lambda args, extra: {"img": args["img"] + 0.5 * (extra["original_block"](args)["img"] - args["img"])},
        "dit", "double_block", 0,
    )  # fmt: skip
    latent = clip(name, None if name == "pixart" else MASK)
    plain = ours(models[name], positive, latent, steps=2)
    assert torch.equal(ours(watched, positive, latent, steps=2), plain)
    assert list(dict.fromkeys(seen)) == [(("double_block", index), index, 2) for index in (0, 1)]
    assert difference(ours(halved, positive, latent, steps=2), plain) > 1e-3


@pytest.mark.parametrize("kind", ["attn1", "attn2"])
@pytest.mark.parametrize("name", SMALL)
def test_attention_patches(comfy, models, positive, name, kind):
    """attn1 is attention over space, time or windows, attn2 that to the caption; inputs and results can be changed."""
    latent = clip(name, None if name == "pixart" else MASK)
    plain, model = ours(models[name], positive, latent, steps=2), models[name].clone()
    lengths = []

    def watch(q, k, v, pe=None, attn_mask=None, extra_options=None):
        assert q.shape[1] == extra_options["n_heads"] and q.shape[3] == extra_options["dim_head"]
        assert (attn_mask is not None) == (kind == "attn2")
        lengths.append((q.shape[2], k.shape[2]))
        return {}

    getattr(model, f"set_model_{kind}_patch")(watch)
    assert torch.equal(ours(model, positive, latent, steps=2), plain)
    assert all((keys == 24) == (kind == "attn2") for _, keys in lengths) and lengths
    for setter, patch in (
        (f"set_model_{kind}_patch", lambda q, k, v, **others: {"v": v * 0.5}),
        (f"set_model_{kind}_output_patch", lambda out, extra_options: out * 0.5),
    ):
        changed = models[name].clone()
        getattr(changed, setter)(patch)
        lengths.append(ours(changed, positive, latent, steps=2))
        assert difference(lengths[-1], plain) > 1e-3, setter
    assert difference(lengths[-1], lengths[-2]) <= 1e-5  # halving the values is halving the result


def test_an_attention_patch_for_unets_is_refused_by_name(comfy, models, positive):
    model = models["stdit3"].clone()

    def tome(q, k, v, extra_options):
        return q, k, v

    model.set_model_attn1_patch(tome)
    with pytest.raises(ValueError, match="model carries the attention patch .*tome, which does not run on Open-Sora"):
        ours(model, positive, clip("stdit3"), steps=1)


UNET_NODES = {  # what each of them does here, as docs/stock-nodes.md says it
    "HyperTile": ("nodes_hypertile", ValueError, "carries the attention patch .*hypertile_in, which does not run"),
    "TomePatchModel": ("nodes_tomesd", ValueError, "carries the attention patch .*tomesd_m, which does not run"),
    "FreeU": ("nodes_freelunch", KeyError, "model_channels"),
    "FreeU_V2": ("nodes_freelunch", KeyError, "model_channels"),
    "SelfAttentionGuidance": ("nodes_sag", AttributeError, "'NoneType' object has no attribute 'shape'"),
}


@pytest.mark.parametrize("node", UNET_NODES)
def test_nodes_for_unets_that_stop(comfy, models, positive, node):
    module, error, words = UNET_NODES[node]
    with pytest.raises(error, match=words):
        ours(stock(f"comfy_extras.{module}", node, model=models["stdit3"])[0], positive, clip("stdit3"), steps=1)


def test_perturbed_attention_guidance_changes_nothing(comfy, models, positive):
    model, latent = (
        stock("comfy_extras.nodes_pag", "PerturbedAttentionGuidance", model=models["stdit3"])[0],
        clip("stdit3"),
    )
    plain = ours(models["stdit3"], positive, latent, steps=2)
    assert difference(ours(model, positive, latent, steps=2), plain) <= 1e-5
