"""Recorded runs of the original code: weights, inputs, outputs and intermediates to bisect with."""

import json
import math
from pathlib import Path

import safetensors.torch
import torch
from safetensors import safe_open

DATA = Path(__file__).parents[1] / "data"
FOLDER, MANIFESTS = DATA / "golden", DATA / "manifests"


class Case:
    """One recorded call: `meta`, and the tensors of its inputs, outputs and intermediates by name."""

    def __init__(self, name):
        with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
            self.meta = json.loads(file.metadata()["meta"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        self.inputs, self.outputs, self.mid = (
            {key[len(kind) :]: value for key, value in tensors.items() if key.startswith(kind)}
            for kind in ("in.", "out.", "mid.")
        )


def weights(family):
    """The state dict that all cases of a family share (`stdit3`, `rflow`, `vae12`, …), fp32."""
    parts = sorted(FOLDER.glob(f"{family}.weights*.safetensors"))
    return {key: value.float() for part in parts for key, value in safetensors.torch.load_file(part).items()}


def table(name):
    """A recorded JSON table."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def manifest(name):
    """A full-size state dict of shapes without memory."""
    shapes = json.loads((MANIFESTS / f"{name}.json").read_text())["state_dict"]
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def difference(value, reference):
    """max|Δ| / max|reference|."""
    return ((value - reference).abs().max() / reference.abs().max()).item()


def psnr(value, reference):
    """Peak signal-to-noise ratio in dB; the peak is how far the reference reaches."""
    peak = (reference.max() - reference.min()).item()
    return 20 * math.log10(peak / (value - reference).square().mean().sqrt().clamp(min=1e-12).item())


def first_divergence(module, case, tolerance):
    """Register hooks that note where a module's intermediates leave the recorded ones; returns the list they fill."""
    found = []

    def compare(name):
        def hook(_, __, output):
            gap = difference(output.reshape(case.mid[name].shape), case.mid[name])
            # A module called again (timestep 0, the unconditional half) has its own record; the first call is compared.
            if name not in seen and gap > tolerance:
                found.append(f"{name}: {gap:.1e}")
            seen.add(name)

        return hook

    seen = set()
    modules = dict(module.named_modules())
    for name in case.mid:
        if name in modules:
            modules[name].register_forward_hook(compare(name))
    return found
