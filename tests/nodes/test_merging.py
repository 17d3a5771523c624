"""ModelMergeSimple: every weight of the network takes part, however much of it is loaded, and comes back after."""

import pytest
import torch
from families import SMALL, clip, ours, small_family
from golden import difference
from small import pack, write
from stock import stock

BUFFERS = ("y_embedder.y_embedding", "rope.freqs")  # they stay the first model's, as docs/stock-nodes.md says


@pytest.fixture(params=SMALL)
def name(request):
    return request.param


@pytest.fixture
def both(comfy, name, tmp_path):
    """Two MODELs of one family, and the weights of the second."""
    first = small_family(name)[1]
    second = {key: value if key in BUFFERS else 1.1 * value for key, value in first.items()}
    load = pack("nodes.comfy.loading").load_model
    paths = [
        write(tmp_path / f"{n}.safetensors", each, config=SMALL[name][3]) for n, each in enumerate((first, second))
    ]
    return *(load(path) for path in paths), second


def merged(both):
    """All of the second model, by way of the first."""
    return stock("comfy_extras.nodes_model_merging", "ModelMergeSimple", model1=both[0], model2=both[1], ratio=0.0)[0]


def test_all_weights_take_part(comfy, name, both):
    first, _, second = both
    before = {key: value.clone() for key, value in first.model.diffusion_model.state_dict().items()}
    model = merged(both)
    comfy.model_management.load_models_gpu([model], force_patch_weights=True)
    found = model.model.diffusion_model.state_dict()
    assert all(torch.allclose(found[key], second[key], atol=1e-6) for key in found)
    comfy.model_management.load_models_gpu([first])
    again = first.model.diffusion_model.state_dict()
    assert again.keys() == before.keys() and all(torch.equal(again[key], before[key]) for key in before)


def test_a_model_that_is_partly_loaded(comfy, name, both, positive):
    """What is not a layer of ComfyUI's is never left for later."""
    _, other, second = both
    expected = ours(other, positive, clip(name), steps=2)
    model = merged(both)
    comfy.model_management.unload_all_models()
    model.patch_model(torch.device("cpu"), lowvram_model_memory=model.model_size() // 3)
    waiting = [part for part in model.model.diffusion_model.modules() if getattr(part, "weight_function", [])]
    found = dict(model.model.diffusion_model.named_parameters())
    rest = [key for key in found if "table" in key or "norm" in key]
    assert waiting and rest
    assert all(torch.allclose(found[key], second[key], atol=1e-6) for key in rest)
    assert difference(ours(model, positive, clip(name), steps=2), expected) <= 1e-5
    model.detach()
