"""PixArt against ComfyUI's own network of that name, both with the same random weights."""

import pytest
import torch
from golden import difference
from small import random_weights

TOLERANCE = 1.5e-6


def both(comfy, alpha, **changes):
    """(ComfyUI's PixArt, ours) with the same weights; `alpha` adds the size embedders."""
    import comfy.ops
    from comfy.ldm.pixart.pixartms import PixArtMS
    from opensora_comfy.model import load_transformer

    theirs = PixArtMS(
        depth=2,
        hidden_size=144,
        num_heads=2,
        caption_channels=32,
        model_max_length=120 if alpha else 300,
        micro_condition=alpha,
        operations=comfy.ops.disable_weight_init,
        **changes,
    )
    state_dict = random_weights(theirs, 3)
    theirs.load_state_dict(state_dict)
    return theirs.eval(), load_transformer(state_dict, changes)


@pytest.mark.parametrize("alpha", [True, False], ids=["alpha", "sigma"])
@pytest.mark.parametrize(
    ("height", "width", "changes"), [(48, 40, {}), (40, 72, {}), (34, 96, {}), (40, 48, {"pe_interpolation": 2})]
)
def test_gives_what_comfyuis_own_network_gives(comfy, alpha, height, width, changes):
    theirs, ours = both(comfy, alpha, **changes)
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(2, 4, height, width, generator=generator)
    caption = torch.randn(2, 11, 32, generator=generator)
    timestep = torch.tensor([998.0, 371.0])
    sizes = torch.tensor([[768.0, 1024.0], [512.0, 640.0]])
    with torch.no_grad():
        ratio = sizes[:, :1] / sizes[:, 1:]
        reference = theirs.forward_orig(x, timestep, caption[:, None], c_size=sizes, c_ar=ratio)
        output = ours(x[:, :, None], timestep, caption, height=sizes[:, 0], width=sizes[:, 1])
        assert output.shape == (2, 8, 1, height, width)
        assert difference(output[:, :, 0], reference) <= TOLERANCE
        # What a KSampler sees: sizes left out, the variance half cut off.
        reference = theirs(x, timestep, caption)
        assert difference(ours(x[:, :, None], timestep, caption)[:, :4, 0], reference) <= TOLERANCE
