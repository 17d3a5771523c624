"""Images fitted to a clip: which size, which part of the picture, and how near to the original's own scaling."""

import numpy
import pytest
import torch
from PIL import Image
from small import pack, run


def fit(image, **changes):
    settings = {"resolution": "auto", "aspect_ratio": "auto", "width": 424, "height": 240, **changes}
    return run(pack("nodes.fit_image").OpenSoraFitImage, image=image, **settings)


def size(shape, **changes):
    """(width, height) that an image of `shape`, height and width, is brought to; the picture has it too."""
    image, *found = fit(torch.rand(1, *shape, 3), **changes)
    assert image.shape == (1, found[1], found[0], 3)
    return tuple(found)


def picture(height, width, frames=1, channels=3):
    """Soft shapes and a hard edge, in whole steps of 1/255 as an image file has them."""
    rows, columns = torch.linspace(0, 7, height)[:, None], torch.linspace(0, 9, width)
    planes = [0.5 + 0.5 * torch.sin(rows * (1 + c) + columns * (2 - c)) for c in range(channels)]
    image = torch.stack(planes, -1).expand(frames, -1, -1, -1).clone()
    image[:, height // 3 : height // 2, width // 4 : width // 2] = 1
    return (image * 255).round() / 255


# Sizes


@pytest.mark.parametrize(
    ("shape", "choices", "expected"),
    [
        ((1080, 1920), {}, (426, 240)),
        ((1920, 1080), {}, (240, 426)),
        ((1000, 1000), {"resolution": "480p"}, (640, 640)),
        ((1000, 1340), {"resolution": "720p"}, (1110, 832)),
        ((1000, 1000), {"resolution": "720p", "aspect_ratio": "16:9"}, (1280, 720)),
        ((720, 1280), {"resolution": "512"}, (688, 384)),
        ((720, 1280), {"resolution": "custom", "width": 100, "height": 90}, (100, 90)),
    ],
)
def test_sizes_without_a_vae(comfy, shape, choices, expected):
    assert size(shape, **choices) == expected


def test_auto_with_a_vae_is_what_its_file_was_made_for(vae):
    assert size((500, 500), vae=vae) == (64, 64)
    assert size((500, 900), vae=vae) == size((500, 900), vae=vae, aspect_ratio="16:9") == (80, 48)
    assert size((500, 900), vae=vae, resolution="240p") == (426, 240)


def test_a_latent_wins(vae):
    latent = {"samples": torch.zeros(1, 4, 5, 5, 10), "frames": 17, "fps": 24.0, "height": 44, "width": 86}
    for changes in ({}, {"vae": vae}, {"resolution": "720p"}, {"resolution": "custom"}):
        assert size((500, 500), latent=latent, **changes) == (86, 44)
    assert size((500, 500), latent={"samples": latent["samples"]}) == (80, 40)


def test_the_same_size_as_the_empty_latents(vae):
    """For every choice that does not depend on the picture, both nodes agree."""
    empty = pack("nodes.empty_latent").OpenSoraEmptyLatent
    for resolution in ("auto", "144p", "360p", "1024", "custom"):
        for aspect_ratio in ("16:9", "9:21", "1:1"):
            choices = {"resolution": resolution, "aspect_ratio": aspect_ratio, "width": 130, "height": 66}
            latent = run(empty, vae=vae, frames=17, fps=24.0, batch_size=1, **choices)
            assert size((90, 100), vae=vae, **choices) == tuple(latent[1:3])


def test_other_vaes_are_refused(comfy):
    with pytest.raises(ValueError, match="not an Open-Sora video VAE"):
        size((64, 64), vae=comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)}))


# The picture


def as_pil(image, height, width):
    """The original's way with an image: 8 bits, PIL's bicubic scaling to cover, then the middle."""
    pil = Image.fromarray((image[0].numpy() * 255).round().astype(numpy.uint8))
    down, across = height / pil.height, width / pil.width
    scaled = (round(pil.width * down), height) if down > across else (width, round(pil.height * across))
    pixels = numpy.array(pil.resize(scaled, Image.Resampling.BICUBIC))
    top, left = round((scaled[1] - height) / 2), round((scaled[0] - width) / 2)
    return torch.from_numpy(pixels[top : top + height, left : left + width] / 255.0)


# Sizes that shrink and enlarge, crop the sides and crop above, with odd rests.
SIZES = [((300, 500), (240, 426)), ((97, 61), (240, 240)), ((480, 640), (64, 64)), ((50, 37), (33, 17))]


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_an_image_is_the_originals_to_a_step_of_8_bits(comfy, source, target):
    image = picture(*source)
    height, width = target
    fitted = fit(image, resolution="custom", width=width, height=height)[0][0]
    difference = (fitted - as_pil(image, height, width)).abs()
    # PIL rounds to 8 bits after each of its two passes.
    assert difference.max() <= 1.5 / 255 and difference.mean() <= 0.5 / 255


@pytest.mark.parametrize(("source", "target"), [*SIZES, ((60, 67), (60, 64)), ((67, 60), (64, 60))])
def test_a_clip_is_the_originals(comfy, source, target):
    """Bilinear, and of an odd rest the smaller half is cut off in front."""
    clip, (height, width) = picture(*source, frames=3), target
    fitted = fit(clip, resolution="custom", width=width, height=height)[0]
    down, across = height / source[0], width / source[1]
    scaled = (height, round(source[1] * down)) if down > across else (round(source[0] * across), width)
    frames = torch.nn.functional.interpolate(clip.movedim(-1, 1), size=scaled, mode="bilinear").movedim(1, -1)
    top, left = int((scaled[0] - height) / 2), int((scaled[1] - width) / 2)
    assert fitted.shape == (3, height, width, 3)
    assert torch.allclose(fitted, frames[:, top : top + height, left : left + width], atol=1e-6)


def test_an_image_that_fits_stays_as_it_is(comfy):
    image = picture(64, 48)
    assert fit(image, resolution="custom", width=48, height=64)[0] is image
