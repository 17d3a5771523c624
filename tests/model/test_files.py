"""Reading model files: every format, wrappers, folders, and what is refused without being run."""

import json
import os
import pickle
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch
from opensora_comfy.model.files import is_model_folder, read_file, read_model, strip_prefixes

WEIGHTS = {"first.weight": torch.arange(6.0).view(2, 3), "first.bias": torch.ones(2), "last": torch.zeros(3, 3)}
WRITERS = {
    ".safetensors": safetensors.torch.save_file,
    ".pth": torch.save,
    ".pt": torch.save,
    ".bin": torch.save,
    ".ckpt": torch.save,
    ".BIN": torch.save,
}


def same(state_dict, other=WEIGHTS):
    assert state_dict.keys() == other.keys()
    assert all(torch.equal(state_dict[key], other[key]) for key in other)


def one_sentence(error):
    """The message, after a check that it is a single line of moderate length with a single full stop at most."""
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


def write_shards(folder, suffix, config=None):
    """A folder as Hugging Face's libraries write it, in two shards; returns its index."""
    stem = "model" if suffix == ".safetensors" else "pytorch_model"
    parts = [f"{stem}-0000{i}-of-00002{suffix}" for i in (1, 2)]
    keys = list(WEIGHTS)
    table = {key: parts[0] if key in keys[:2] else parts[1] for key in keys}
    for part in parts:
        WRITERS[suffix]({key: WEIGHTS[key] for key in keys if table[key] == part}, folder / part)
    index = folder / f"{stem}{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": table}))
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return index


@pytest.mark.parametrize("suffix", WRITERS)
def test_reads_single_files(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    WRITERS[suffix](WEIGHTS, path)
    (tmp_path / "config.json").write_text('{"depth": 7}')  # of something else that lies in the same folder
    for name in (path, str(path)):
        state_dict, metadata, config = read_model(name)
        same(state_dict)
        assert (metadata, config) == ({}, {})


def test_reads_pytorch_files_of_before_1_6(tmp_path):
    torch.save(WEIGHTS, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    same(read_model(tmp_path / "old.pth")[0])


def test_what_a_file_holds_counts_and_not_its_name(tmp_path):
    safetensors.torch.save_file(WEIGHTS, tmp_path / "renamed.pth")
    same(read_model(tmp_path / "renamed.pth")[0])
    torch.save(WEIGHTS, tmp_path / "renamed.safetensors")
    with pytest.raises(ValueError, match="is a PyTorch file, not the safetensors.*rename it to .pth"):
        read_model(tmp_path / "renamed.safetensors")


def test_the_packs_own_metadata_is_parsed(tmp_path):
    path = tmp_path / "own.safetensors"
    own = {"kind": "vae", "config": {"depth": 2}}
    safetensors.torch.save_file(WEIGHTS, path, {"opensora": json.dumps(own), "format": "pt"})
    _, metadata, config = read_model(path)
    assert metadata == {"opensora": own, "format": "pt"}
    assert config == {"depth": 2}
    assert read_file(path)[1] == metadata


@pytest.mark.parametrize("name", ["model.safetensors", "diffusion_pytorch_model.safetensors", "pytorch_model.bin",
                                  "diffusion_pytorch_model.bin", "its own name.safetensors"])  # fmt: skip
def test_reads_folders(tmp_path, name):
    WRITERS[Path(name).suffix](WEIGHTS, tmp_path / name)
    (tmp_path / "config.json").write_text('{"depth": 7}')
    (tmp_path / "README.md").write_text("")
    assert is_model_folder(tmp_path)
    state_dict, _, config = read_model(tmp_path)
    same(state_dict)
    assert config == {"depth": 7}
    # The file itself brings its configuration along only under a name that says it belongs to the folder.
    assert read_model(tmp_path / name)[2] == ({} if "own" in name else {"depth": 7})


def test_a_folder_with_both_kinds_is_read_without_pickles(tmp_path):
    safetensors.torch.save_file(WEIGHTS, tmp_path / "model.safetensors")
    torch.save({"other": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    same(read_model(tmp_path)[0])


def test_a_folder_with_several_models_asks_for_one(tmp_path):
    for name in ("a.safetensors", "b.safetensors"):
        safetensors.torch.save_file(WEIGHTS, tmp_path / name)
    with pytest.raises(ValueError, match="several models \\(a.safetensors, b.safetensors\\); choose one"):
        read_model(tmp_path)


def test_a_folder_without_weights_says_so(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert not is_model_folder(tmp_path)
    with pytest.raises(ValueError, match="holds no weights"):
        read_model(tmp_path)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_reads_shards_by_folder_by_index_and_by_any_shard(tmp_path, suffix):
    index = write_shards(tmp_path, suffix, {"depth": 7})
    assert is_model_folder(tmp_path)
    shard = sorted(tmp_path.glob(f"*-of-*{suffix}"))[1]
    for path in (tmp_path, index, shard):
        state_dict, metadata, config = read_model(path)
        same(state_dict)
        assert (metadata, config) == ({}, {"depth": 7})


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_a_missing_shard_is_named(tmp_path, suffix):
    index = write_shards(tmp_path, suffix)
    gone = sorted(tmp_path.glob(f"*-of-*{suffix}"))[1]
    gone.unlink()
    with pytest.raises(ValueError, match=f"misses {gone.name}, 1 of the 2 shards") as error:
        read_model(index)
    one_sentence(error)


def test_a_shard_without_its_index_is_refused(tmp_path):
    write_shards(tmp_path, ".safetensors").unlink()
    with pytest.raises(ValueError, match="one of 2 shards, and model.safetensors.index.json is not beside it"):
        read_model(tmp_path / "model-00001-of-00002.safetensors")


def test_a_shard_of_another_download_is_noticed(tmp_path):
    index = write_shards(tmp_path, ".safetensors")
    safetensors.torch.save_file({"other": torch.zeros(1)}, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(ValueError, match="misses 1 weights .*\\(last, …\\)"):
        read_model(index)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "..\\outside.safetensors", "config.json"])
def test_an_index_cannot_reach_outside_its_folder(tmp_path, name):
    inside = tmp_path / "inside"
    inside.mkdir()
    safetensors.torch.save_file(WEIGHTS, tmp_path / "outside.safetensors")
    index = inside / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"last": name}}))
    with pytest.raises(ValueError, match="as a shard, which is no weights file in its own folder"):
        read_model(index)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "[" * 100000])
def test_a_broken_index_is_refused(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ValueError, match="is no index of shards|is not readable JSON"):
        read_model(tmp_path)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: {"state_dict": weights, "epoch": 3},
        lambda weights: {"model": weights, "optimizer": {"step": torch.zeros(1)}},
        lambda weights: {"model": {"other": torch.zeros(1)}, "ema": weights, "step": torch.tensor(4)},
        lambda weights: {"state_dict": {"model": weights}},
        lambda weights: {"module": weights},
        lambda weights: {"state_dict": {f"module.{key}": value for key, value in weights.items()}},
        lambda weights: {f"module.model.{key}": value for key, value in weights.items()},
        lambda weights: {**weights, "epoch": 3},
        lambda weights: {key: torch.nn.Parameter(value) for key, value in weights.items()},
    ],
)
def test_wrappers_of_training_come_off(tmp_path, wrap):
    torch.save(wrap(WEIGHTS), tmp_path / "training.pth")
    state_dict = read_model(tmp_path / "training.pth")[0]
    same(state_dict)
    assert not any(value.requires_grad for value in state_dict.values())


def test_only_prefixes_that_all_keys_share_come_off():
    mixed = {"module.a": 1, "b": 2}
    assert strip_prefixes(mixed) == mixed
    assert strip_prefixes({"model.diffusion_model.a": 1}) == {"a": 1}
    assert strip_prefixes({}) == {}


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {}}, {"epoch": 3}, torch.zeros(3), {1: torch.zeros(1)}])
def test_files_without_named_weights_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match="holds no weights by name"):
        read_model(tmp_path / "odd.pth")


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("kind", ["archive", "before 1.6", "beside weights", "pickle", "shard"])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt"])
def test_code_in_a_pickle_does_not_run(tmp_path, kind, suffix):
    proof, path = tmp_path / "it ran", tmp_path / f"model{suffix}"
    payload = Payload(proof)
    if kind == "pickle":
        path.write_bytes(pickle.dumps(payload))
    else:
        content = {**WEIGHTS, "extra": payload} if kind == "beside weights" else payload
        torch.save(content, path, _use_new_zipfile_serialization=kind != "before 1.6")
    if kind == "shard":
        index = tmp_path / f"model{suffix}.index.json"
        index.write_text(json.dumps({"weight_map": {"last": path.name}}))
        path = index
    with pytest.raises(ValueError, match="model\\.\\w+ (holds the Python object .*mkdir|is not a readable)") as error:
        read_model(path)
    one_sentence(error)
    assert not proof.exists()
    pickle.loads(pickle.dumps(payload))  # the payload does work
    assert proof.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".bin"])
@pytest.mark.parametrize("keep", [0, 1, 8, 20, 0.3, 0.6, 0.95, -1])
def test_cut_files_are_refused_with_one_sentence(tmp_path, suffix, keep):
    path = tmp_path / f"cut{suffix}"
    WRITERS[suffix]({key: torch.randn(40, 40) for key in WEIGHTS}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(ValueError, match="cut.* is not a readable .* file.*download it again") as error:
        read_model(path)
    one_sentence(error)


@pytest.mark.parametrize("seed", range(40))
def test_scrambled_files_never_raise_anything_else(tmp_path, seed):
    generator = torch.Generator().manual_seed(seed)
    suffix = (".safetensors", ".pth", ".bin")[seed % 3]
    path = tmp_path / f"scrambled{suffix}"
    torch.save(WEIGHTS, path, _use_new_zipfile_serialization=seed % 3 == 1) if seed % 3 else WRITERS[suffix](
        WEIGHTS, path
    )
    content = bytearray(path.read_bytes())
    for place in torch.randint(0, len(content), (12,), generator=generator).tolist():
        content[place] = int(torch.randint(0, 256, (1,), generator=generator))
    path.write_bytes(content)
    try:
        read_model(path)  # a weight may have changed and nothing else
    except ValueError as error:
        assert "\n" not in str(error)


def test_files_of_other_kinds_are_named(tmp_path):
    text, huge, gguf = (tmp_path / name for name in ("text.safetensors", "huge.safetensors", "model.gguf"))
    text.write_text("this is no checkpoint")
    huge.write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    gguf.write_bytes(b"GGUF" + bytes(100))
    for path in (text, huge):
        with pytest.raises(ValueError, match=f"{path.name} is not a readable safetensors file"):
            read_model(path)
    with pytest.raises(ValueError, match="is a GGUF file"):
        read_model(gguf)
    with pytest.raises(ValueError, match="absent.safetensors cannot be read: No such file"):
        read_model(tmp_path / "absent.safetensors")


def test_metadata_that_is_no_json_is_refused(tmp_path):
    path = tmp_path / "odd.safetensors"
    safetensors.torch.save_file(WEIGHTS, path, {"opensora": "{"})
    with pytest.raises(ValueError, match="odd.safetensors is not a readable safetensors file"):
        read_model(path)
    safetensors.torch.save_file(WEIGHTS, path, {"opensora": "[]"})
    assert read_model(path)[1] == {"opensora": {}}


def anonymous_memory():
    """Bytes of this process that no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="RssAnon is Linux's")
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_stay_in_the_file(tmp_path, suffix):
    size = 48 << 20
    path = tmp_path / f"large{suffix}"
    WRITERS[suffix]({"large": torch.ones(size // 4)}, path)
    before = anonymous_memory()
    weights = read_model(path)[0]
    assert weights["large"][::1024].sum() == size // 4 // 1024  # touched, so mapped
    assert anonymous_memory() - before < size // 4


def test_a_pickle_that_holds_itself_ends_in_a_sentence(tmp_path):
    content = {"step": 1}
    content["state_dict"] = content
    torch.save(content, tmp_path / "loop.pth")
    with pytest.raises(ValueError, match="holds no weights by name") as error:
        read_model(tmp_path / "loop.pth")
    one_sentence(error)


def test_metadata_nested_without_end_is_refused(tmp_path):
    path = tmp_path / "deep.safetensors"
    safetensors.torch.save_file(WEIGHTS, path, {"opensora": "[" * 100_000 + "]" * 100_000})
    with pytest.raises(ValueError, match="not a readable safetensors file") as error:
        read_model(path)
    one_sentence(error)
