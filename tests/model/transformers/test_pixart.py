"""PixArt by itself: sizes from weights, refusals, the size embedders. tests/nodes compares it with ComfyUI's."""

import pytest
import torch
from opensora_comfy.model import load_transformer
from opensora_comfy.model.transformers.pixart import PixArt, PixArtConfig
from small import random_weights


def small(**changes):
    """Random weights of a small PixArt."""
    sizes = dict(depth=2, hidden_size=72, num_heads=1, caption_channels=32, model_max_length=120)
    return random_weights(PixArt(PixArtConfig(**{**sizes, **changes})), 1)


def image(height=6, width=8, frames=1):
    generator = torch.Generator().manual_seed(2)
    return (
        torch.randn(2, 4, frames, height, width, generator=generator),
        torch.tensor([900.0, 250.0]),
        torch.randn(2, 10, 32, generator=generator),
    )


def test_is_an_image_model_with_a_variance_half():
    network = load_transformer(small())
    output = network(*image())
    assert output.shape == (2, 8, 1, 6, 8)
    assert output.dtype == torch.float32
    assert (network.family, network.prediction, network.in_channels) == ("pixart", "epsilon", 4)
    assert network.null_caption.shape == (120, 32)


def test_more_than_one_frame_is_refused():
    with pytest.raises(ValueError, match="x has 2 latent frames; PixArt makes single images, so frames must be 1"):
        load_transformer(small())(*image(frames=2))


def test_odd_sizes_are_padded_and_cropped():
    assert load_transformer(small())(*image(5, 7)).shape == (2, 8, 1, 5, 7)


def test_a_caption_mask_hides_padding():
    network = load_transformer(small())
    x, timestep, caption = image()
    mask = (torch.arange(10) < 6).long()[None].repeat(2, 1)
    short = network(x, timestep, caption[:, :6])
    assert torch.allclose(network(x, timestep, caption, mask), short, atol=1e-6)
    assert not torch.allclose(network(x, timestep, caption), short, atol=1e-3)


def test_a_kept_image_is_told_timestep_0():
    network = load_transformer(small())
    x, timestep, caption = image()
    kept = network(x, timestep, caption, frame_mask=torch.tensor([[True], [False]]))
    assert torch.allclose(kept, network(x, torch.tensor([900.0, 0.0]), caption), atol=1e-6)


def test_only_the_size_embedders_look_at_sizes():
    x, timestep, caption = image()
    sizes = dict(height=torch.tensor([512.0]), width=torch.tensor([1024.0]))
    with_sizes, without = load_transformer(small(size_embedders=True)), load_transformer(small())
    assert not torch.allclose(with_sizes(x, timestep, caption), with_sizes(x, timestep, caption, **sizes), atol=1e-3)
    assert torch.equal(without(x, timestep, caption), without(x, timestep, caption, **sizes))
    given = dict(height=torch.tensor([48.0, 48.0]), width=torch.tensor([64.0, 64.0]))
    assert torch.equal(with_sizes(x, timestep, caption), with_sizes(x, timestep, caption, **given))


@pytest.mark.parametrize(
    ("places", "length", "interpolation"),
    [(0, 300, None), (256, 120, 1.0), (256, 300, 0.5), (1024, 120, 1.0), (4096, 300, 2.0)],
)
def test_a_stored_position_table_tells_the_resolution(places, length, interpolation):
    state_dict = small(stored_positions=places, model_max_length=length)
    network = load_transformer(state_dict)
    assert network.config.pe_interpolation == interpolation
    assert ("pos_embed" in state_dict) is bool(places)
    assert load_transformer(state_dict, {"pe_interpolation": 4.0}).config.pe_interpolation == 4.0


def test_position_scale_acts():
    state_dict = small()
    one, two = (load_transformer(state_dict, {"pe_interpolation": scale}) for scale in (1.0, 2.0))
    assert not torch.allclose(one(*image()), two(*image()), atol=1e-3)


def test_key_value_compression_is_refused():
    state_dict = small()
    state_dict["blocks.1.attn.sr.weight"] = torch.zeros(72, 1, 2, 2)
    with pytest.raises(ValueError, match=r"compresses keys and values \(attn.sr\).*512 or 1024 pixels"):
        load_transformer(state_dict)


def test_heads_of_72_channels_unless_config_says():
    state_dict = small(hidden_size=144)
    assert load_transformer(state_dict).config.num_heads == 2
    assert load_transformer(state_dict, {"num_heads": 4}).config.num_heads == 4


def test_a_config_that_contradicts_the_weights_is_refused():
    with pytest.raises(ValueError, match="config says depth = 3, but the weights say 2"):
        load_transformer(small(), {"depth": 3})
    load_transformer(small(), {"patch_size": 2})  # the original's way to write (1, 2, 2)
