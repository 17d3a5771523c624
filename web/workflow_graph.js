// A saved workflow as a graph: its nodes, and links whose two ends agree whatever is done to them.

export const MUTED = 2
export const BYPASSED = 4
// Nodes of the page alone that hand on what they get; those that do it by a name have no wire between them.
const THROUGH = new Set(['Reroute', 'Reroute (rgthree)', 'ReroutePrimitive|pysssss'])
const SET = { SetNode: 'GetNode', 'easy setNode': 'easy getNode' }
const GET = Object.fromEntries(Object.entries(SET).map(([set, get]) => [get, set]))
// Nodes that are nothing but a value.
const VALUES = /^Primitive(Node|Int|Float|String|StringMultiline|Boolean)$/

export const isOff = (node) => node.mode === MUTED || node.mode === BYPASSED
export const passesOn = (node) => THROUGH.has(node.type) || node.type in SET || node.type in GET
export const isValue = (node) => VALUES.test(node.type)
export const inputOf = (node, name) => node.inputs?.find((input) => input.name === name)

const kinds = (type) => (Array.isArray(type) ? ['COMBO'] : String(type ?? '*').toUpperCase().split(','))
// Whether the page lets an output of one type into an input of the other.
export const fits = (one, other) => {
  const [left, right] = [kinds(one), kinds(other)]
  const any = (kind) => !kind || kind === '*' || kind === '0'
  return left.some((kind) => any(kind) || right.includes(kind)) || right.some(any)
}

// Files have links as [id, origin, slot, target, slot, type], with what else belongs to them in `extra`, or as objects.
const asArray = (link) => [link.id, link.from.id, link.slot, link.to.id, link.to.inputs.indexOf(link.input), link.type]
const asObject = (link) => ({
  ...link.more,
  id: link.id,
  origin_id: link.from.id,
  origin_slot: link.slot,
  target_id: link.to.id,
  target_slot: link.to.inputs.indexOf(link.input),
  type: link.type,
})
function read(link) {
  if (!Array.isArray(link)) {
    const { id, origin_id: from, origin_slot: slot, target_id: to, target_slot: place, type } = link
    return { id, from, slot, to, place, type, more: link }
  }
  const [id, from, slot, to, place, type] = link
  return { id, from, slot, to, place, type }
}

export class WorkflowGraph {
  constructor(workflow) {
    this.workflow = workflow
    this.nodes = new Map(workflow.nodes.map((node) => [String(node.id), node]))
    this.links = new Map() // id → {id, from, slot, to, input, type}
    this.byInput = new Map()
    this.gone = new Set() // ids of nodes that were taken out
    this.arrays = (workflow.links ?? []).every(Array.isArray)
    this.nodeId = Math.max(0, ...workflow.nodes.map((node) => Number(node.id) || 0))
    this.linkId = 0
    for (const saved of (workflow.links ?? []).map(read)) {
      this.linkId = Math.max(this.linkId, Number(saved.id) || 0)
      const [from, to] = [this.nodes.get(String(saved.from)), this.nodes.get(String(saved.to))]
      const holds = (input) => input?.link === saved.id
      const input = holds(to?.inputs?.[saved.place]) ? to.inputs[saved.place] : to?.inputs?.find(holds)
      if (from && input && !this.links.has(saved.id)) this.keep({ ...saved, from, to, input })
    }
    this.hadReaders = new Set([...this.nodes.values()].filter((node) => passesOn(node) && this.readers(node).length))
  }

  keep(link) {
    this.links.set(link.id, link)
    this.byInput.set(link.input, link)
  }

  add(node) {
    this.nodes.set(String(node.id), node)
  }

  // Takes `node` out, with what still leads to and from it.
  remove(node) {
    for (const link of [...this.into(node), ...this.outOf(node)]) this.drop(link)
    this.nodes.delete(String(node.id))
    this.gone.add(String(node.id))
  }

  into(node) {
    return [...this.links.values()].filter((link) => link.to === node)
  }

  outOf(node, slot) {
    return [...this.links.values()].filter((link) => link.from === node && (slot === undefined || link.slot === slot))
  }

  wire(node, name) {
    return this.byInput.get(inputOf(node, name))
  }

  drop(link) {
    this.links.delete(link.id)
    this.byInput.delete(link.input)
  }

  connect([from, slot], to, name) {
    const input = inputOf(to, name)
    if (this.byInput.has(input)) this.drop(this.byInput.get(input))
    const type = from.outputs?.[slot]?.type ?? input.type
    this.keep({ id: ++this.linkId, from, slot, to, input, type })
  }

  // Lets a link end elsewhere; it keeps its number, and with it the points it is drawn through.
  lead(link, to, name) {
    this.drop(link)
    this.keep(Object.assign(link, { to, input: inputOf(to, name) }))
  }

  // Lets a link begin elsewhere.
  begin(link, [from, slot]) {
    Object.assign(link, { from, slot })
  }

  // The link that a node which only hands on gets its value from.
  before(node) {
    if (!(node.type in GET)) return node.inputs?.map((input) => this.byInput.get(input)).find(Boolean)
    const is = (each) => each.type === GET[node.type] && each.widgets_values?.[0] === node.widgets_values?.[0]
    const set = [...this.nodes.values()].find(is)
    return set && this.before(set)
  }

  // The nodes that read one which only hands on.
  readers(node) {
    const named = (each) => each.type === SET[node.type] && each.widgets_values?.[0] === node.widgets_values?.[0]
    const byName = node.type in SET ? [...this.nodes.values()].filter(named) : []
    return [...this.outOf(node).map((link) => link.to), ...byName]
  }

  // Where the value of a link comes from in a run: {node, slot, on}, past nodes that hand on and bypassed ones, by the
  // page's own rule for these. `on` is false where that node is switched off; null where the wire begins nowhere.
  source(link) {
    let type = link.input.type
    const seen = new Set()
    while (link && !seen.has(link)) {
      seen.add(link)
      const { from: node, slot } = link
      if (passesOn(node)) {
        link = this.before(node)
        continue
      }
      const next = node.mode === BYPASSED ? this.byInput.get(bypass(node, slot, type)) : null
      if (!next) return { node, slot, on: !isOff(node) }
      link = next
      type = next.input.type
    }
    return null
  }

  // The links that end at other nodes than those which only hand on, from `link` onwards.
  ends(link, seen = new Set()) {
    if (seen.has(link)) return []
    seen.add(link)
    if (!passesOn(link.to)) return [link]
    const through = [link.to, ...this.readers(link.to).filter((node) => node.type in GET)]
    return through.flatMap((node) => this.outOf(node)).flatMap((next) => this.ends(next, seen))
  }

  // Takes out what handed on and has nobody left to hand it to.
  tidy() {
    for (let again = true; again; ) {
      again = false
      for (const node of this.hadReaders) {
        if (this.readers(node).length) continue
        this.hadReaders.delete(node)
        this.remove(node)
        again = true
      }
    }
  }

  // Writes nodes and links back into the workflow.
  write() {
    const { workflow } = this
    workflow.nodes = [...this.nodes.values()]
    for (const node of workflow.nodes) {
      for (const input of node.inputs ?? []) {
        const link = this.byInput.get(input)
        if (link || input.link !== undefined) input.link = link?.id ?? null
      }
      node.outputs?.forEach((output, slot) => {
        const ids = this.outOf(node, slot).map((link) => link.id)
        const before = (output.links ?? []).filter((id) => ids.includes(id))
        if (ids.length || output.links) output.links = [...new Set([...before, ...ids])]
      })
    }
    workflow.links = [...this.links.values()].map(this.arrays ? asArray : asObject)
    const ids = workflow.version === 0.4 || !workflow.state ? workflow : workflow.state
    const [node, link] = ids === workflow ? ['last_node_id', 'last_link_id'] : ['lastNodeId', 'lastLinkId']
    ids[node] = Math.max(Number(ids[node]) || 0, this.nodeId)
    ids[link] = Math.max(Number(ids[link]) || 0, this.linkId)
    this.writePoints()
  }

  // The points that wires are drawn through, of links that are still there.
  writePoints() {
    const { workflow } = this
    const holder = workflow.reroutes ? workflow : (workflow.extra ?? {})
    if (holder.linkExtensions) holder.linkExtensions = holder.linkExtensions.filter(({ id }) => this.links.has(id))
    if (workflow.floatingLinks) {
      const there = (id) => !this.gone.has(String(id))
      workflow.floatingLinks = workflow.floatingLinks.filter((link) => there(link.origin_id) && there(link.target_id))
    }
    if (!holder.reroutes) return
    const points = new Map(holder.reroutes.map((point) => [point.id, point]))
    const loose = new Set()
    for (const { parentId } of workflow.floatingLinks ?? []) {
      for (let at = points.get(parentId); at && !loose.has(at); at = points.get(at.parentId)) loose.add(at)
    }
    for (const point of points.values()) point.linkIds = point.linkIds?.filter((id) => this.links.has(id))
    holder.reroutes = [...points.values()].filter((point) => point.linkIds?.length || loose.has(point))
    const kept = new Set(holder.reroutes.map((point) => point.id))
    for (const point of holder.reroutes) if (!kept.has(point.parentId)) delete point.parentId
  }
}

// The input whose value a bypassed node hands to an output that is read as `type`.
function bypass(node, slot, type) {
  const inputs = node.inputs ?? []
  if (type === '*' || type === '') return inputs[slot] ?? inputs[0]
  const given = node.outputs?.[slot]?.type
  const right = (input) => fits(input.type, given) && fits(input.type, type)
  if (inputs[slot] && right(inputs[slot])) return inputs[slot]
  return inputs.find((input) => input.type === type) ?? inputs.find(right)
}
