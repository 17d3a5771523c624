"""MODELs behind Open-Sora Cache, for its tests."""

from small import pack, run

STEPS = 12


def caching():
    """The module that does it."""
    return pack("nodes.comfy.transformer.caching")


def cached(model, speed=1.0):
    """MODEL as the node hands it on."""
    return run(pack("nodes.cache").OpenSoraCache, model=model, speed=speed)[0]


def nothing_left(model):
    """Whether the network is as it was before a run."""
    base = model.model
    return (
        base.cache is None
        and not base.diffusion_model.pieces.give_back()
        and not any("forward" in vars(module) for module in base.diffusion_model.modules())
    )
