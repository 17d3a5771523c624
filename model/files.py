"""Reading model files of every kind that Open-Sora was released in, memory-mapped: `read_model`.

Weights stay on the disk until they are used. PyTorch files are pickles, which can run code: they go through
`torch.load(weights_only=True)`, which builds tensors and plain containers and refuses everything else.
"""

import json
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

PYTORCH_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth")
SUFFIXES = (".safetensors", *PYTORCH_SUFFIXES)
CONFIG = "config.json"
INDEX = ".index.json"
# What Hugging Face's libraries call the weights in a folder, first choice first; Open-Sora's own folders use the first.
STANDARD_NAMES = ("model.safetensors", "diffusion_pytorch_model.safetensors", "pytorch_model.bin",
                  "diffusion_pytorch_model.bin")  # fmt: skip
# Training runs put the weights under one of these names beside optimiser state; averaged weights come first.
WRAPPERS = ("ema", "state_dict_ema", "state_dict", "model", "module")
MOST_WRAPPERS = 8  # in one another; a damaged or malicious pickle can hold itself
# What training frameworks and ComfyUI's Save nodes put in front of every key.
PREFIXES = ("module.", "model.diffusion_model.", "diffusion_model.", "model.", "ema.", "state_dict.")
# Where a program that writes tensors alone (ComfyUI's Save nodes) leaves the file's own metadata: JSON as bytes.
METADATA_KEY = "opensora_metadata"
ZIP_MAGIC = b"PK\x03\x04"
PICKLE_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how PyTorch before 1.6 began a file
GGUF_MAGIC = b"GGUF"
SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})(\.\w+)")


def read_model(path: str | Path) -> tuple[dict[str, torch.Tensor], dict, dict]:
    """Open a model without reading its weights.

    Args:
        path: a .safetensors file; a PyTorch file (.pth, .pt, .bin, .ckpt); a Hugging Face folder with such files,
            in one piece or in shards; or a folder's *.index.json, or any one shard.

    Returns:
        state_dict: key → memory-mapped tensor on the CPU, wrappers and prefixes of training frameworks taken off.
        metadata: of a safetensors file, its `opensora` entry parsed from JSON, or what a tensor carries of it; else {}.
        config: what the file's metadata or the folder's config.json says about the network; {} where neither does.

    Raises ValueError, one sentence, for a file that is damaged, is none, would run code, or misses a shard, and for a
    link that leads nowhere.
    """
    path = Path(path)
    refuse_dead_link(path)
    folder = path if path.is_dir() else path.parent
    weights = _weights_in(path) if path.is_dir() else _index_of(path)
    if weights.name.endswith(INDEX):
        state_dict, metadata = _read_shards(weights), {}
    else:
        state_dict, metadata = _read_one(weights)
    state_dict = strip_prefixes(state_dict)
    carried = _metadata_in(state_dict, path)
    if carried is not None and "opensora" not in metadata:
        metadata["opensora"] = carried
    config = metadata.get("opensora", {}).get("config")
    beside = folder / CONFIG
    # A lone file with a name of its own has nothing to do with a config.json that happens to lie in its folder.
    if config is None and (path.is_dir() or weights.name.endswith(INDEX) or weights.name in STANDARD_NAMES):
        refuse_dead_link(beside)
        config = _read_json(beside) if beside.is_file() else {}
    return state_dict, metadata, config if isinstance(config, dict) else {}


def metadata_tensor(metadata: Mapping) -> dict[str, torch.Tensor]:
    """Metadata, which JSON can hold, as {METADATA_KEY: uint8 tensor}; `read_model` reads it back."""
    return {METADATA_KEY: torch.tensor(list(json.dumps(metadata).encode()), dtype=torch.uint8)}


def _metadata_in(state_dict, path):
    """The metadata that a tensor of `state_dict` carries, which is taken out of it; None without one."""
    tensor = state_dict.pop(METADATA_KEY, None)
    if tensor is None:
        return None
    try:
        found = json.loads(bytes(tensor.tolist()))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} holds a damaged {METADATA_KEY} ({error}); save or download it again") from error
    return found if isinstance(found, dict) else {}


def refuse_dead_link(path: str | Path) -> None:
    """Raise ValueError where `path` is a symbolic link whose target is gone: a moved folder, an unplugged drive."""
    if os.path.islink(path) and not os.path.exists(path):
        raise ValueError(
            f"{path} is a link that leads nowhere: {os.readlink(path)} is not there; bring that back, or put the model "
            "itself in the link's place"
        )


def read_file(path: str | Path) -> tuple[dict[str, torch.Tensor], dict]:
    """`read_model` without the configuration: (state_dict, metadata)."""
    return read_model(path)[:2]


def is_model_folder(path: str | Path) -> bool:
    """Whether `path` is a Hugging Face folder: config.json and weights beside it, or links that should lead to them."""
    path = Path(path)
    return os.path.lexists(path / CONFIG) and any(
        name.endswith((*SUFFIXES, *(suffix + INDEX for suffix in SUFFIXES))) for name in os.listdir(path)
    )


def strip_prefixes(state_dict: dict[str, Any]) -> dict[str, Any]:
    """The state dict without a prefix that all of its keys share, such as `module.` of parallel training."""
    while state_dict:
        first = next(iter(state_dict))
        shared = [prefix for prefix in PREFIXES if first.startswith(prefix)]
        if not shared or not all(key.startswith(shared[0]) for key in state_dict):
            break
        state_dict = {key[len(shared[0]) :]: value for key, value in state_dict.items()}
    return state_dict


def _weights_in(folder):
    """The file to read of a Hugging Face folder: an index or weights in one piece, safetensors before pickles."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file() or entry.is_symlink())
    for kind in ((".safetensors",), PYTORCH_SUFFIXES):
        found = [name for name in names if name.endswith(tuple(suffix + INDEX for suffix in kind))]
        found = found or [name for name in STANDARD_NAMES if name in names and name.endswith(kind)][:1]
        found = found or [name for name in names if name.endswith(kind)]
        if len(found) > 1:
            raise ValueError(f"{folder} holds several models ({', '.join(found)}); choose one of these files instead")
        if found:
            return folder / found[0]
    raise ValueError(f"{folder} holds no weights; a model folder has a .safetensors or .bin file beside {CONFIG}")


def _index_of(path):
    """The index that a shard belongs to, so that choosing any shard loads the model; other files stay as they are."""
    named = SHARD.fullmatch(path.name)
    if named is None:
        return path
    index = path.with_name(f"{named[1]}{named[3]}{INDEX}")
    refuse_dead_link(index)
    if not index.is_file():
        raise ValueError(f"{path} is one of {int(named[2])} shards, and {index.name} is not beside it; download it too")
    return index


def _read_shards(index):
    """All shards that a *.index.json names, as one state dict."""
    refuse_dead_link(index)
    table = _read_json(index)
    table = table.get("weight_map") if isinstance(table, dict) else None
    if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table.values()):
        raise ValueError(f"{index} is no index of shards: it has no weight_map")
    shards = sorted(set(table.values()))
    for name in shards:
        if Path(name).name != name or "\\" in name or not name.endswith(SUFFIXES):
            raise ValueError(f"{index} names {name!r} as a shard, which is no weights file in its own folder")
    for name in shards:
        refuse_dead_link(index.parent / name)
    missing = [name for name in shards if not (index.parent / name).is_file()]
    if missing:
        raise ValueError(
            f"{index.parent} misses {', '.join(missing)}, {len(missing)} of the {len(shards)} shards that {index.name} "
            "names; download the rest of the folder"
        )
    state_dict = {}
    for name in shards:
        state_dict.update(_read_one(index.parent / name)[0])
    absent = sorted(set(table) - set(state_dict))
    if absent:
        raise ValueError(
            f"{index.parent} misses {len(absent)} weights that {index.name} promises ({', '.join(absent[:3])}, …); "
            "download the folder again"
        )
    return state_dict


def _read_one(path):
    """(state_dict, metadata) of one file, by what it holds rather than by its name."""
    refuse_dead_link(path)
    try:
        with open(path, "rb") as file:
            start = file.read(len(PICKLE_MAGIC))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    if start.startswith(GGUF_MAGIC):
        raise ValueError(f"{path} is a GGUF file, which this pack does not read; get the model as .safetensors")
    if start.startswith(ZIP_MAGIC) or start == PICKLE_MAGIC:
        if path.suffix.lower() == ".safetensors":
            raise ValueError(
                f"{path} is a PyTorch file, not the safetensors file that its name promises; rename it to .pth to "
                "have it read as one"
            )
        return _read_pytorch(path, mmap=start != PICKLE_MAGIC), {}
    if path.suffix.lower() in PYTORCH_SUFFIXES and not _looks_like_safetensors(path, start):
        raise _damaged(path)
    return _read_safetensors(path)


def _looks_like_safetensors(path, start):
    """Whether the file begins with the length of a JSON header that fits into it, and that header's brace."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") < os.path.getsize(path)


def _read_safetensors(path):
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            state_dict = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 — not a dict
        if "opensora" in metadata:
            own = json.loads(metadata["opensora"])
            metadata["opensora"] = own if isinstance(own, dict) else {}
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(
            f"{path} is not a readable safetensors file ({error}); it may be cut short: download it again"
        ) from error
    return state_dict, metadata


def _read_pytorch(path, mmap):
    """The tensors of a PyTorch file; `mmap` False for files of before PyTorch 1.6, which have to be read whole."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named is None:
            raise _damaged(path) from error
        raise ValueError(
            f"{path} holds the Python object {named[1]} beside its weights, and such files can run code, so it was not "
            "opened; get the model as .safetensors, or as a file of weights alone"
        ) from error
    except Exception as error:  # a damaged archive or pickle can raise anything
        raise _damaged(path) from error
    return _tensors(content, path)


def _damaged(path):
    return ValueError(f"{path} is not a readable PyTorch file; it may be cut short: download it again")


def unwrap(content: Mapping) -> Mapping:
    """What lies in the wrappers of training runs (`state_dict`, `ema`, …), one in another or not; else `content`."""
    for _ in range(MOST_WRAPPERS):
        inner = [content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping)]
        if not inner:
            break
        content = inner[0]
    return content


def _tensors(content, path):
    """The mapping of tensors inside a checkpoint: what it holds itself, or under the name that training gave it."""
    if isinstance(content, Mapping):
        tensors = {key: value for key, value in unwrap(content).items() if isinstance(value, torch.Tensor)}
        if tensors and all(isinstance(key, str) for key in tensors):
            return {key: value.detach() for key, value in tensors.items()}
    raise ValueError(f"{path} holds no weights by name; a model file maps names to tensors")


def _read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable JSON; download it again") from error
