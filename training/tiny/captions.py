"""Captions of scenes (shapes.Scene): many sentences for a clip, some structures never used in training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy

if TYPE_CHECKING:
    from .shapes import Scene

COLOR_WORDS = {
    "red": ("red", "red", "bright red", "crimson"),
    "green": ("green", "green", "bright green", "emerald"),
    "blue": ("blue", "blue", "bright blue", "deep blue"),
    "yellow": ("yellow", "yellow", "bright yellow", "golden yellow"),
    "purple": ("purple", "purple", "violet"),
    "orange": ("orange", "orange", "bright orange"),
}
SHAPE_WORDS = {
    "circle": ("circle", "circle", "disc", "disk", "ball", "round shape"),
    "square": ("square", "square", "box", "block"),
    "triangle": ("triangle", "triangle", "triangular shape"),
}
BACKGROUND_WORDS = {
    "white": ("white", "white", "plain white"),
    "black": ("black", "black", "plain black"),
    "gray": ("gray", "grey", "plain gray"),
    "pink": ("pink", "pink", "light pink"),
}
PLACES = ("background", "background", "backdrop", "surface")


def _heading(*directions: str) -> tuple[tuple[str, str], ...]:
    verbs = _both(
        "moves/moving, slides/sliding, drifts/drifting, glides/gliding, goes/going, travels/traveling, floats/floating"
    )
    return tuple((f"{does} {where}", f"{doing} {where}") for where in directions for does, doing in verbs)


def _both(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(way.split("/")) for way in text.split(", "))


# Each way to say a motion twice: as a finite verb and as a participle.
MOTION_WORDS = {
    "left": _heading("left", "to the left", "leftwards", "towards the left", "from right to left", "leftward"),
    "right": _heading("right", "to the right", "rightwards", "towards the right", "from left to right", "rightward"),
    "up": _heading("up", "upwards", "to the top", "upward")
    + 3 * (("rises", "rising"), ("climbs", "climbing"), ("ascends", "ascending"), ("rises up", "rising up")),
    "down": _heading("down", "downwards", "to the bottom", "downward")
    + 3 * (("falls", "falling"), ("drops", "dropping"), ("sinks", "sinking"), ("descends", "descending"))
    + 2 * (("falls down", "falling down"),),
    "still": _both(
        "stays still/staying still, does not move/not moving, rests motionless/resting motionless, "
        "stands still/standing still, remains in place/remaining in place, stays in place/staying in place, "
        "is motionless/being motionless, stays at rest/staying at rest"
    ),
    "grow": _both(
        "grows/growing, gets bigger/getting bigger, expands/expanding, becomes larger/becoming larger, "
        "grows larger/growing larger, gets larger/getting larger, grows in size/growing in size, "
        "becomes bigger/becoming bigger"
    ),
    "shrink": _both(
        "shrinks/shrinking, gets smaller/getting smaller, contracts/contracting, becomes smaller/becoming smaller, "
        "shrinks down/shrinking down, shrinks in size/shrinking in size, grows smaller/growing smaller"
    ),
}

# c: colour, s: shape, b: background, p: a word for background; does and doing: the motion.
MOVING = {
    "train": (
        "a {c} {s} {does} on a {b} {p}",
        "a {c} {s} {does} over a {b} {p}",
        "a {c} {s} {does} in front of a {b} {p}",
        "a {c} {s} {does} against a {b} {p}",
        "the {c} {s} {does} on the {b} {p}",
        "the {c} {s} {does} across a {b} {p}",
        "a {c} {s} {doing} on a {b} {p}",
        "a {c} {s} {doing} over a {b} {p}",
        "a {c} {s} {doing} against a {b} {p}",
        "{c} {s} {doing} on {b}",
        "{c} {s} {doing}, {b} {p}",
        "{c} {s}, {doing}, {b} {p}",
        "a {c} {s} on a {b} {p} {does}",
        "a {c} {s} on a {b} {p}, {doing}",
        "a {c} {s} on {b} {does}",
        "on a {b} {p}, a {c} {s} {does}",
        "on a {b} {p} a {c} {s} is {doing}",
        "against a {b} {p}, a {c} {s} {does}",
        "over a {b} {p} a {c} {s} {does}",
        "in front of a {b} {p}, a {c} {s} {does}",
        "a video of a {c} {s} {doing} on a {b} {p}",
        "a clip of a {c} {s} that {does} on a {b} {p}",
        "an animation of a {c} {s} {doing} over a {b} {p}",
        "a single {c} {s} {does} on a {b} {p}",
        "one {c} {s} slowly {doing} on a {b} {p}",
        "a {c} {s} {does} while the {p} is {b}",
        "a {c} {s} {does}. the {p} is {b}.",
        "the {s} is {c} and {does}. the {p} is {b}",
        "the {p} is {b}. a {c} {s} {does}",
        "the {p} is {b} and a {c} {s} is {doing}",
        "{b} {p}, {c} {s} {doing}",
        "{b} {p} with a {c} {s} {doing}",
        "a {s} that is {c} {does} on a {b} {p}",
        "a {s}, colored {c}, {does} on a {b} {p}",
        "we see a {c} {s} {doing} on a {b} {p}",
        "there is a {c} {s} {doing} on a {b} {p}",
        "a simple scene with a {c} {s} that {does} on {b}",
    ),
    "held_out": (
        "{doing} on a {b} {p}, the {s} is {c}",
        "with a {b} {p} behind it, a {c} {s} {does}",
        "a {s} in {c} {does}, the {p} being {b}",
        "watch a {c} {s} {doing} in front of {b}",
        "the scene shows one {c} {s} that {does}, with a {p} of {b}",
        "the {p} is {b}, the {s} is {c}, and it {does}",
        "it {does} on a {b} {p}: a {c} {s}",
        "a {b} {p} over which a {c} {s} is {doing}",
        "here a {c} {s} is {doing} and there is a {b} {p}",
        "a clip with a {b} {p}, where the {c} {s} {does}",
    ),
}
STILL_IMAGE = {
    "train": (
        "a {c} {s} on a {b} {p}",
        "a {c} {s} over a {b} {p}",
        "a {c} {s} in front of a {b} {p}",
        "a {c} {s} against a {b} {p}",
        "{c} {s} on {b}",
        "{c} {s}, {b} {p}",
        "{b} {p}, {c} {s}",
        "on a {b} {p}, a {c} {s}",
        "an image of a {c} {s} on a {b} {p}",
        "a picture of a {c} {s} on {b}",
        "the {s} is {c} and the {p} is {b}",
        "there is a {c} {s} on a {b} {p}",
        "a {s} that is {c} on a {b} {p}",
        "a {b} {p} with a {c} {s}",
    ),
    "held_out": (
        "with a {b} {p} behind it, a {c} {s}",
        "a {s} in {c}, the {p} being {b}",
        "the scene shows one {c} {s} on a {p} of {b}",
        "here is a {c} {s} and there is a {b} {p}",
    ),
}
# Sentences that leave something out, and what they leave out.
PARTIAL = (
    ("a {c} {s} {does}", {"background"}),
    ("a {c} {s} is {doing}", {"background"}),
    ("a {s} {does} on a {b} {p}", {"color"}),
    ("something {c} {does} on a {b} {p}", {"shape"}),
    ("a {c} {s}", {"background", "motion"}),
    ("a {b} {p}", {"color", "shape", "motion"}),
    ("a {s} {doing}", {"color", "background"}),
    ("something {doing}", {"color", "shape", "background"}),
)


def _pick(rng: numpy.random.Generator, options):
    return options[rng.integers(len(options))]


def _fill(template: str, scene, rng: numpy.random.Generator) -> str:
    does, doing = _pick(rng, MOTION_WORDS[scene.motion]) if scene.motion != "none" else ("", "")
    text = template.format(
        c=_pick(rng, COLOR_WORDS[scene.color]),
        s=_pick(rng, SHAPE_WORDS[scene.shape]),
        b=_pick(rng, BACKGROUND_WORDS[scene.background]),
        p=_pick(rng, PLACES),
        does=does,
        doing=doing,
    )
    return text.replace("a orange", "an orange").replace("a emerald", "an emerald")


def caption(scene: Scene, rng: numpy.random.Generator, split: str = "train") -> str:
    """A random lower-case caption that names colour, shape, background and, for a video, motion.

    `split` is "train" or "held_out": the sentence structures of one never occur in the other.
    """
    if split not in MOVING:
        raise ValueError(f"split is {split!r}; it must be 'train' or 'held_out'")
    templates = STILL_IMAGE if scene.motion == "none" else MOVING
    return _fill(_pick(rng, templates[split]), scene, rng)


def partial_caption(scene: Scene, rng: numpy.random.Generator) -> tuple[str, dict[str, str]]:
    """A caption that leaves something out, and what it says: a mapping of attribute to value, "none" where unsaid."""
    allowed = [entry for entry in PARTIAL if scene.motion != "none" or "motion" in entry[1]]
    template, unsaid = _pick(rng, allowed)
    values = {name: getattr(scene, name) for name in ("shape", "color", "background", "motion")}
    return _fill(template, scene, rng), {name: "none" if name in unsaid else value for name, value in values.items()}
