"""Small random networks of every family, and the ways to sample them: ours, and those of stock graphs."""

import torch
from small import CAPTION_CHANNELS, CAPTION_LENGTH, pack, random_weights, run

STEPS = 6
# family: (module, class, sizes beside the captions', config that the weights do not tell)
SMALL = {
    "stdit": ("stdit", "STDiT", {"hidden_size": 48, "num_heads": 2}, {"num_heads": 2}),
    "stdit2": ("stdit2", "STDiT2", {"hidden_size": 48, "num_heads": 2}, {}),
    "stdit3": ("stdit3", "STDiT3", {"hidden_size": 48, "num_heads": 2}, {}),
    "stdit3_v1_3": ("stdit3_v1_3", "STDiT3v13", {"hidden_size": 72, "num_heads": 2}, {"kernel_size": [2, 2, -1]}),
    "pixart": ("pixart", "PixArt", {"hidden_size": 48, "num_heads": 2, "size_embedders": True}, {"num_heads": 2}),
}
VIDEO = [name for name in SMALL if name != "pixart"]
EPSILON = ("stdit", "stdit2", "pixart")
VERSIONS = {"stdit": "1.0", "stdit2": "1.1", "stdit3": "1.2", "stdit3_v1_3": "1.3", "pixart": "pixart"}


def small_family(name):
    """A random network of one family, two blocks deep, and its weights."""
    file, kind, sizes, config = SMALL[name]
    module = pack(f"model.transformers.{file}")
    if "kernel_size" in config:
        sizes = {**sizes, "kernel_size": tuple(config["kernel_size"])}
    network = getattr(module, kind)(
        getattr(module, f"{kind}Config")(
            depth=2, caption_channels=CAPTION_CHANNELS, model_max_length=CAPTION_LENGTH, **sizes
        )
    )
    return network, random_weights(network, seed=list(SMALL).index(name))


def clip(name, mask=None, batch=1):
    """An empty LATENT for a family; with a mask [T] of values, a random one whose frames are held so far."""
    channels = 16 if name == "stdit3_v1_3" else 4
    T = {"pixart": 1, "stdit": 4, "stdit2": 4}.get(name, 5)
    shape = (batch, channels, T, 5, 6)
    frames = 17 if T == 5 else T
    latent = {"samples": torch.zeros(shape), "frames": frames, "fps": 24.0, "height": 40, "width": 48}
    if mask is not None:
        latent["samples"] = torch.randn(shape, generator=torch.Generator().manual_seed(9))
        values = torch.tensor(mask[:T]).view(1, 1, -1, 1, 1)
        latent["noise_mask"] = values.expand(batch, 1, *shape[2:]).clone()
    return latent


def ours(model, positive, latent, **options):
    settings = {"seed": 5, "steps": STEPS, "cfg": 4.0, "sampler_name": "original", "denoise": 1.0, **options}
    return run(pack("nodes.sampler").OpenSoraSampler, model=model, positive=positive, latent=latent, **settings)[0][
        "samples"
    ]


def negative(model, positive):
    return pack("nodes.comfy.sampling.conditioning").null_conditioning(model, positive)


def stock_advanced(comfy, model, positive, latent, sampler="euler", steps=STEPS, cfg=4.0):
    """What OpenSoraModelSampling, OpenSoraScheduler and SamplerCustomAdvanced do in a row."""
    nodes = pack("nodes.sampler")
    sigmas = run(nodes.OpenSoraScheduler, model=model, latent=latent, steps=steps, denoise=1.0)[0]
    guider = comfy.samplers.CFGGuider(run(nodes.OpenSoraModelSampling, model=model, latent=latent)[0])
    guider.set_conds(positive, negative(model, positive))
    guider.set_cfg(cfg)
    return guider.sample(
        comfy.sample.prepare_noise(latent["samples"], 5),
        latent["samples"],
        comfy.samplers.sampler_object(sampler),
        sigmas,
        denoise_mask=latent.get("noise_mask"),
        disable_pbar=True,
        seed=5,
    )


def stock_ksampler(comfy, model, positive, latent, sampler="euler"):
    """KSampler on the MODEL as it was loaded."""
    return comfy.sample.sample(
        model,
        comfy.sample.prepare_noise(latent["samples"], 5),
        STEPS,
        4.0,
        sampler,
        "simple",
        positive,
        negative(model, positive),
        latent["samples"],
        noise_mask=latent.get("noise_mask"),
        disable_pbar=True,
        seed=5,
    )
