"""What ComfyUI does not find of a pack whose folder has this name: said in the log at start, with the cure.

The scripts are not among it: pyproject.toml has them served under the project's name as well.
"""

import glob
import logging
from pathlib import Path

from yarl import URL

PACK = Path(__file__).parents[2].name
PLAIN = "ComfyUI-OpenSora"


def lost_under(name: str) -> list[str]:
    """The kinds of files that ComfyUI or its page do not find in a pack folder called `name`."""
    lost = []
    # ComfyUI's web server quotes the addresses that it offers and compares them with unquoted ones.
    if URL.build(path=f"/{name}").raw_path != f"/{name}":
        lost += ["templates", "help pages"]
    elif "." in name or "@" in name:  # the page takes the name of a pack to end there
        lost += ["help pages"]
    # Looked for with patterns, of which the name becomes a part; a leading dot hides a folder from a `*`.
    if glob.escape(name) != name:
        lost += ["translations"]
    if name.startswith("."):
        lost += [kind for kind in ("templates", "blueprints", "translations") if kind not in lost]
    return lost


def warn_of_folder_name(name: str = PACK) -> None:
    """Say in the log what is lost under the pack's folder name; nothing under a plain one."""
    lost = lost_under(name)
    if lost:
        logging.warning(
            "Open-Sora: ComfyUI does not find the pack's %s in a folder called %r; rename the folder to %s (letters, "
            "digits, - and _ always work) and restart ComfyUI.", ", ".join(lost), name, PLAIN,
        )  # fmt: skip
