"""Run as a program: starts ComfyUI as its main.py does, without listening, loads the pack, prints what that changed.

Arguments: ComfyUI's folder, the pack's folder, a base folder. The last line printed is JSON.
"""

import asyncio
import importlib
import json
import socket
import sys
import time
import types
from pathlib import Path

COMFYUI, PACK, BASE = map(Path, sys.argv[1:4])
OURS = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "app", "execution", "folder_paths", "latent_preview",
        "node_helpers", "nodes", "server", "torch"}  # fmt: skip
STOCK = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 24, "height": 16, "batch_size": 2, "color": 0x3366CC}},
    "2": {
        "class_type": "ImageScale",
        "inputs": {"image": ["1", 0], "upscale_method": "bicubic", "width": 40, "height": 32, "crop": "center"},
    },
    "3": {"class_type": "ImageInvert", "inputs": {"image": ["2", 0]}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "stock"}},
}  # fmt: skip
calls = []  # what wanted to reach the network


def no_network(*address, **options):
    calls.append(repr(address[:2]))
    raise OSError("no network here")


def snapshot():
    """{name: identity} of every function, class and method of ComfyUI, and the content of its lists of words."""
    found = {}
    for module_name, module in list(sys.modules.items()):
        if module_name.split(".")[0] not in OURS or module_name.startswith("torch._"):
            continue
        for name, value in list(vars(module).items()):
            if not isinstance(value, types.ModuleType):
                note(found, f"{module_name}.{name}", value)
            if isinstance(value, type) and value.__module__ == module_name:
                for part, own in list(vars(value).items()):
                    note(found, f"{module_name}.{name}.{part}", own)
    return found


def note(found, name, value):
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType, staticmethod, classmethod, property)):
        found[name] = id(value)
    elif isinstance(value, (list, tuple, set)) and value and all(isinstance(word, str) for word in value):
        found[name] = sorted(value) if isinstance(value, set) else list(value)


def changes(before, after):
    return sorted(
        name for name in before.keys() | after.keys() if before.get(name) != after.get(name) and name in before
    )


async def main():
    sys.path.insert(0, str(COMFYUI))
    import comfy.cli_args

    args = comfy.cli_args.args
    args.cpu, args.base_directory, args.front_end_root = True, str(BASE), str(BASE)
    importlib.import_module("utils.extra_config")  # as main.py, before another `utils` can come in
    import execution
    import server

    import nodes

    prompt_server = server.PromptServer(asyncio.get_running_loop())
    await nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False)
    prompt_server.add_routes()
    executor = execution.PromptExecutor(prompt_server, cache_args={"lru": 0, "ram": 0.0, "ram_inactive": 0.0})
    report = {"stock": [await stock(executor)]}

    def registered():
        return {
            "nodes": sorted(nodes.NODE_CLASS_MAPPINGS),
            "routes": sorted(str(route) for route in prompt_server.routes),
            "replacements": sorted(getattr(getattr(prompt_server, "node_replace_manager", None), "_replacements", {})),
        }

    before, had, modules = snapshot(), registered(), set(sys.modules)
    socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = no_network
    seconds = []
    for _ in range(4):
        for name in [name for name in sys.modules if str(PACK) in name]:
            del sys.modules[name]
        began = time.process_time()
        loaded = await nodes.load_custom_node(str(PACK), set(had["nodes"]), module_parent="custom_nodes")
        seconds.append(time.process_time() - began)
        assert loaded
        report.setdefault("brought", sorted({name for name in set(sys.modules) - modules if str(PACK) not in name}))
    has = registered()
    report |= {"seconds": seconds, "changed": changes(before, snapshot())}
    report["added"] = {key: sorted(set(has[key]) - set(had[key])) for key in has}
    report["lost"] = {key: sorted(set(had[key]) - set(has[key])) for key in has}

    def node(name, **inputs):
        return nodes.NODE_CLASS_MAPPINGS[name].execute(**inputs).result[0]

    tiny = "tiny (bundled)"
    model = node("OpenSoraLoadModel", model_name=tiny, weight_dtype="auto")
    clip = node("OpenSoraLoadTextEncoder", text_encoder_name=tiny, device="default")
    vae = node("OpenSoraLoadVAE", vae_name=tiny)
    positive = node("OpenSoraTextEncode", clip=clip, prompt="a red disc", aesthetic_score=0.0, motion_score=0.0,
                    camera_motion="none", clean_caption=True)  # fmt: skip
    latent = node("OpenSoraEmptyLatent", vae=vae, resolution="custom", aspect_ratio="auto", frames=17, fps=24.0,
                  width=32, height=32, batch_size=1)  # fmt: skip
    latent = node("OpenSoraSampler", model=model, positive=positive, latent=latent, seed=1, steps=2, cfg=3.0,
                  sampler_name="original", denoise=1.0)  # fmt: skip
    images = node("OpenSoraVAEDecode", vae=vae, samples=latent)
    report |= {"frames": list(images.shape), "changed_by_running": changes(before, snapshot()), "network": calls}
    report["stock"].append(await stock(executor))
    print("\n" + json.dumps(report))


async def stock(executor):
    """The bytes that a stock graph saves."""
    folder = BASE / "output"
    for left in folder.glob("stock*"):
        left.unlink()
    executor.reset()
    await executor.execute_async(json.loads(json.dumps(STOCK)), "stock", {}, ["4"])
    assert executor.success, executor.status_messages
    return [path.read_bytes().hex() for path in sorted(folder.glob("stock*.png"))]


if __name__ == "__main__":
    asyncio.run(main())
