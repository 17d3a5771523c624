"""Model files an artist can pick: the bundled ones first, then those in ComfyUI's model folders."""

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

import folder_paths
import torch

from ...model.files import is_model_folder, read_model

BUNDLED = "tiny (bundled)"
BUNDLED_FOLDER = Path(__file__).resolve().parents[2] / "model" / "bundled"


def choices(folder: str) -> list[str]:
    """Names for a combo: the bundled file, then what models/`folder` holds: files and Hugging Face folders.

    Links that lead nowhere are among them: what is chosen says what is wrong, what is missing says nothing.
    """
    names = folder_paths.get_filename_list(folder)
    return [BUNDLED, *sorted({*names, *_model_folders(folder, names), *_dead_links(folder)})]


def _dead_links(folder):
    """Links in models/`folder` itself that lead nowhere, and so may have been model folders."""
    return {
        entry.name
        for base in folder_paths.get_folder_paths(folder)
        if os.path.isdir(base)
        for entry in os.scandir(base)
        if entry.is_symlink() and not os.path.exists(entry.path)
    }


def _model_folders(folder, names):
    """Folders among those of the files `names` that are a model in one: config.json beside the weights."""
    found = {os.path.dirname(name) for name in names} - {""}
    return [name for name in found if _folder_path(folder, name)]


def _folder_path(folder, name):
    """Where the Hugging Face folder `name` lies in models/`folder`, or None."""
    for base in folder_paths.get_folder_paths(folder):
        path = os.path.join(base, name)
        if os.path.isdir(path) and is_model_folder(path):
            return path
    return None


def _dead_link_path(folder, name):
    """Where the link `name` lies that leads nowhere, for `read` to say so, or None."""
    paths = (os.path.join(base, name) for base in folder_paths.get_folder_paths(folder))
    return next((path for path in paths if os.path.islink(path)), None)


def path_of(name: str, folder: str, kind: str) -> str:
    """The file behind a combo entry; `kind` (transformer, vae, text_encoder) names the bundled one.

    Raises ValueError for a name that is not there, with what is.
    """
    if name == BUNDLED:
        return str(BUNDLED_FOLDER / f"{kind}.safetensors")
    path = folder_paths.get_full_path(folder, name)
    if path is None and name in choices(folder):
        path = _folder_path(folder, name) or _dead_link_path(folder, name)
    if path is None:
        raise ValueError(f"{name!r} is not in models/{folder}; there are: {', '.join(choices(folder))}")
    return path


def put(target: Path, write: Callable[[Path], object], failed: str) -> bool:
    """Whether write(path) made the file `target`, whole or not at all; if not, the log has `failed` and the reason."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        write(temporary)
        os.replace(temporary, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        logging.warning("Open-Sora: %s: %s", failed, error)
        return False
    return True


def read(path: str, input_name: str) -> tuple[dict[str, torch.Tensor], dict, dict]:
    """(state_dict of memory-mapped tensors, the pack's own metadata, all of the file's); errors name the node's input.

    The own metadata's `config` is what the file or its folder's config.json says of the network, {} without either.
    """
    try:
        state_dict, metadata, config = read_model(path)
    except (ValueError, OSError) as error:
        raise ValueError(f"{input_name}: {error}") from error
    return state_dict, {**(metadata.get("opensora") or {}), "config": config}, metadata
