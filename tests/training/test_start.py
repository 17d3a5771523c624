"""From an image model: the first forward of every generation is the image model's, frame by frame."""

import json

import pytest
import torch
from golden import FOLDER
from opensora_comfy.model import load_transformer
from opensora_comfy.model.transformers.pixart import PixArt, PixArtConfig
from opensora_comfy.training.start import from_image_model

TOKENS = 12
SIZES = {"depth": 2, "hidden_size": 48, "num_heads": 2, "caption_channels": 16, "model_max_length": TOKENS}
VERSIONS = ("1.0", "1.1", "1.2", "1.3")


def image_model(**config):
    """A PixArt transformer in which every weight has something to say."""
    torch.manual_seed(0)
    module = PixArt(PixArtConfig(**SIZES, **config)).eval().requires_grad_(False)
    for parameter in module.parameters():
        parameter.normal_(std=0.2)
    module.y_embedder.y_embedding.normal_()
    return module


@pytest.mark.parametrize("version", VERSIONS)
def test_first_forward_is_the_image_models(version):
    image = image_model()
    config = {"num_heads": SIZES["num_heads"]}
    video = load_transformer(from_image_model(image.state_dict(), version, config), config)
    T, side = 3, 64  # latents; 512 pixels, where all count positions alike
    x, caption = torch.randn(1, 4, T, side, side), torch.randn(1, TOKENS, 16)
    caption_mask = torch.ones(1, TOKENS)
    caption_mask[:, 9:] = 0
    t = torch.tensor([64.0])  # on some machines PixArt's frequencies differ by a last bit, which t multiplies
    size = {"height": 512.0, "width": 512.0}
    frames = [image(x[:, :, [n]], t, caption, caption_mask, **size) for n in range(T)]
    expected = torch.cat(frames, dim=2)
    times = 4 if version == "1.3" else 1
    given = x.repeat(1, times, 1, 1, 1)
    with torch.no_grad():
        made = video(given, t, caption, caption_mask, fps=24.0, num_frames=17, **size)
    expected = torch.cat([half.repeat(1, times, 1, 1, 1) for half in expected.chunk(2, dim=1)], dim=1)
    assert (made - expected).abs().max() / expected.abs().max() < 1e-5


@pytest.mark.parametrize("length", [8, 20])
def test_the_null_caption_is_cut_or_goes_on_as_it_ends(length):
    image = image_model()
    null = from_image_model(image.state_dict(), "1.2", {"model_max_length": length})["y_embedder.y_embedding"]
    assert null.shape == (length, 16)
    known = image.null_caption
    assert torch.equal(null[:TOKENS], known[:length])
    assert (null[TOKENS:] == known[-1]).all()


def test_1_1_goes_on_reading_sizes():
    """Only 1.1 is told what PixArt's model for 1024 pixels is told; its final layer is not, so that alone differs."""
    image = image_model(size_embedders=True).state_dict()
    video = from_image_model(image, "1.1")
    for key in ("csize_embedder.mlp.2.weight", "ar_embedder.mlp.0.bias"):
        assert torch.equal(video[key], image[key])
    assert not video["fl_embedder.mlp.2.weight"].any()
    assert not any(key.startswith("csize") for key in from_image_model(image, "1.2"))


def test_what_begins_at_zero():
    state = from_image_model(image_model().state_dict(), "1.2")
    zero = {key for key, value in state.items() if key.endswith("weight") and not value.any()}
    blocks = [
        f"temporal_blocks.{n}.{name}.weight" for n in (0, 1) for name in ("attn.proj", "cross_attn.proj", "mlp.fc2")
    ]
    assert zero == {"fps_embedder.mlp.2.weight", *blocks}


def test_what_is_refused():
    state = image_model().state_dict()
    with pytest.raises(ValueError, match="version is '2.0'; it must be one of 1.0, 1.1, 1.2, 1.3"):
        from_image_model(state, "2.0")
    with pytest.raises(ValueError, match="config says depth = 28, but from this image model it is 2"):
        from_image_model(state, "1.2", {"depth": 28})
    with pytest.raises(ValueError, match="stdit3, a video model; an image model is a PixArt transformer"):
        from_image_model(from_image_model(state, "1.2"), "1.2")


@pytest.mark.parametrize("version, prefix", [("1.0", "blocks"), ("1.2", "spatial_blocks")])
def test_what_a_pixart_file_fills_and_what_begins_at_zero_is_the_originals(version, prefix):
    recorded = json.loads((FOLDER / "training" / f"init_v{version.replace('.', '_')}.json").read_text())
    case = next(one for one in recorded["from_pixart"] if "Sigma" in one["file"] and "error" not in one)
    image = image_model().state_dict()
    video = from_image_model(image, version, {"qk_norm": True} if version == "1.2" else {})
    filled = {key for key in image if key.replace("blocks", prefix, 1) in video or key in video}
    left = set(video) - {
        key.replace("blocks.", f"{prefix}.", 1) if key.startswith("blocks.") else key for key in filled
    }
    # The original keeps 1.0's position tables in its files; they are computed here.
    assert left == {key for key in case["left_at_initial_value"] if not key.startswith("pos_embed")}
    ours = {key for key in left if key.endswith("weight") and not video[key].any()}
    # What the image model has is not at zero once it is filled.
    assert ours == {key for key in recorded["zero_at_start"] if key in left}


def test_lists_of_a_configuration_file_are_taken():
    config = {"num_heads": 2, "patch_size": [1, 2, 2], "kernel_size": [2, 2, -1], "use_spatial_rope": True}
    state = from_image_model(image_model().state_dict(), "1.3", config)
    assert load_transformer(state, config).config.kernel_size == (2, 2, -1)
