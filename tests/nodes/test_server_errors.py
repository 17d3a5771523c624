"""Bad input in a real server: each error names the input and helps, and the server goes on; interrupt stops a run."""

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from small import write

NODES = {
    "model": {"class_type": "OpenSoraLoadModel", "inputs": {"model_name": "tiny (bundled)", "weight_dtype": "auto"}},
    "clip": {
        "class_type": "OpenSoraLoadTextEncoder",
        "inputs": {"text_encoder_name": "tiny (bundled)", "device": "default"},
    },
    "vae": {"class_type": "OpenSoraLoadVAE", "inputs": {"vae_name": "tiny (bundled)"}},
    "text": {
        "class_type": "OpenSoraTextEncode",
        "inputs": {
            "clip": ["clip", 0],
            "prompt": "a red circle moves left on a white background",
            "aesthetic_score": 0.0,
            "motion_score": 0.0,
            "camera_motion": "none",
            "clean_caption": True,
        },
    },
    "empty": {
        "class_type": "OpenSoraEmptyLatent",
        "inputs": {
            "vae": ["vae", 0],
            "resolution": "auto",
            "aspect_ratio": "auto",
            "frames": 17,
            "fps": 24.0,
            "width": 424,
            "height": 240,
            "batch_size": 1,
        },
    },
    "sampler": {
        "class_type": "OpenSoraSampler",
        "inputs": {
            "model": ["model", 0],
            "positive": ["text", 0],
            "latent": ["empty", 0],
            "seed": 1,
            "steps": 2,
            "cfg": 7.0,
            "sampler_name": "original",
            "denoise": 1.0,
        },
    },
    "decode": {"class_type": "OpenSoraVAEDecode", "inputs": {"vae": ["vae", 0], "samples": ["sampler", 0]}},
    "show": {"class_type": "PreviewImage", "inputs": {"images": ["decode", 0]}},
}


def graph(extra=None, **changes):
    """The text-to-video graph; changes as node={"input": value}, `extra` more nodes."""
    nodes = {name: {**node, "inputs": {**node["inputs"], **changes.get(name, {})}} for name, node in NODES.items()}
    return {**nodes, **(extra or {})}


def fails(server, prompt, *words):
    """Run a graph that must fail, with all of `words` in what the artist reads."""
    result = server.post_prompt(prompt)
    assert not result.success
    missing = [word for word in words if word not in result.message]
    assert not missing, f"{missing} not in: {result.message}"
    assert server.alive()


_seed = iter(range(1000, 2000))


def works(server, **changes):
    """A run with a fresh seed gives frames."""
    sampler = {"seed": next(_seed), **changes.pop("sampler", {})}
    return server.run(graph(sampler=sampler, **changes)).files()


def keyframe(frame, width=64, height=64):
    """Nodes and changes that pin a plain picture."""
    extra = {
        "picture": {
            "class_type": "EmptyImage",
            "inputs": {"width": width, "height": height, "batch_size": 1, "color": 0xFF0000},
        },
        "key": {
            "class_type": "OpenSoraKeyframe",
            "inputs": {
                "latent": ["empty", 0],
                "vae": ["vae", 0],
                "image": ["picture", 0],
                "frame": frame,
                "strength": 1.0,
            },
        },
    }
    return {"extra": extra, "sampler": {"latent": ["key", 0], "seed": next(_seed)}}


@pytest.fixture(scope="module")
def model_file(server, checkpoints):
    """Puts a file into the server's models folder: (folder, name, source path or bytes or weights) -> name."""

    def put(folder, name, content):
        target = server.base / "models" / folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            target.write_bytes(content)
        elif isinstance(content, dict):
            write(target, content)
        else:
            shutil.copy(content, target)
        server.object_info("OpenSoraLoadModel")
        return name

    return put


def test_all_nodes_are_registered(server):
    promised = json.loads(Path(__file__).with_name("schema.json").read_text(encoding="utf-8"))
    assert promised and set(promised) <= set(server.object_info())


def test_damaged_and_foreign_files(server, model_file, checkpoints):
    whole = Path(checkpoints["transformer"]).read_bytes()
    sd15 = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(4, 4)}
    for name, content, words in (
        ("cut.safetensors", whole[: len(whole) // 2], ["not a readable safetensors file"]),
        ("text.safetensors", b"hello" * 99, ["not a readable safetensors file"]),
        ("sd15.safetensors", sd15, ["Stable Diffusion", "Open-Sora"]),
        ("a_vae.safetensors", checkpoints["vae"], ["Load Open-Sora VAE"]),
    ):
        model_file("diffusion_models", name, content)
        fails(server, graph(model={"model_name": name}), "model_name", name, *words)
    model_file("vae", "cut.safetensors", whole[:1000])
    fails(server, graph(vae={"vae_name": "cut.safetensors"}), "vae_name", "not a readable safetensors file")
    assert works(server)


def test_latent_of_another_model(server):
    extra = {"sd3": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}}}
    fails(server, graph(extra, sampler={"latent": ["sd3", 0]}), "latent", "16", "no frames")


def test_frames_names_the_neighbours(server):
    fails(server, graph(empty={"frames": 20}), "frames is 20", "17 and 21")


def test_keyframe_beyond_the_end(server):
    fails(server, graph(**keyframe(17)), "frame is 17", "-17 to 16")


def test_keyframe_of_another_size(server):
    assert len(server.run(graph(**keyframe(0, width=300, height=100))).files()) == 17


def test_empty_and_endless_prompts(server):
    assert len(works(server, text={"prompt": ""})) == 17
    assert len(works(server, text={"prompt": "circle " * 10_000})) == 17


def test_interrupt_stops_within_a_step(server):
    """Interrupt after the third step of a thousand: the run ends at once, and the next one works."""
    progress = []

    def watch(kind, data):
        if kind == "progress":
            progress.append(data["value"])
            if data["value"] == 3:
                server.interrupt()

    result = server.post_prompt(graph(sampler={"steps": 1000, "seed": next(_seed)}), on_event=watch)
    assert result.interrupted and not result.success
    time.sleep(0.2)
    assert max(progress) <= 5  # the message, and the interrupt's way back, take their time too
    assert len(works(server)) == 17
