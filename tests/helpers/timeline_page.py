"""A graph on ComfyUI's canvas, and the drawn timeline of its Open-Sora Timeline driven by mouse and keyboard."""

import json

from browser import DRAWN, rest


class GraphPage:
    """A ComfyPage with an API graph put onto its canvas; `looked_at` is the kind of node in view."""

    looked_at = ""

    def __init__(self, comfy_page, nodes, looked_at=None):
        self.page = comfy_page.page
        self.looked_at = looked_at or self.looked_at
        self.build(nodes)

    def build(self, nodes):
        """Make the graph's nodes and links, as one state that undo can come back to."""
        self.page.evaluate(
            """async (nodes) => {
                app.graph.clear();
                const made = {};
                for (const [key, { class_type, inputs }] of Object.entries(nodes)) {
                    const node = made[key] = LiteGraph.createNode(class_type);
                    node.pos = [700 * Number(key), 0];
                    app.graph.add(node);
                    for (const [name, value] of Object.entries(inputs)) {
                        const widget = node.widgets?.find((widget) => widget.name === name);
                        if (widget) widget.value = value;
                    }
                }
                for (const [key, { inputs }] of Object.entries(nodes))
                    for (const [name, value] of Object.entries(inputs))
                        if (Array.isArray(value))
                            made[value[0]].connect(value[1], made[key], made[key].findInputSlot(name));
                for (const node of app.graph.nodes) if (node.type === 'OpenSoraSampler')
                    node.widgets.find((widget) => widget.name === 'control_after_generate').value = 'fixed';
                // Loading settles sizes and order, as for any workflow that was opened: undo then has nothing else to do.
                await app.loadGraphData(app.graph.serialize(), true, true, 'test');
            }""",
            nodes,
        )
        self.show()

    def show(self, kind=None):
        """Bring the node of that kind into view at 100 %."""
        self.page.evaluate(
            """(kind) => {
                const node = app.graph.nodes.find((node) => node.type === kind);
                app.canvas.ds.scale = 1;
                app.canvas.ds.offset = [260 - node.pos[0], 160 - node.pos[1]];
                app.canvas.setDirty(true, true);
            }""",
            kind or self.looked_at,
        )
        rest(self.page)

    def set_widget(self, kind, name, value):
        """Set a widget of the node of that kind from outside, as another extension would."""
        self.page.evaluate(
            """([kind, name, value]) => {
                const node = app.graph.nodes.find((node) => node.type === kind);
                node.widgets.find((widget) => widget.name === name).value = value;
                app.canvas.setDirty(true, true);
            }""",
            [kind, name, value],
        )
        rest(self.page)


class Timeline(GraphPage):
    """The only timeline node of a page, driven with the real mouse and keyboard."""

    looked_at = "OpenSoraTimeline"
    root = ".opensora-timeline:visible"  # a widget that was promoted is drawn on the node within, unseen, too

    def text(self):
        """What is saved and sent."""
        return self.page.evaluate(
            "app.graph.nodes.find((n) => n.type === 'OpenSoraTimeline').widgets.find((w) => w.name === 'timeline').value"
        )

    def keyframes(self):
        """[(image, frame, strength), …] as saved."""
        return [(k["image"], k["frame"], k.get("strength", 1)) for k in json.loads(self.text())["keyframes"]]

    def middle(self, selector, index=0):
        box = self.page.locator(f"{self.root} {selector}").nth(index).bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def drag(self, start, end):
        """Press, move in steps, let go; both are points on the screen."""
        self.page.mouse.move(*start)
        self.page.mouse.down()
        for part in (0.3, 0.7, 1.0):
            self.page.mouse.move(*(a + part * (b - a) for a, b in zip(start, end)))
        self.page.mouse.up()
        rest(self.page, DRAWN)

    def block(self, frame):
        """The middle of the group of frames that begins with `frame`."""
        blocks = self.page.locator(f"{self.root} .os-block")
        names = blocks.evaluate_all("(all) => all.map((one) => one.title.split(' ')[1])")
        return self.middle(".os-block", [int(name.split("–")[0]) for name in names].index(frame))

    def pin(self, image, frame):
        """Drag picture `image` from the tray onto the group that begins with `frame`."""
        self.drag(self.middle(".os-card", image - 1), self.block(frame))

    def move(self, index, frame):
        """Drag keyframe `index` to the group that begins with `frame`."""
        x, y = self.middle(".os-thumb", index)
        now = self.middle(".os-hold", index)[0]
        self.drag((x, y), (x + self.block(frame)[0] - now, y))

    def click(self, index, *held):
        """Click keyframe `index` while keys are held down."""
        for key in held:
            self.page.keyboard.down(key)
        self.page.mouse.click(*self.middle(".os-thumb", index))
        for key in held:
            self.page.keyboard.up(key)

    def selected(self):
        """The selected keyframes by index."""
        return self.page.locator(".os-key.os-selected .os-thumb").evaluate_all(
            "(all) => all.map((one) => Number(one.dataset.index))"
        )

    def shown(self):
        """(first, last) frame that the track shows."""
        words = self.page.locator(".os-bar-thumb").get_attribute("aria-valuetext").split()
        return int(words[1]), int(words[3])

    def notice(self):
        """What the editor told last."""
        return self.page.locator(".os-notice").inner_text()

    def count(self):
        """How many nodes the graph has."""
        return self.page.evaluate("app.graph.nodes.length")

    def steps(self):
        """How many steps the page's undo could go back."""
        return self.page.evaluate("app.extensionManager.workflow.activeWorkflow.changeTracker.undoQueue.length")

    def renderer(self, vue):
        """Switch between the canvas's nodes and the page's Vue nodes."""
        self.page.evaluate("(on) => app.ui.settings.setSettingValue('Comfy.VueNodes.Enabled', on)", vue)
        self.page.wait_for_function("(on) => Boolean(LiteGraph.vueNodesMode) === on", arg=vue)

    def drop(self, point, *files, kinds=("dragenter", "dragover", "drop")):
        """Drop files, (name, type, bytes), on what is at a point of the screen, as a file manager does."""
        self.page.evaluate(
            """([[x, y], files, kinds]) => {
                const dataTransfer = new DataTransfer();
                for (const [name, type, bytes] of files)
                    dataTransfer.items.add(new File([Uint8Array.from(bytes)], name, { type }));
                const target = document.elementFromPoint(x, y);
                const about = { bubbles: true, cancelable: true, composed: true, clientX: x, clientY: y, dataTransfer };
                for (const kind of kinds) target.dispatchEvent(new DragEvent(kind, about));
            }""",
            [point, [[name, kind, list(data)] for name, kind, data in files], kinds],
        )

    def key(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)
            rest(self.page, DRAWN)

    def undo_key(self, key):
        """A key that makes the page load another state of the graph."""
        self.page.keyboard.press(key)
        rest(self.page)
