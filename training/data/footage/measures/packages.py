"""Packages that the pack does without, until somebody asks for what needs them."""

import importlib
from typing import Any


def needed(module: str, package: str, purpose: str) -> Any:
    """The module. ValueError where it is not installed: it says what for, and how to install the `package`."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"{purpose} needs the package {package}: pip install {package}") from error


def opencv(purpose: str) -> Any:
    """OpenCV. ValueError as `needed`."""
    return needed("cv2", "opencv-python-headless", purpose)
