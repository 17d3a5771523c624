"""Random workflows of the other Open-Sora packs: reroutes, values from nodes, modes, shared outputs, broken wires."""

import random

LOADER_PIPE = [("pipe", "PIPE"), ("steps", "INT"), ("guidance", "FLOAT"), ("text_encoder", "CLIP"), ("vae", "VAE"),
               ("num_frames", "INT"), ("width", "INT"), ("height", "INT"), ("fps", "FLOAT")]  # fmt: skip
LOADER_SCHEDULER = [("model", "MODEL"), ("text_encoder", "CLIP"), ("vae", "VAE"), ("scheduler", "SCHEDULER")]
# Sockets, widgets with their type and a value, outputs; `+` stands for what the page adds to a seed.
THEIRS = {
    "loader": ("OpenSoraLoader", [], [
        ("config", "COMBO", "opensora-v1-2/inference/sample.py"), ("duration", "COMBO", "4s"),
        ("resolution", "COMBO", "480p"), ("aspect_ratio", "COMBO", "9:16"), ("custom_checkpoint", "COMBO", "Default"),
        ("custom_vae", "COMBO", "Default"), ("custom_clip", "COMBO", "mine.safetensors")], LOADER_PIPE),
    "text": ("OpenSoraTextEncoder", [("text_encoder", "CLIP")], [
        ("positive_prompt", "STRING", "a cat"), ("negative_prompt", "STRING", "a dog"),
        ("camera_motion", "COMBO", "pan left"), ("enable_motion_strength", "COMBO", "enabled"),
        ("motion_strength", "INT", 20), ("enable_aesthetic_score", "COMBO", "enabled"),
        ("aesthetic_score", "FLOAT", 6.5)], [("positive", "CONDITIONING"), ("negative", "CONDITIONING")]),
    "encoder": ("OpenSoraEncoder", [("vae", "VAE"), ("image", "IMAGE")], [("dtype", "COMBO", "fp16")],
                [("latent", "LATENT")]),
    "sampler": ("OpenSoraSampler", [("pipe", "PIPE"), ("positive", "CONDITIONING"), ("negative", "CONDITIONING"),
                                    ("reference", "LATENT")],
                [("seed", "INT", 7), "+", ("dtype", "COMBO", "fp16"), ("steps", "INT", 12), ("guidance", "FLOAT", 4.5)],
                [("samples", "LATENT")]),
    "decoder": ("OpenSoraDecoder", [("vae", "VAE"), ("latents", "LATENT")], [("dtype", "COMBO", "fp16")],
                [("images", "IMAGE")]),
    "first loader": ("OpenSoraLoader", [], [
        ("ckpt_path", "COMBO", "mine.pth"), ("config", "COMBO", "16x512x512.py"), ("num_frames", "INT", 16),
        ("width", "INT", 256), ("height", "INT", 512), ("dtype", "STRING", "fp16"),
        ("num_sampling_steps", "INT", 60)], LOADER_SCHEDULER),
    "first sampler": ("OpenSoraSampler", LOADER_SCHEDULER, [
        ("prompt", "STRING", "a bird"), ("dtype", "STRING", "fp16"), ("seed", "INT", 3), "+",
        ("num_frames", "INT", 16), ("width", "INT", 256), ("height", "INT", 512)], [("samples", "LATENT")]),
    "run": ("OpenSoraRun", [("vae", "VAE"), ("samples", "LATENT")], [("dtype", "STRING", "fp16")],
            [("IMAGE", "IMAGE")]),
}  # fmt: skip
OLD_TYPES = {kind for kind, *_ in THEIRS.values()}
VALUES = {"INT": ("PrimitiveInt", 21), "FLOAT": ("PrimitiveFloat", 5.5), "STRING": ("PrimitiveString", "from a node")}


class Workflow:
    """A page workflow that is built node by node; `rng` decides what the call leaves open."""

    def __init__(self, rng):
        self.rng, self.nodes, self.links = rng, [], []
        self.ways = {}  # (node, slot) → reroutes that lead on from it

    def add(self, kind, inputs, outputs, values, mode=None):
        """A node with sockets (name, type) or widget inputs (name, type, None) and outputs (name, type)."""
        number = len(self.nodes) + 1
        if mode is None:
            mode = self.rng.choices([0, 2, 4], [8, 1, 1])[0]
        node = {
            "id": number, "type": kind, "pos": [400 * (number % 5), 300 * (number // 5)], "size": [300, 120],
            "flags": {}, "order": number, "mode": mode, "properties": {}, "widgets_values": values,
            "inputs": [
                {"name": entry[0], "type": entry[1], "link": None}
                | ({"widget": {"name": entry[0]}} if len(entry) > 2 else {})
                for entry in inputs
            ],
            "outputs": [{"name": name, "type": type_, "links": None} for name, type_ in outputs],
        }  # fmt: skip
        self.nodes.append(node)
        return node

    def theirs(self, name, **how):
        """One of their nodes, with some widgets turned into inputs and sometimes an odd list of values."""
        kind, sockets, widgets, outputs = THEIRS[name]
        wired = [widget for widget in widgets if widget != "+" and self.rng.random() < 0.25]
        values = ["fixed" if widget == "+" else widget[2] for widget in widgets]
        odd = self.rng.random()
        if odd < 0.08:
            values = values[: self.rng.randrange(len(values) + 1)]
        elif odd < 0.16:
            values[self.rng.randrange(len(values))] = self.rng.choice([None, "nonsense", [], {}])
        elif odd < 0.24:
            values = {widget[0]: widget[2] for widget in widgets if widget != "+"}
        node = self.add(kind, [*sockets, *[(each[0], each[1], None) for each in wired]], outputs, values, **how)
        for widget in wired:
            self.feed(node, widget[0], widget[1], values)
        return node

    def feed(self, node, name, type_, values):
        """Wire a widget: from a Primitive of the page, a node that is a value, or through a node of ComfyUI's."""
        if self.rng.random() < 0.5 or type_ not in VALUES:
            stored = values.get(name) if isinstance(values, dict) else None
            value = {"INT": 33, "FLOAT": 6.5, "STRING": "from a Primitive"}.get(type_, stored or "480p")
            origin = self.add("PrimitiveNode", [], [(type_, type_)], [value, "fixed"])
            self.link(origin, 0, node, name)
        else:
            kind, value = VALUES[type_]
            self.wire(self.add(kind, [], [(type_, type_)], [value]), 0, node, name)

    def link(self, origin, slot, target, name):
        """A wire between two nodes as it is drawn."""
        number = len(self.links) + 1
        place = next(index for index, entry in enumerate(target["inputs"]) if entry["name"] == name)
        output = origin["outputs"][slot]
        output["links"] = [*(output["links"] or []), number]
        target["inputs"][place]["link"] = number
        self.links.append([number, origin["id"], slot, target["id"], place, output["type"]])
        return self.links[-1]

    def wire(self, origin, slot, target, name):
        """A wire that may go through reroutes (its own, or those of another wire), be missing or be broken."""
        fate = self.rng.random()
        if fate < 0.05:
            return
        type_ = origin["outputs"][slot]["type"]
        if fate < 0.1:  # a reroute that nothing leads into
            origin, slot = self.reroute(type_), 0
        elif fate < 0.13:  # a link whose origin is not in the file
            self.link(origin, slot, target, name)[1] = 999
            return
        ways = self.ways.setdefault((origin["id"], slot), [])
        if ways and self.rng.random() < 0.5:
            origin, slot = self.rng.choice(ways), 0
        while self.rng.random() < 0.3:
            through = self.reroute(type_)
            self.link(origin, slot, through, "")
            ways.append(through)
            origin, slot = through, 0
        self.link(origin, slot, target, name)

    def reroute(self, type_):
        return self.add("Reroute", [("", "*")], [("", type_)], [])

    def saved(self):
        """The file. Some have groups and points that wires are drawn through, or the newer form of links."""
        rng = self.rng
        for node in rng.sample(self.nodes, min(3, len(self.nodes))):
            node.update(title=f"my {node['id']}", color="#322", bgcolor="#533", flags={"collapsed": True})
        around = [[node["pos"][0] - 10, node["pos"][1] - 40, 320, 100] for node in rng.sample(self.nodes, 2)]
        file = {
            "nodes": self.nodes, "links": self.links, "config": {}, "extra": {}, "version": 0.4,
            "last_node_id": len(self.nodes), "last_link_id": len(self.links),
            "groups": [{"title": f"group {place}", "bounding": box} for place, box in enumerate(around)],
        }  # fmt: skip
        points = [
            {"id": place + 1, "pos": [10, 10], "linkIds": [link[0]]}
            for place, link in enumerate(rng.sample(self.links, min(2, len(self.links))))
        ]
        if rng.random() < 0.3:
            extensions = [{"id": point["linkIds"][0], "parentId": point["id"]} for point in points]
            file["extra"] = {"reroutes": points, "linkExtensions": extensions}
        elif rng.random() < 0.2:
            names = ["id", "origin_id", "origin_slot", "target_id", "target_slot", "type"]
            parents = {point["linkIds"][0]: point["id"] for point in points}
            objects = [dict(zip(names, link, strict=True)) for link in self.links]
            for link in objects:
                if link["id"] in parents:
                    link["parentId"] = parents[link["id"]]
            file.update(version=1, links=objects, reroutes=points, state={
                "lastNodeId": len(self.nodes), "lastLinkId": len(self.links), "lastGroupId": 2, "lastRerouteId": 2,
            })  # fmt: skip
        return file


def with_pipe(flow):
    """Image or text to video of the pack with a PIPE."""
    rng = flow.rng
    loader = flow.theirs("loader")
    texts = [flow.theirs("text") for _ in range(rng.randrange(3))]
    encoders = [flow.theirs("encoder") for _ in range(rng.randrange(3))]
    samplers = [flow.theirs("sampler") for _ in range(rng.randrange(1, 3))]
    for text in texts:
        flow.wire(loader, 3, text, "text_encoder")
    for encoder in encoders:
        image = flow.add("EmptyImage", [], [("IMAGE", "IMAGE")], [64, 64, 1, 0])
        flow.wire(loader, 4, encoder, "vae")
        flow.wire(image, 0, encoder, "image")
    for sampler in samplers:
        flow.wire(loader, 0, sampler, "pipe")
        if texts:
            flow.wire(rng.choice(texts), 0, sampler, "positive")
            flow.wire(rng.choice(texts), 1, sampler, "negative")
        others = [each for each in samplers if each["id"] < sampler["id"]]
        if encoders or others:
            flow.wire(rng.choice([*encoders, *others]), 0, sampler, "reference")
        for name, slot in (("steps", 1), ("guidance", 2)):
            entry = next((each for each in sampler["inputs"] if each["name"] == name), None)
            if entry is None and rng.random() < 0.5:
                type_ = "INT" if slot == 1 else "FLOAT"
                sampler["inputs"].append({"name": name, "type": type_, "link": None, "widget": {"name": name}})
                flow.wire(loader, slot, sampler, name)
    foreign_readers(flow, loader)
    return loader, 4, "decoder", "latents", [*samplers, *encoders]


def with_scheduler(flow):
    """Text to video of the pack with a SCHEDULER."""
    loader = flow.theirs("first loader")
    samplers = [flow.theirs("first sampler") for _ in range(flow.rng.randrange(1, 3))]
    for sampler in samplers:
        for slot, (name, _) in enumerate(LOADER_SCHEDULER):
            flow.wire(loader, slot, sampler, name)
    foreign_readers(flow, loader)
    return loader, 2, "run", "samples", samplers


def foreign_readers(flow, loader):
    """Nodes that are not theirs and read what a loader gives, also what ours do not have."""
    for slot in flow.rng.sample(range(len(loader["outputs"])), 2):
        reader = flow.add("PreviewAny", [("source", "*")], [], [])
        flow.wire(loader, slot, reader, "source")


def random_workflow(seed):
    """The workflow of this number."""
    flow = Workflow(random.Random(seed))
    loader, vae, decoder, name, latents = (with_pipe if seed % 3 else with_scheduler)(flow)
    for origin in latents:
        if flow.rng.random() < 0.7:
            made = flow.theirs(decoder)
            flow.wire(loader, vae, made, "vae")
            flow.wire(origin, 0, made, name)
            save = flow.add("SaveImage", [("images", "IMAGE")], [], ["old"])
            flow.wire(made, 0, save, "images")
        if flow.rng.random() < 0.3:
            read = flow.add("LatentUpscale", [("samples", "LATENT")], [("LATENT", "LATENT")],
                            ["nearest-exact", 64, 64, "disabled"])  # fmt: skip
            flow.wire(origin, 0, read, "samples")
    return flow.saved()
