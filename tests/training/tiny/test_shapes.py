"""The procedural world and its captions."""

import re
import time
from itertools import product

import numpy
import pytest
from opensora_comfy.training.tiny.captions import MOVING, STILL_IMAGE, caption, partial_caption
from opensora_comfy.training.tiny.shapes import (
    BACKGROUNDS,
    COLORS,
    COMBINATIONS,
    DIRECTIONS,
    EXTENTS,
    FRAME_COUNTS,
    MOTIONS,
    RESOLUTIONS,
    SHAPES,
    Scene,
    is_held_out,
    render,
    sample_scene,
)

KINDS = [(*size, frames) for size, frames in product(RESOLUTIONS, FRAME_COUNTS)]


def scenes(count, split="train", height=64, width=64, frames=17, seed=0):
    rng = numpy.random.default_rng(seed)
    return [sample_scene(rng, height, width, frames, split) for _ in range(count)]


@pytest.mark.parametrize("height, width, frames", KINDS)
def test_the_shape_stays_inside_the_frame(height, width, frames):
    for scene in scenes(200, "train", height, width, frames):
        x, y, radius = scene.path()
        half_width, half_height = (extent * radius for extent in EXTENTS[scene.shape])
        assert min((x - half_width).min(), (y - half_height).min()) >= 1, scene
        assert (x + half_width).max() <= width - 1 and (y + half_height).max() <= height - 1, scene
        video = render(scene)
        assert video.shape == (frames, height, width, 3)
        ground = numpy.array(BACKGROUNDS[scene.background]) / 255
        border = numpy.concatenate([video[:, 0].reshape(-1, 3), video[:, :, -1].reshape(-1, 3)])
        assert abs(border - ground).max() < 1e-6, scene


@pytest.mark.parametrize("height, width, frames", [kind for kind in KINDS if kind[2] > 1])
def test_motion_is_visible(height, width, frames):
    scale = min(height, width) / 64
    for scene in scenes(200, "train", height, width, frames):
        x, y, radius = scene.path()
        moved = numpy.array([x[-1] - x[0], y[-1] - y[0]])
        growth = radius[-1] / radius[0]
        if scene.motion in DIRECTIONS:
            assert moved @ DIRECTIONS[scene.motion] == pytest.approx(abs(moved).sum()) and growth == 1
            assert 14 * scale - 0.01 <= abs(moved).sum() <= 43 * scale + 0.01
        else:
            assert not moved.any()
            assert {"still": growth == 1, "grow": growth >= 1.7, "shrink": growth <= 1 / 1.7}[scene.motion]


def test_an_image_has_no_motion():
    assert {scene.motion for scene in scenes(50, frames=1)} == {"none"}


def test_held_out_combinations_are_never_trained_on():
    held_out, train = set(COMBINATIONS["held_out"]), set(COMBINATIONS["train"])
    assert not held_out & train and len(held_out) + len(train) == len(COLORS) * len(SHAPES) * len(MOTIONS)
    assert 0.1 < len(held_out) / (len(held_out) + len(train)) < 0.15
    for split in COMBINATIONS:
        for scene in scenes(500, split):
            assert is_held_out(scene.color, scene.shape, scene.motion) == (split == "held_out")


def test_each_pair_of_values_is_covered_by_training():
    for first, second in ((0, 1), (0, 2), (1, 2)):
        values = (COLORS, SHAPES, MOTIONS)
        pairs = {(triple[first], triple[second]) for triple in COMBINATIONS["train"]}
        assert pairs == set(product(values[first], values[second]))


def test_edges_are_soft_and_colours_exact():
    scene = Scene("circle", "red", "black", "still", 12.3, (30.2, 33.7), 0.0, 64, 64, 1)
    red = 255 * render(scene)[0, ..., 0].numpy()
    assert red[33, 30] == pytest.approx(COLORS["red"][0], abs=0.01) and red[0, 0] == pytest.approx(18, abs=0.01)
    area = ((red - 18) / (220 - 18)).sum()
    assert area == pytest.approx(numpy.pi * 12.3**2, rel=0.002)  # anti-aliasing keeps the area, thresholding would not
    assert ((red > 19) & (red < 219)).sum() > 40


def test_the_shapes_are_about_equally_large_and_clearly_different():
    masks = {}
    for shape in SHAPES:
        frame = render(Scene(shape, "red", "black", "still", 12, (32, 32), 0.0, 64, 64, 1))[0, ..., 0].numpy()
        masks[shape] = frame > 0.5
    areas = [mask.sum() for mask in masks.values()]
    assert max(areas) / min(areas) < 1.55
    for first, second in (("circle", "square"), ("circle", "triangle"), ("square", "triangle")):
        overlap = (masks[first] & masks[second]).sum() / (masks[first] | masks[second]).sum()
        assert overlap < 0.88, (first, second, overlap)


def test_the_triangle_points_up():
    mask = render(Scene("triangle", "red", "black", "still", 12, (32, 32), 0.0, 64, 64, 1))[0, ..., 0].numpy() > 0.5
    assert mask[22].sum() < mask[32].sum() < mask[42].sum()


def test_the_same_seed_gives_the_same_world():
    assert scenes(20, seed=3) == scenes(20, seed=3) != scenes(20, seed=4)


def test_an_unknown_split_is_refused():
    rng = numpy.random.default_rng(0)
    with pytest.raises(ValueError, match="split is 'test'"):
        sample_scene(rng, split="test")
    with pytest.raises(ValueError, match="split is 'test'"):
        caption(scenes(1)[0], rng, "test")


def test_rendering_is_fast():
    few = scenes(30)
    started = time.perf_counter()
    for scene in few:
        render(scene)
    assert (time.perf_counter() - started) / len(few) < 0.02  # 1 ms on an idle core


def test_there_are_many_templates_and_the_held_out_ones_are_new():
    assert len(MOVING["train"]) >= 30 and len(MOVING["held_out"]) >= 8
    for templates in (MOVING, STILL_IMAGE):
        assert not set(templates["train"]) & set(templates["held_out"])


@pytest.mark.parametrize("split", ["train", "held_out"])
@pytest.mark.parametrize("frames", [1, 17])
def test_a_caption_is_plain_and_complete(split, frames):
    rng = numpy.random.default_rng(1)
    spelled = {"gray": ("gray", "grey"), "purple": ("purple", "violet"), "red": ("red", "crimson")}
    spelled |= {"green": ("green", "emerald")}
    for scene in scenes(300, split, frames=frames):
        text = caption(scene, rng, split)
        assert text == text.lower() and "{" not in text and "-" not in text and "  " not in text
        assert "a orange" not in text
        for value in (scene.color, scene.background):
            assert any(word in text for word in spelled.get(value, (value,))), (scene, text)
        directions = [name for name in ("left", "right") if re.search(rf"\b{name}", text)]
        if scene.motion in ("left", "right") and len(directions) == 2:
            start, end = {"left": ("right", "left"), "right": ("left", "right")}[scene.motion]
            assert f"from {start} to {end}" in text
        else:
            assert directions == [scene.motion] * (scene.motion in ("left", "right")), (scene, text)


def test_a_partial_caption_tells_what_it_leaves_out():
    rng = numpy.random.default_rng(2)
    left_out = set()
    for scene in scenes(200):
        text, meaning = partial_caption(scene, rng)
        left_out |= {name for name, value in meaning.items() if value == "none"}
        if meaning["background"] == "none":
            assert scene.background not in text.replace("yellow", "") or scene.background == scene.color
    assert left_out == {"shape", "color", "background", "motion"}
