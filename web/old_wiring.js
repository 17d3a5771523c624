// What the translation of a workflow does with nodes and wires, whichever node it is at.

import { keepLooks, newNode } from './old_looks.js'
import { Losses } from './old_losses.js'
import { Widgets, isOld } from './old_nodes.js'
import { WorkflowGraph, fits, inputOf, isValue } from './workflow_graph.js'

export class Wiring {
  constructor(workflow) {
    this.graph = new WorkflowGraph(workflow)
    this.old = workflow.nodes.filter(isOld)
    this.ids = new Set(this.old.map((node) => node.id))
    this.groups = (workflow.groups ?? []).filter((group) => group.bounding)
    this.parts = new Map() // their loader → what became of it
    this.places = new Map() // node of theirs → for each of its outputs [node, slot] of ours, or null
    this.keyframes = new Map() // their encoder → keyframes that pin its picture
    this.made = [] // [node of ours, node of theirs that it stands for]
    this.losses = new Losses()
  }

  // What feeds an input of theirs in a run: {node, slot, on}; undefined without a wire, null where it begins nowhere.
  source(node, name) {
    return this.sources.get(this.graph.wire(node, name))
  }

  loaderOf(node, ...names) {
    const found = names.map((name) => this.source(node, name)?.node).find((origin) => this.parts.has(origin))
    return this.parts.get(found)
  }

  widgets(node) {
    const missing = (input, value) => this.losses.value(node, input, value)
    return new Widgets(node, (name) => this.source(node, name), missing)
  }

  // One of our nodes with these values, for `node` of theirs.
  make(type, node, values, { mode = node.mode ?? 0, title } = {}) {
    const made = newNode(type, values)
    made.id = this.ids.delete(node.id) ? node.id : ++this.graph.nodeId
    made.mode = mode
    made.order = node.order
    keepLooks(made, node, title)
    this.made.push([made, node])
    return made
  }

  connect(place, made, name) {
    if (place && inputOf(made, name)) this.graph.connect(place, made, name)
  }

  // Leads the wire into an input of theirs to these of ours, [[node, input], …]; says whether there is one.
  lead(node, name, ...targets) {
    const link = this.graph.wire(node, name)
    if (!link) return false
    if (this.sources.get(link) === null) this.losses.loose(node, name)
    const [first, ...others] = targets
    for (const [made, input] of others) this.graph.connect([link.from, link.slot], made, input)
    this.graph.lead(link, ...first)
    return true
  }

  // The same for a widget of theirs, where one of ours stands for it.
  leadWidget(node, name, ...targets) {
    const link = this.graph.wire(node, name)
    const source = this.sources.get(link)
    if (!link || !source) return
    const type = source.node.outputs?.[source.slot]?.type ?? link.type
    const taken = targets.filter(([made, input]) => fits(type, inputOf(made, input)?.type ?? 'nothing'))
    const gone = this.parts.has(source.node) && !this.places.get(source.node)?.[source.slot]
    if (!taken.length || gone) return
    // What is nothing but a value acts on the widget that it is wired to itself.
    if (isValue(source.node)) this.graph.begin(link, [source.node, source.slot])
    this.lead(node, name, ...taken)
  }

  // Each widget of theirs to one of ours, {widget: [node, input]}.
  leadWidgets(node, targets) {
    for (const [name, target] of Object.entries(targets)) this.leadWidget(node, name, target)
  }

  // A wire whose meaning ours have without it.
  absorb(node, name) {
    const link = this.graph.wire(node, name)
    if (link) this.graph.drop(link)
  }
}
