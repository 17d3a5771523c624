"""Files of Open-Sora 2.0 and links that lead nowhere: what the three loaders say about them, in every form of file."""

import json
import os

import pytest
import safetensors.torch
import torch
from golden import manifest
from small import pack

LOADERS = {
    "diffusion_models": ("OpenSoraLoadModel", {"model_name": None, "weight_dtype": "auto"}),
    "vae": ("OpenSoraLoadVAE", {"vae_name": None}),
    "text_encoders": ("OpenSoraLoadTextEncoder", {"text_encoder_name": None, "device": "default"}),
}
NAMES = {
    "mmdit_v2_0": "an Open-Sora 2.0 transformer,",
    "mmdit_v2_0_fused": "an Open-Sora 2.0 transformer,",
    "mmdit_v2_0_dc_ae": "an Open-Sora 2.0 transformer for its DC-AE,",
    "hunyuan_vae_v2_0": "a HunyuanVideo VAE, which Open-Sora 2.0 uses too,",
    "dc_ae_f32t4c128": "a DC-AE, a video VAE of Open-Sora 2.0,",
}
FORMS = ("model.safetensors", "model.pth", "shards")


@pytest.fixture(params=LOADERS)
def loader(request, comfy, tmp_path, monkeypatch):
    """(folder of its models, a function that loads a name by it, the input that the name is chosen in)."""
    import folder_paths

    node, inputs = LOADERS[request.param]
    node = next(each for each in pack("nodes").NODES if each.define_schema().node_id == node)
    monkeypatch.setitem(
        folder_paths.folder_names_and_paths, request.param, ([str(tmp_path)], {".safetensors", ".pth", ".bin"})
    )
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    chosen = next(iter(inputs))

    def load(name):
        assert name in pack("nodes.comfy.files").choices(request.param)
        return node.execute(**inputs | {chosen: name})

    return tmp_path, load, chosen


def small(name):
    """The keys of a manifest with the sizes that tell its versions apart, and few numbers."""
    shapes = {key: value.shape for key, value in manifest(name).items()}
    return {key: torch.zeros([size if size < 256 else 2 for size in shape]) for key, shape in shapes.items()}


def write(folder, form, weights):
    """One file, or a Hugging Face folder of two shards; returns the name that a loader's combo shows."""
    if form.endswith(".pth"):
        torch.save({"state_dict": weights}, folder / form)
        return form
    if form.endswith(".safetensors"):
        safetensors.torch.save_file(weights, folder / form)
        return form
    inside = folder / "Open-Sora-v2"
    inside.mkdir()
    keys, shards = sorted(weights), ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    table = {key: shards[place % 2] for place, key in enumerate(keys)}
    for shard in shards:
        safetensors.torch.save_file({key: weights[key] for key in keys if table[key] == shard}, inside / shard)
    (inside / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    (inside / "config.json").write_text("{}")
    return inside.name


@pytest.mark.parametrize("name", NAMES)
def test_files_of_open_sora_2_are_called_by_their_names(loader, name):
    folder, load, chosen = loader
    for form in FORMS:
        with pytest.raises(ValueError) as error:
            load(write(folder, form, small(name)))
        assert f"this is {NAMES[name]} which this pack does not run yet" in str(error.value)
        assert str(error.value).startswith(f"{chosen}: ")


def dead(path, target):
    os.symlink(target, path)
    return path


def test_a_link_that_leads_nowhere_says_so(loader):
    folder, load, chosen = loader
    away = folder.parent / "unplugged" / "model.safetensors"
    dead(folder / "linked.safetensors", away)
    dead(folder / "Linked-Folder-v1.2", away.parent)
    (folder / "inside").mkdir()
    dead(folder / "inside" / "deeper.pth", away)
    for name in ("linked.safetensors", "Linked-Folder-v1.2", os.path.join("inside", "deeper.pth")):
        with pytest.raises(ValueError, match="is a link that leads nowhere: .*unplugged.* is not there") as error:
            load(name)
        assert str(error.value).startswith(f"{chosen}: {folder / name} ")


@pytest.mark.parametrize("part", ["model-00002-of-00002.safetensors", "model.safetensors.index.json", "config.json"])
def test_a_folder_with_a_dead_link_in_it_says_which(loader, part):
    folder, load, _ = loader
    name = write(folder, "shards", {"first": torch.zeros(1), "second": torch.zeros(1)})
    (folder / name / part).unlink()
    dead(folder / name / part, "../blobs/gone")
    with pytest.raises(ValueError, match=f"{part} is a link that leads nowhere: ../blobs/gone is not there"):
        load(name)


def test_a_shard_that_is_chosen_itself_and_a_link_to_itself_are_no_riddles_either(loader):
    folder, load, _ = loader
    dead(folder / "circle.safetensors", "circle.safetensors")
    with pytest.raises(ValueError, match="circle.safetensors is a link that leads nowhere"):
        load("circle.safetensors")
    name = write(folder, "shards", {"first": torch.zeros(1), "second": torch.zeros(1)})
    (folder / name / "model.safetensors.index.json").unlink()
    dead(folder / name / "model.safetensors.index.json", "/gone")
    with pytest.raises(ValueError, match="index.json is a link that leads nowhere: /gone"):
        load(os.path.join(name, "model-00001-of-00002.safetensors"))


def test_links_that_lead_somewhere_are_models_like_any_other(loader):
    folder, load, _ = loader
    outside = folder.parent / "elsewhere"
    outside.mkdir(exist_ok=True)
    os.symlink(outside / write(outside, "model.safetensors", small("mmdit_v2_0")), folder / "linked.safetensors")
    with pytest.raises(ValueError, match="this is an Open-Sora 2.0 transformer"):
        load("linked.safetensors")
