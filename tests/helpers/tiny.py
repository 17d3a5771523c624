"""The bundled tiny model through the nodes at their default values, for tests that look at what comes out."""

import importlib

import torch

PACK = "opensora_comfy"


def node_class(node_id):
    """A node of the pack by its ID."""
    nodes = importlib.import_module(f"{PACK}.nodes").NODES
    return next(node for node in nodes if node.define_schema().node_id == node_id)


def run(node_id, **values):
    """The outputs of a node, default values filled in where none are given."""
    node = node_class(node_id)
    inputs = node.define_schema().inputs
    defaults = {each.id: each.default for each in inputs if getattr(each, "default", None) is not None}
    return node.execute(**defaults | values).args


def track(video):
    """Centre x, centre y and radius (of a disc as large) of what differs from the corner's colour: three of [T]."""
    far = (video - video[:, :1, :1]).norm(dim=-1) > 0.25
    area = far.sum((1, 2)).clamp(min=1).float()
    rows, columns = (torch.arange(size) + 0.5 for size in video.shape[1:3])
    return (far.sum(1) * columns).sum(1) / area, (far.sum(2) * rows).sum(1) / area, (area / torch.pi).sqrt()


class Tiny:
    """The three bundled parts, loaded once, and the steps that most graphs are made of."""

    def __init__(self):
        self.model = run("OpenSoraLoadModel")[0]
        self.clip = run("OpenSoraLoadTextEncoder")[0]
        self.vae = run("OpenSoraLoadVAE")[0]

    def text(self, prompt):
        """CONDITIONING of a prompt."""
        return run("OpenSoraTextEncode", clip=self.clip, prompt=prompt, model=self.model)[0]

    def empty(self, **values):
        """The empty clip of the default size and length."""
        return run("OpenSoraEmptyLatent", vae=self.vae, **values)[0]

    def pin(self, latent, image, frame=0, **values):
        """The latent with IMAGE [T, H, W, 3] pinned from `frame` on."""
        return run("OpenSoraKeyframe", latent=latent, vae=self.vae, image=image, frame=frame, **values)[0]

    def encode(self, pixels):
        """LATENT of a clip [T, H, W, 3]."""
        return run("OpenSoraVAEEncode", vae=self.vae, pixels=pixels)[0]

    def decode(self, samples):
        """The frames [T, H, W, 3] of a LATENT."""
        return run("OpenSoraVAEDecode", vae=self.vae, samples=samples)[0]

    def sample(self, prompt, latent, **values):
        """LATENT generated from a prompt."""
        return run("OpenSoraSampler", model=self.model, positive=self.text(prompt), latent=latent, **values)[0]

    def long(self, node_id, prompt, **values):
        """What OpenSoraExtend, OpenSoraConnect or OpenSoraLoop makes."""
        return run(node_id, model=self.model, positive=self.text(prompt), vae=self.vae, **values)[0]
