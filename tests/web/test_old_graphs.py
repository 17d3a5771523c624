"""Random workflows of the other Open-Sora packs: nothing dangles, nothing is null, no wire is lost without a word."""

import json

import pytest
from old_graphs import OLD_TYPES, random_workflow

CASES = 300
SHOWN = 20  # of these one is also opened in the editor

# In and out as text: Playwright takes values apart one by one, seconds of it.
TRANSLATE = """async (text) => {
    const { translate } = await import('/extensions/opensora_comfy/old_workflows.js');
    const widgets = {};
    const after = JSON.parse(text).map((workflow) => {
        const { lost } = translate(workflow);
        return { workflow, lost };
    });
    for (const { workflow } of after)
        for (const { type } of workflow.nodes)
            if (type.startsWith('OpenSora'))
                widgets[type] ??= LiteGraph.createNode(type).serialize().widgets_values ?? [];
    return JSON.stringify({ after, widgets });
}"""
OPEN = """async (workflows) => {
    const seen = [];
    for (const workflow of workflows) {
        await app.loadGraphData(workflow, true, true, 'old');
        const { output } = await app.graphToPrompt();
        const dangling = Object.values(output).flatMap(({ inputs }) => Object.values(inputs)
            .filter((value) => Array.isArray(value) && !(value[0] in output)));
        const ours = app.graph.nodes.filter((node) => node.type.startsWith('OpenSora'));
        const nothing = ({ value }) => (value ?? null) === null || value !== value;
        const empty = ours.flatMap((node) => node.widgets.filter(nothing)
            .map((widget) => `${node.type}.${widget.name}`));
        const links = app.graph.links.size ?? Object.keys(app.graph.links).length;
        seen.push({ dangling, empty, links, types: Object.values(output).map((node) => node.class_type) });
    }
    return seen;
}"""
# Inputs of theirs and ours; where a node of theirs is several of ours, the ones on the way to it.
INPUTS = {
    "OpenSoraLoader": {
        "ckpt_path": "model_name", "custom_checkpoint": "model_name", "custom_clip": "text_encoder_name",
        "custom_vae": "vae_name",
        "duration": "duration", "resolution": "resolution",
    },
    "OpenSoraTextEncoder": {
        "text_encoder": "clip", "positive_prompt": "prompt", "camera_motion": "camera_motion",
        "aesthetic_score": "aesthetic_score",
    },
    "OpenSoraEncoder": {"vae": "vae", "image": "image pixels"},
    "OpenSoraDecoder": {"vae": "vae", "latents": "samples"},
    "OpenSoraRun": {"vae": "vae", "samples": "samples"},
    "OpenSoraSampler": {
        "model": "model", "text_encoder": "positive.clip", "vae": "latent.vae", "prompt": "positive.prompt",
        "num_frames": "latent.frames", "width": "latent.height", "height": "latent.width", "seed": "seed",
        "steps": "steps", "guidance": "cfg", "positive": "positive", "negative": "negative",
    },
}  # fmt: skip
OURS = {
    "OpenSoraLoader": {"OpenSoraLoadModel", "OpenSoraLoadTextEncoder", "OpenSoraLoadVAE", "OpenSoraEmptyLatent"},
    "OpenSoraTextEncoder": {"OpenSoraTextEncode", "OpenSoraNullPrompt"},
    "OpenSoraEncoder": {"OpenSoraVAEEncode"},
    "OpenSoraSampler": {"OpenSoraSampler"},
    "OpenSoraDecoder": {"OpenSoraVAEDecode"},
    "OpenSoraRun": {"OpenSoraVAEDecode"},
}


class Graph:
    """A saved workflow, read as the page reads it."""

    def __init__(self, workflow):
        self.nodes = {node["id"]: node for node in workflow["nodes"]}
        self.list = [link if isinstance(link, list) else [link[name] for name in NAMES] for link in workflow["links"]]
        self.links = {link[0]: link for link in self.list}

    def wire(self, node, name):
        """The link into an input, None where it is not connected or its link is not in the file."""
        entry = next((entry for entry in node["inputs"] if entry["name"] == name), None)
        return entry and self.links.get(entry["link"])

    def begins(self, number):
        """Whether a link is in the file, and its origin too."""
        return number in self.links and self.links[number][1] in self.nodes

    def source(self, link):
        """(node, slot, whether it runs) behind reroutes and bypassed nodes; None where a wire begins nowhere."""
        while link and (node := self.nodes.get(link[1])):
            if node["type"] == "Reroute":
                link = self.wire(node, "")
                continue
            type_ = node["outputs"][link[2]]["type"]
            same = [entry for entry in node["inputs"] if entry["type"] == type_ and self.begins(entry["link"])]
            if node["mode"] != 4 or not same:
                return node, link[2], node["mode"] == 0
            link = self.links[same[0]["link"]]
        return None


NAMES = ["id", "origin_id", "origin_slot", "target_id", "target_slot", "type"]


def label(node):
    return f"{node.get('title') or node['type']} ({node['id']})"


def is_old(node):
    inputs = {entry["name"] for entry in node["inputs"]}
    return node["type"] in OLD_TYPES and (node["type"] != "OpenSoraSampler" or bool(inputs & {"pipe", "scheduler"}))


def faults_of_form(workflow, widgets):
    """What is wrong with nodes and links for themselves."""
    graph = Graph(workflow)
    if len(graph.links) < len(graph.list) or len(graph.nodes) < len(workflow["nodes"]):
        yield "ids are used twice"
    for number, origin, slot, target, place, type_ in graph.list:
        ends = graph.nodes.get(origin), graph.nodes.get(target)
        if None in ends:
            yield f"link {number} has an end that is no node"
            continue
        output, entry = ends[0]["outputs"][slot], ends[1]["inputs"][place]
        if number not in (output["links"] or []) or entry["link"] != number:
            yield f"link {number} is not known to both of its ends"
        kinds = {output["type"], entry["type"], type_} - {"*"}
        if len(kinds) > 1:
            yield f"link {number} joins {sorted(kinds)}"
    for node in graph.nodes.values():
        ids = [entry["link"] for entry in node["inputs"]] + [
            each for output in node["outputs"] for each in output["links"] or []
        ]
        if any(each is not None and each not in graph.links for each in ids):
            yield f"{label(node)} has a link that is not there"
        if is_old(node):
            yield f"{label(node)} is theirs"
        for value, like in zip(node.get("widgets_values") or [], widgets.get(node["type"], []), strict=False):
            kinds = (int, float) if type(like) in (int, float) else type(like)
            if not isinstance(value, kinds) or value != value:
                yield f"{label(node)} has {value!r} where {like!r} was"
    points = {**(workflow["extra"] or {}), **workflow}
    for point in points.get("reroutes", []):
        if not set(point["linkIds"]) <= set(graph.links):
            yield f"point {point['id']} is on a link that is not there"
    if not {each["id"] for each in points.get("linkExtensions", [])} <= set(graph.links):
        yield "an extension is of a link that is not there"


def faults_of_wires(before, after, lost):
    """Wires that neither lead from what they came from to what stands for their node, nor are named."""
    old, new = Graph(before), Graph(after)
    for node in before["nodes"]:
        for entry in node["inputs"]:
            if entry["link"] is None or node["type"] == "Reroute":
                continue
            link = old.links.get(entry["link"])
            source = old.source(link) if link else None
            if not is_old(node) and (source is None or not is_old(source[0])):
                if source and new.source(new.wire(new.nodes[node["id"]], entry["name"])) is None:
                    yield f"{label(node)}.{entry['name']} of others is gone"
                continue
            words = [sentence for sentence in lost if label(node) in sentence]
            named = any(entry["name"] in each or "prompt has no words" in each for each in words)
            if not named and not (source and carried(old, new, node, entry["name"], source)):
                yield f"{label(node)}.{entry['name']} from {source and label(source[0])} is lost"


def carried(old, new, node, name, source):
    """Whether the wire's meaning is there: a wire of ours, or what replaces it."""
    origin, slot, _ = source
    kind = origin["type"]
    if kind == "OpenSoraLoader" and (name in ("pipe", "scheduler") or (name, slot) in (("steps", 1), ("guidance", 2))):
        return True
    if name == "negative" and kind == "OpenSoraTextEncoder" and slot == 1 and not negative_words(old, origin):
        return True
    if name == "reference" and kind == "OpenSoraEncoder":
        return any(each["type"] == "OpenSoraKeyframe" for each in latents(new, node["id"]))
    if name == "num_sampling_steps":
        return any(comes_from(new, each, "steps", source) for each in new.nodes.values())
    if name == "negative_prompt":
        return any(comes_from(new, each, "prompt", source) for each in new.nodes.values())
    if name in ("duration", "resolution", "custom_clip", "custom_vae"):
        mine = INPUTS[node["type"]][name]
        return any(comes_from(new, each, mine, source) for each in new.nodes.values())
    if not is_old(node):
        return comes_from(new, new.nodes[node["id"]], name, source)
    *way, mine = INPUTS[node["type"]].get(name, "nothing").split(".")
    ours = new.nodes[node["id"]]
    for step in way:
        ours = new.nodes[new.wire(ours, step)[1]]
    if not source[2] and (found := new.source(new.wire(ours, mine.split()[0]))):
        return not found[2]  # what was switched off still is
    return any(comes_from(new, ours, each, source) for each in mine.split())


def negative_words(old, text):
    """Whether their text encoder has a negative prompt."""
    values = text["widgets_values"]
    words = values.get("negative_prompt") if isinstance(values, dict) else [*values, None, None][1]
    return isinstance(words, str) and words or old.wire(text, "negative_prompt")


def latents(new, number):
    """The nodes on the way to a sampler's latent."""
    node = new.nodes[number]
    while link := new.wire(node, "latent"):
        node = new.nodes[link[1]]
        yield node


def comes_from(new, ours, name, source):
    link = new.wire(ours, name)
    found = new.source(link) if link else None
    if not found:
        return False
    origin = source[0]
    return found[0]["type"] in OURS[origin["type"]] if is_old(origin) else found[0]["id"] == origin["id"]


def faults_of_meaning(before, after):
    """Pictures that are pinned though theirs were not, or the other way round; nodes that were switched on or off."""
    old, new = Graph(before), Graph(after)
    for node in filter(is_old, before["nodes"]):
        ours = new.nodes[node["id"]]
        if ours["type"] == "OpenSoraSampler" and node["mode"] == 0 and (wire := old.wire(node, "pipe")):
            pipe, reference = old.source(wire), old.source(old.wire(node, "reference"))
            wanted = bool(reference and reference[2] and reference[0]["type"] == "OpenSoraEncoder")
            if pipe and pipe[0]["type"] == "OpenSoraLoader":
                latent = new.source(new.wire(ours, "latent"))
                if wanted != (latent and latent[0]["type"] == "OpenSoraKeyframe"):
                    yield f"{label(node)}: pinned is {not wanted}"
        if (node["mode"] == 0) != (ours["mode"] == 0) and ours["type"] != "OpenSoraKeyframe":
            yield f"{label(node)} has mode {ours['mode']}"
        for key in ("title", "color", "bgcolor", "flags"):
            if node.get(key) and {**node, **ours}[key] != node[key]:
                yield f"{label(node)} has lost its {key}"
        for group, grown in zip(before["groups"], after["groups"], strict=True):
            if middle_in(node, group) and not middle_in(ours, grown):
                yield f"{label(node)} has left {group['title']}"


def middle_in(node, group):
    x, y, width, height = group["bounding"]
    left, top = node["pos"]
    wide, high = node["size"]
    return x <= left + wide / 2 < x + width and y <= top + (high - 30) / 2 < y + height


@pytest.mark.browser
@pytest.mark.timeout(600)
def test_random_workflows(each_page):
    """Each is translated; some are opened too and asked for their prompt."""
    before = [random_workflow(seed) for seed in range(CASES)]
    answer = json.loads(each_page.page.evaluate(TRANSLATE, json.dumps(before)))
    faults = [
        f"{seed}: {fault}"
        for seed, (theirs, ours) in enumerate(zip(before, answer["after"], strict=True))
        for fault in (
            *faults_of_form(ours["workflow"], answer["widgets"]),
            *faults_of_wires(theirs, ours["workflow"], ours["lost"]),
            *faults_of_meaning(theirs, ours["workflow"]),
        )
    ]
    assert faults == [], "\n".join(faults)
    opened = before[::SHOWN]
    for seed, seen in zip(range(0, CASES, SHOWN), each_page.page.evaluate(OPEN, opened), strict=True):
        assert seen["dangling"] == [] and seen["empty"] == [] and seen["types"], seed
        assert len(answer["after"][seed]["workflow"]["links"]) == seen["links"], seed
        assert not set(seen["types"]) & (OLD_TYPES - {"OpenSoraSampler"}), seed
