"""The timeline: its JSON, what it pins, what it refuses, its thumbnails."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from pins import empty, keyframe, picture
from small import pack


def timeline(vae, latent, keyframes, **images):
    text = keyframes if isinstance(keyframes, str) else json.dumps({"version": 1, "keyframes": keyframes})
    return pack("nodes.timeline").OpenSoraTimeline.execute(latent=latent, vae=vae, timeline=text, **images)


def shown(output):
    return output.ui["opensora"][0]


def test_is_the_chain_of_keyframes(vae):
    images = {"image_1": picture(seed=1), "image_3": picture(frames=9, height=40, seed=2)}
    output = timeline(
        vae,
        empty(vae, batch=2),
        [
            {"image": 1, "frame": 0},
            {"image": 3, "frame": 17, "strength": 0.5, "color": "an unknown key"},
            {"image": 1, "frame": -1, "strength": 0.25},
        ],
        **images,
    )
    chain = keyframe(vae, empty(vae, batch=2), images["image_1"])
    chain = keyframe(vae, chain, images["image_3"], 17, 0.5)
    chain = keyframe(vae, chain, images["image_1"], -1, 0.25)
    latent = output.result[0]
    assert torch.equal(latent["samples"], chain["samples"]) and torch.equal(latent["noise_mask"], chain["noise_mask"])
    assert [record["name"] for record in latent["keyframes"]] == ["image_1", "image_3", "image_1"]
    assert [record["latents"] for record in latent["keyframes"]] == [each["latents"] for each in chain["keyframes"]]
    assert shown(output)["groups"][0] == [0, 0, 0.0] and shown(output)["groups"][5] == [17, 17, 0.5]
    assert [each["landed"] for each in shown(output)["keyframes"]] == [[0, 0], [17, 25], [30, 33]]


def test_a_later_keyframe_wins_where_two_overlap(vae):
    images = {"image_1": picture(frames=17, seed=1), "image_2": picture(seed=2)}
    first, second = {"image": 1, "frame": 0}, {"image": 2, "frame": 3, "strength": 0.5}
    latent = timeline(vae, empty(vae), [first, second], **images).result[0]
    assert [record["latents"] for record in latent["keyframes"]] == [[0, 2, 3, 4], [1]]
    assert latent["noise_mask"][0, 0, :5, 0, 0].tolist() == [0, 0.5, 0, 0, 0]
    with pytest.raises(ValueError, match="image_1 at frame 0 holds frames 0–16 and would hide the earlier image_2 at"):
        timeline(vae, empty(vae), [second, first], **images)


def test_no_keyframes_pass_the_latent_through(vae):
    latent = empty(vae)
    output = timeline(vae, latent, pack("nodes.timeline").EMPTY, image_1=picture(), image_2=None)
    assert output.result[0] is latent
    assert shown(output)["keyframes"] == [] and list(shown(output)["thumbnails"]) == ["image_1"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "timeline is no JSON: Expecting value at line 1, column 1"),
        ('{"version": 1,\n "keyframes": [}', "timeline is no JSON: .* at line 2, column 16"),
        ("[" * 100_000, "timeline is no JSON"),
        ("1" * 5000, "timeline "),
        ("[]", "timeline is a list; it must be an object"),
        ("7", "timeline is a number; it must be an object"),
        ('{"version": 2, "keyframes": []}', "timeline has version 2; this node reads version 1"),
        ("{}", "timeline has nothing for keyframes; it must be a list"),
        ('{"keyframes": {}}', "timeline has an object for keyframes; it must be a list"),
        ('{"keyframes": [3]}', "timeline: keyframe 1 is a number; it must be an object"),
    ],
)
def test_what_is_no_timeline_is_refused(vae, text, words):
    with pytest.raises(ValueError, match=words):
        timeline(vae, empty(vae), text, image_1=picture())


GOOD = {"image": 1, "frame": 0}


@pytest.mark.parametrize(
    ("keyframe", "words"),
    [
        ({"frame": 30}, "keyframe 2 has no image; give the number of an image input"),
        ({"image": 1}, "keyframe 2 has no frame; give a whole number"),
        ({"image": "1", "frame": 30}, 'keyframe 2 has the image "1"; it must be the number'),
        ({"image": 1, "frame": 12.5}, "keyframe 2 has the frame 12.5; it must be a whole number"),
        ({"image": 1, "frame": True}, "keyframe 2 has the frame true; it must be"),
        ({"image": 1, "frame": 30, "strength": None}, "keyframe 2 has the strength null; it must be a number"),
        ({"image": 1, "frame": 30, "strength": 1.01}, "keyframe 2 has the strength 1.01; .* the nearest is 1$"),
        ({"image": 1, "frame": 30, "strength": -1}, "keyframe 2 has the strength -1; .* the nearest is 0$"),
        ({"image": 1, "frame": 30, "strength": 10**400}, "keyframe 2 has the strength 1000.*the nearest is 1$"),
        ({"image": 1, "frame": float("nan")}, "keyframe 2 has the frame NaN"),
        ({"image": 9, "frame": 30}, "keyframe 2 has the image 9; allowed are 1 to 8, the nearest is 8"),
        ({"image": 0, "frame": 30}, "keyframe 2 has the image 0; allowed are 1 to 8, the nearest is 1"),
        (
            {"image": 4, "frame": 30},
            "keyframe 2 takes image_4, which is not connected; connected are image_1 and image_2",
        ),
        ({"image": 1, "frame": 34}, "the frame of keyframe 2 is 34, but .* -34 to 33, the nearest is 33"),
        ({"image": 1, "frame": -40}, "the frame of keyframe 2 is -40, but .* the nearest is -34"),
        ({"image": 2, "frame": 2}, "image_2 is a clip of 2 frames, which from frame 2 on covers no group"),
        ({"image": 1, "frame": -34}, "image_1 at frame 0 holds frame 0 and would hide.*nearest free .* frame 1$"),
    ],
)
def test_keyframes_that_cannot_be_are_refused(vae, keyframe, words):
    with pytest.raises(ValueError, match=words):
        timeline(vae, empty(vae), [GOOD, keyframe], image_1=picture(), image_2=picture(frames=2))


def test_no_image_at_all_is_said(vae):
    with pytest.raises(ValueError, match="keyframe 1 takes image_1, which is not connected; none is connected"):
        timeline(vae, empty(vae), [GOOD])


def test_thumbnails_are_small_pictures_of_what_is_wired_in(comfy, vae):
    import folder_paths

    images = {"image_1": torch.zeros(3, 300, 150, 3), "image_2": picture(height=20, width=30)}
    images["image_1"][..., 0] = 1
    found = shown(timeline(vae, empty(vae), [GOOD], **images))["thumbnails"]
    for name, size in (("image_1", (48, 96)), ("image_2", (30, 20))):
        assert found[name]["type"] == "temp"
        folder = Path(folder_paths.get_temp_directory()) / found[name]["subfolder"]
        with Image.open(folder / found[name]["filename"]) as opened:
            assert opened.size == size
            if name == "image_1":
                assert opened.convert("RGB").getpixel((20, 20)) == (255, 0, 0)
    again = shown(timeline(vae, empty(vae), [GOOD], **images))["thumbnails"]
    assert again == found and len({each["filename"] for each in found.values()}) == 2
    assert {path.name for path in folder.iterdir()} >= {each["filename"] for each in found.values()}
    assert not list(folder.glob(".*"))


def test_a_temp_folder_that_cannot_be_written_to_costs_only_the_thumbnails(comfy, vae, monkeypatch, tmp_path):
    import folder_paths

    blocked = tmp_path / "temp"
    blocked.write_text("a file where the folder should be")
    monkeypatch.setattr(folder_paths, "temp_directory", str(blocked))
    output = timeline(vae, empty(vae), [GOOD], image_1=picture())
    assert shown(output)["thumbnails"] == {} and output.result[0]["noise_mask"].min() == 0


def test_the_report_is_plain_json(vae):
    output = timeline(vae, empty(vae), [GOOD], image_1=picture())
    assert json.loads(json.dumps(output.ui)) == output.ui


def test_an_input_without_images_has_no_thumbnail(vae):
    output = timeline(vae, empty(vae), [GOOD], image_1=picture(), image_2=picture(frames=0))
    assert list(shown(output)["thumbnails"]) == ["image_1"]


def test_the_page_is_told_the_whole_length_of_each_connected_image(vae):
    """A record counts only what is left of the clip, and those of an earlier timeline go by the same names."""
    earlier = timeline(vae, empty(vae), [{"image": 2, "frame": 9}], image_2=picture()).result[0]
    keyframes = [{"image": 1, "frame": 17}, {"image": 1, "frame": 30}]
    found = shown(timeline(vae, earlier, keyframes, image_1=picture(frames=9), image_2=picture(frames=5)))
    assert [each["count"] for each in found["keyframes"]] == [1, 9, 4]
    assert found["counts"] == {"image_1": 9, "image_2": 5}
