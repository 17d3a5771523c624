"""Random small checkpoints for the node tests, and the objects that the loaders make of them."""

import pytest
import torch
from families import SMALL, small_family
from safetensors.torch import load_file
from small import (
    CAPTION_CHANNELS,
    CAPTION_LENGTH,
    FLOW,
    MADE_FOR,
    VAE_CONFIG,
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
            config=VAE_CONFIG,
            made_for=MADE_FOR,
        ),
    }


@pytest.fixture(scope="session")
def model(comfy, checkpoints):
    """MODEL of the random small transformer."""
    return pack("nodes.comfy.loading").load_model(checkpoints["transformer"])


@pytest.fixture(scope="session")
def vae_weights(checkpoints):
    """{family: state dict} of a random small VAE of every generation; "vae_v1_2" is that of `checkpoints`."""
    others = {"vae_2d": small_image_vae, "vae_v1_3": small_causal_vae}
    return {"vae_v1_2": load_file(checkpoints["vae"])} | {
        family: random_weights(build(), 5) for family, build in others.items()
    }


@pytest.fixture(scope="session")
def vaes(comfy, checkpoints, vae_weights, tmp_path_factory):
    """{family: VAE}."""
    folder, load = tmp_path_factory.mktemp("vaes"), pack("nodes.comfy.loading").load_vae
    paths = {
        family: write(folder / f"{family}.safetensors", weights, config=VAE_CONFIG)
        for family, weights in vae_weights.items()
    }
    return {family: load(path) for family, path in {**paths, "vae_v1_2": checkpoints["vae"]}.items()}


@pytest.fixture(scope="session")
def vae(vaes):
    """VAE of the random small video VAE."""
    return vaes["vae_v1_2"]


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


@pytest.fixture(scope="session")
def setups(model, models, vaes):
    """{generation: (MODEL, VAE)} of random small files that go together."""
    return {
        "1.2": (model, vaes["vae_v1_2"]),
        "1.3": (models["stdit3_v1_3"], vaes["vae_v1_3"]),
        "2d": (models["stdit"], vaes["vae_2d"]),
    }


@pytest.fixture
def saved(monkeypatch):
    """What the caches of Open-Sora Cache tell, run by run."""
    found = []
    monkeypatch.setattr(pack("nodes.comfy.caching_report").Report, "__call__", lambda self, run: found.append(run))
    return found
