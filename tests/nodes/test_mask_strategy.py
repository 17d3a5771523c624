"""The mask strategy node: the original's placing of references, and what it refuses."""

import pytest
import torch
from pins import empty, encoded, keyframe, picture, pinned
from small import pack

SIZE = {"height": 64, "width": 48}


def execute(vae, latent, strategy="0", align=5, **references):
    node = pack("nodes.mask_strategy").OpenSoraMaskStrategy
    references = references or {"reference_1": picture()}
    return node.execute(latent=latent, vae=vae, strategy=strategy, align=align, **references)


def strategy(vae, latent, text="0", align=5, **references):
    return execute(vae, latent, text, align, **references).result[0]


def test_the_default_is_the_first_frame(vae):
    latent = strategy(vae, empty(vae))
    assert pinned(latent) == [0] and latent["noise_mask"].shape == (1, 1, 10, 8, 6)
    assert torch.equal(latent["samples"], keyframe(vae, empty(vae), picture())["samples"])


@pytest.mark.parametrize(
    ("text", "align"),
    [
        ("0;0,1,0,-1,1,0.25", 0),
        ("0;0,1,0,-1,1,0.25", 5),
        ("0,1,2,7,3,0.8", 0),
        ("0,1,2,7,3,0.8", 5),
        ("0,1,-5,0,5;0,0,0,6", 0),
        ("0,1,0,0,15,0.5;0,0,0,3,1", 0),
        ("0,-1,0,0,5;1,7,0,0,1", 5),
    ],
)
def test_places_what_the_original_places(vae, text, align):
    """Each reference is encoded whole and on its own; `model.masks.apply` is compared with the original's tables."""
    masks, references = pack("model.masks"), [picture(seed=4), picture(frames=17, seed=5)]
    start = {**empty(vae, batch=2), "samples": torch.randn(2, 4, 10, 8, 6)}
    latent = strategy(vae, start, text, align, reference_1=references[0], reference_2=references[1])
    contents = [encoded(vae, reference)[0] for reference in references]
    for samples, mask, before in zip(latent["samples"], latent["noise_mask"], start["samples"]):
        filled, ratios = masks.apply(before, contents, text, align=align)
        assert torch.allclose(samples, filled, atol=1e-6)
        assert torch.equal(mask[0], ratios[:, None, None].expand(10, 8, 6))
    assert not torch.equal(latent["samples"], start["samples"])


def test_goes_on_from_other_keyframes(vae):
    latent = keyframe(vae, empty(vae), picture(seed=1), -1, 0.5)
    latent = strategy(vae, latent, "0,0,0,0,1,0.2;0,0,0,5")
    assert latent["noise_mask"][0, 0, :, 0, 0].tolist() == pytest.approx([0.2, 1, 1, 1, 1, 0, 1, 1, 1, 0.5])
    assert [(each["name"], each["frame"], each["latents"]) for each in latent["keyframes"]] == [
        ("image", 33, [9]),
        ("reference_1", 0, [0]),
        ("reference_1", 17, [5]),
    ]


def test_the_node_shows_where_references_landed(vae):
    shown = execute(vae, empty(vae), "0,0,0,3,2,0.5", reference_1=picture(17)).ui["opensora"][0]
    # aligned: latent 3 becomes 5
    landed = {"name": "reference_1", "frame": 17, "landed": [17, 21], "strength": 0.5, "count": 5}
    assert shown["keyframes"] == [landed]
    assert shown["lines"][0].startswith("reference_1 at frame 17: frames 17–21 (0.71–0.92 s), partly kept")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "strategy is empty; the shortest is '0'"),
        ("  ", "strategy is empty"),
        ("0,0,x", "strategy is '0,0,x': character 5, 'x', is no whole number for reference_start"),
        ("0;", "at character 3 a whole number for loop is missing"),
        ("0,0,0,0,1,0,0", "character 13, '0', is value 7 of its entry"),
        ("0,0,0,0,1,1.5", "character 11, '1.5', is the edit_ratio; it must be from 0"),
        ("0,0,0,0,-2", "character 9, '-2', is the length"),
        ("1;2,0", "entries belong to loop 1 and 2; one clip is loop 0"),
        (
            "0,1",
            r"asks for reference 1, the input reference_2; connected are reference_1 \(number 0\), the nearest is 0",
        ),
        ("0,12", "asks for reference 12; connected"),
        ("0,-2", "asks for reference -2; connected"),
        ("0,0,1", "reference_start 1, but that clip has 1 latent frames; .* the nearest is 0"),
        ("0,0,0,10", "target_start 10, but that clip has 10 latent frames; .* the nearest is 9"),
        ("0,0,0,-11", "target_start -11, but that clip has 10 latent frames; .* the nearest is -10"),
        ("0,0,0,0,0", "copies no latent frame: its length is 0; give 1 or more"),
        (
            "0;0,0,0,2,1",
            "reference_1 at frame 0 holds frame 0 and would hide .* free .* is target_start 3 .aligned to 5.$",
        ),
    ],
)
def test_what_cannot_be_is_refused(vae, text, words):
    with pytest.raises(ValueError, match=words):
        strategy(vae, empty(vae), text)


def test_the_free_place_without_align_is_the_neighbour(vae):
    with pytest.raises(ValueError, match="free place for reference_1 is target_start 1$"):
        strategy(vae, empty(vae), "0;0", align=0)
    with pytest.raises(ValueError, match="No other place in this clip is free"):
        strategy(vae, empty(vae, frames=17), "0,0,0,0,5;0,0,0,0,5", align=0, reference_1=picture(17))


def test_where_aligning_leaves_no_place_one_without_is_named(vae):
    """The original's example for first and last frame, in the default clip: aligned, both go to its one chunk's beginning."""
    clip, pictures = empty(vae, frames=17), {"reference_1": picture(), "reference_2": picture(seed=2)}
    with pytest.raises(ValueError, match="free place for reference_2 is target_start 4 with align 0$"):
        strategy(vae, clip, "0;0,1,0,-1,1", **pictures)
    assert pinned(strategy(vae, clip, "0;0,1,0,-1,1", align=0, **pictures)) == [0, 4]


def test_a_gap_in_the_references_is_refused(vae):
    with pytest.raises(ValueError, match="reference_3 is connected, but reference_2 is not"):
        strategy(vae, empty(vae), reference_1=picture(), reference_2=None, reference_3=picture())


def test_another_size_is_refused(vae):
    with pytest.raises(ValueError, match="reference_1 is 64 x 48 pixels, but the clip is 48 x 64; Open-Sora Fit Image"):
        strategy(vae, empty(vae), reference_1=picture(height=48, width=64))


def test_wrong_channels_are_refused(vae):
    with pytest.raises(ValueError, match="latent has shape.*4 channels"):
        strategy(vae, {"samples": torch.zeros(1, 16, 5, 8, 8)})


def test_a_reference_without_images_is_refused(vae):
    with pytest.raises(ValueError, match="reference_1 has shape .* holds no image"):
        strategy(vae, empty(vae), "0", reference_1=picture(frames=0))
