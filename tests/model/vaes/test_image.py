"""The 2D VAE of 1.0 and 1.1 against the recorded run of the original."""

import pytest
import torch
from golden import Case, difference, manifest, weights
from opensora_comfy.model import load_vae
from opensora_comfy.model.vaes.image import ImageVAE, ImageVAEConfig
from opensora_comfy.model.vaes.spatial import OLD_NAMES

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def case():
    return Case("vae2d_v10")


def groups_of(case):
    return {"spatial_norm_groups": case.meta["cfg2d"]["norm_num_groups"]}


@pytest.fixture(scope="module")
def vae(case):
    return load_vae(weights("vae2d"), groups_of(case))


def test_encodes_as_the_original(vae, case):
    assert difference(vae.encode(case.inputs["x"]), case.outputs["z"]) <= TOLERANCE


def test_decodes_as_the_original(vae, case):
    decoded = vae.decode(case.outputs["z"], case.inputs["x"].shape[2])
    assert difference(decoded, case.outputs["recon"]) <= TOLERANCE


def test_one_latent_a_frame(vae):
    assert vae.latent_frames(16) == vae.counting.video_frames(16) == 16
    assert vae.nearest_frames(16) == (16,)
    assert vae.nearest_frames(0) == (1,)
    assert vae.counting.groups(3) == [range(1), range(1, 2), range(2, 3)]
    assert (vae.family, vae.latent_channels) == ("vae_2d", 4)


def test_another_number_of_frames_than_latents_is_refused(vae):
    with pytest.raises(ValueError, match="num_frames is 4, but there are 3 latents.*: 3 frames"):
        vae.decode(torch.zeros(1, 4, 3, 2, 2), 4)


def test_samples_the_posterior_with_given_draws(vae):
    video = torch.randn(1, 3, 6, 16, 16, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    asked = []

    def draw(kind, index, shape):
        asked.append((kind, index, shape))
        return torch.zeros(shape)

    assert torch.equal(vae.encode(video, draw), vae.encode(video))
    assert asked == [("spatial", 0, (4, 4, 2, 2)), ("spatial", 1, (2, 4, 2, 2))]
    sample = vae.encode(video, torch.Generator().manual_seed(1))
    assert difference(sample, vae.encode(video)) > 1e-3
    assert torch.equal(sample, vae.encode(video, torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("layout", ["diffusers", "old diffusers", "twice parallel"])
def test_files_of_every_naming_are_the_same_network(vae, case, layout):
    names = {key.removeprefix("module."): value for key, value in weights("vae2d").items()}
    if layout == "old diffusers":
        for old, new in OLD_NAMES.items():
            names = {key.replace(f"attentions.0.{new}.", f"attentions.0.{old}."): names[key] for key in names}
        assert any(".proj_attn." in key for key in names)
    if layout == "twice parallel":
        names = {f"module.module.{key}": value for key, value in names.items()}
    again = load_vae(names, groups_of(case))
    assert again.state_dict().keys() == vae.state_dict().keys() == weights("vae2d").keys()
    assert torch.equal(again.encode(case.inputs["x"]), vae.encode(case.inputs["x"]))


def test_diffusers_name_of_the_norm_groups_is_read(case):
    assert ImageVAEConfig.from_weights(weights("vae2d"), {"norm_num_groups": 4}).spatial.norm_groups == 4


def test_full_size_has_exactly_the_originals_keys():
    shapes = manifest("vae2d_v1_0_v1_1")
    with torch.device("meta"):
        own = ImageVAE(ImageVAEConfig.from_weights(shapes)).state_dict()
    assert {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in shapes.items()}
