"""Random small checkpoints for the node tests, and the objects that the loaders make of them."""

import pytest
import torch
from families import SMALL, small_family
from small import (
    CAPTION_CHANNELS,
    CAPTION_LENGTH,
    FLOW,
    MADE_FOR,
    NORM_GROUPS,
    pack,
    random_weights,
    small_causal_vae,
    small_image_vae,
    small_transformer,
    small_vae,
    write,
)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """{"transformer": path, "vae": path} of random small files with metadata as the bundled ones have."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        "transformer": write(
            folder / "transformer.safetensors",
            random_weights(small_transformer(), 1),
            kind="transformer",
            family="stdit3",
            version="1.2",
            config={},
            made_for=MADE_FOR,
            flow=FLOW,
        ),
        "vae": write(
            folder / "vae.safetensors",
            random_weights(small_vae(), 2),
            kind="vae",
            family="vae_v1_2",
            version="1.2",
            config={"spatial_norm_groups": NORM_GROUPS, "temporal_norm_groups": NORM_GROUPS},
            made_for=MADE_FOR,
        ),
    }


@pytest.fixture(scope="session")
def model(comfy, checkpoints):
    """MODEL of the random small transformer."""
    return pack("nodes.comfy.loading").load_model(checkpoints["transformer"])


@pytest.fixture(scope="session")
def vae(comfy, checkpoints):
    """VAE of the random small video VAE."""
    return pack("nodes.comfy.vae").load_vae(checkpoints["vae"])


@pytest.fixture(scope="session")
def vaes(comfy, vae, tmp_path_factory):
    """{family: VAE} of random small files of every generation; "vae_v1_2" is `vae`."""
    folder = tmp_path_factory.mktemp("vaes")
    others = {"vae_2d": small_image_vae, "vae_v1_3": small_causal_vae}
    config = {"spatial_norm_groups": NORM_GROUPS}
    load = pack("nodes.comfy.vae").load_vae
    return {"vae_v1_2": vae} | {
        family: load(write(folder / f"{family}.safetensors", random_weights(build(), 5), config=config))
        for family, build in others.items()
    }


@pytest.fixture(scope="session")
def positive():
    """CONDITIONING with 7 real tokens of 24."""
    caption = torch.randn(1, CAPTION_LENGTH, CAPTION_CHANNELS, generator=torch.Generator().manual_seed(3))
    mask = (torch.arange(CAPTION_LENGTH) < 7).long()[None]
    return [[caption * mask[..., None], {"attention_mask": mask, "pooled_output": None}]]


@pytest.fixture(scope="session")
def families(tmp_path_factory):
    """{family: path} of random small checkpoints."""
    folder = tmp_path_factory.mktemp("families")
    return {name: write(folder / f"{name}.safetensors", small_family(name)[1], config=SMALL[name][3]) for name in SMALL}


@pytest.fixture(scope="session")
def models(comfy, families):
    """{family: MODEL}."""
    return {name: pack("nodes.comfy.loading").load_model(path) for name, path in families.items()}
