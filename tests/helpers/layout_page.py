"""Where the nodes and groups of the open graph are, measured in the page, in graph units; in both of its renderers."""

# Names and boxes [x, y, width, height] of all nodes, title included; of the groups; the zoom.
MEASURE = """(vue) => {
    const { scale, offset } = app.canvas.ds;
    const origin = app.canvas.canvas.getBoundingClientRect();
    const drawn = (node) => {
        const box = document.querySelector(`[data-node-id="${node.id}"]`).getBoundingClientRect();
        return [(box.x - origin.x) / scale - offset[0], (box.y - origin.y) / scale - offset[1],
                box.width / scale, box.height / scale];
    };
    const title = LiteGraph.NODE_TITLE_HEIGHT;
    const painted = (node) => [node.pos[0], node.pos[1] - title, node.size[0], node.size[1] + title];
    return {
        nodes: app.graph.nodes.map((node) => [node.title, vue ? drawn(node) : painted(node)]),
        groups: app.graph.groups.map((group) => [group.title, [...group.pos, ...group.size]]),
        scale,
    };
}"""
READY = """(ids) => ids.every((id) => document.querySelector(`[data-node-id="${id}"]`)?.getBoundingClientRect().height > 30)"""
# By how much nodes of ComfyUI's own are taller in 0.33: by a widget, and by two outputs.
TALLER = {"CreateVideo": 26, "GetVideoComponents": 40}


def draw(page, vue):
    """Turn one of the renderers on; it stays on."""
    if vue != page.page.evaluate("() => Boolean(LiteGraph.vueNodesMode)"):
        setting = "(value) => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', value)"
        page.page.evaluate(setting, vue)


def measure(page, vue=False):
    """{"nodes": [(title, box)], "groups": [(title, box)], "scale": zoom} in one of the renderers."""
    inner = page.page
    draw(page, vue)
    if vue:
        inner.wait_for_function(READY, arg=inner.evaluate("() => app.graph.nodes.map((node) => node.id)"))
    page.rest()  # previews and players take their place
    return inner.evaluate(MEASURE, vue)


def overlapping(nodes):
    """Pairs of titles whose boxes share more than a line."""
    pairs = []
    for index, (one, (x, y, width, height)) in enumerate(nodes):
        for other, (left, top, wide, high) in nodes[index + 1 :]:
            if min(x + width, left + wide) - max(x, left) > 1 and min(y + height, top + high) - max(y, top) > 1:
                pairs.append((one, other))
    return pairs


def sticking_out(nodes, groups):
    """Titles of nodes that lie in a group in part."""
    found = []
    for title, (x, y, width, height) in nodes:
        for _, (left, top, wide, high) in groups:
            across, down = min(x + width, left + wide) - max(x, left), min(y + height, top + high) - max(y, top)
            if across > 1 and down > 1 and (across < width - 1 or down < height - 1):
                found.append(title)
    return found


def extent(boxes):
    """(width, height) of what all boxes cover."""
    lefts, tops, wide, high = zip(*boxes)
    right = max(x + w for x, w in zip(lefts, wide))
    return right - min(lefts), max(y + h for y, h in zip(tops, high)) - min(tops)
