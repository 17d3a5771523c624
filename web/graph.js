// What the graph around a node says: where an input comes from, the clip's length, pictures, the last run, undo steps.

import { app } from '../../scripts/app.js'

// These nodes change a clip's length: what stands before them says nothing about what comes after.
const CHANGE_LENGTH = new Set(['OpenSoraExtend', 'OpenSoraConnect', 'OpenSoraLoop'])
const DURATIONS = { '2s': 51, '4s': 102, '8s': 204, '16s': 408, '32s': 816 }
const FAR = 100 // nodes

export const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name)

// Reroutes and the borders of subgraphs are seen through: {node, slot} that feeds the input, or null.
export function source(node, inputName) {
  return follow(node.graph, node.inputs?.find((input) => input.name === inputName)?.link)
}

function linkOf(graph, id) {
  if (id === null || id === undefined || !graph) return null
  return graph.getLink?.(id) ?? graph.links?.get?.(id) ?? graph.links?.[id] ?? null
}

function follow(graph, linkId) {
  for (let steps = 0; steps < FAR; steps++) {
    const link = linkOf(graph, linkId)
    if (!link) return null
    const origin = graph.getNodeById(link.origin_id)
    if (!origin) {
      const host = hostOf(graph)
      if (!host) return null
      linkId = host.inputs?.[link.origin_slot]?.link
      graph = host.graph
    } else if (origin.subgraph) {
      linkId = origin.subgraph.outputs?.[link.origin_slot]?.linkIds?.[0]
      graph = origin.subgraph
    } else if (origin.type === 'Reroute' || origin.mode === 4) {
      const kind = origin.outputs?.[link.origin_slot]?.type
      const way = origin.inputs?.find((input) => origin.type === 'Reroute' || input.type === kind)
      linkId = way?.link
    } else return { node: origin, slot: link.origin_slot }
  }
  return null
}

// The subgraph nodes that an editor stands on, as long as it looks: one subgraph may stand on the canvas several times.
let standing = []

// What `look` returns, with the borders of subgraphs crossed at these nodes where there is a choice.
export function within(hosts, look) {
  const before = standing
  standing = hosts
  try {
    return look()
  } finally {
    standing = before
  }
}

function hostOf(graph) {
  const known = standing.find((host) => host.subgraph === graph)
  if (known) return known
  const root = app.rootGraph ?? app.graph?.rootGraph ?? app.graph
  const search = (inside) => {
    for (const node of inside?.nodes ?? []) {
      if (node.subgraph === graph) return node
      const found = node.subgraph && search(node.subgraph)
      if (found) return found
    }
    return null
  }
  return search(root)
}

// The ids that a run gives to the node: "3", or "7:3" in the subgraph of node 7; one for each place where it stands.
export function executionIds(node) {
  const root = app.rootGraph ?? app.graph?.rootGraph ?? app.graph
  const within = (graph, before) =>
    (graph?.nodes ?? []).flatMap((each) => {
      const id = `${before}${each.id}`
      return each === node ? [id] : each.subgraph ? within(each.subgraph, `${id}:`) : []
    })
  return within(root, '')
}

// The value of a widget, or of what feeds it: a primitive, or the widget that a subgraph shows in its place; undefined
// where only a run can tell.
export function valueOf(node, name) {
  const widget = widgetOf(node, name)
  const link = linkOf(node.graph, node.inputs?.find((input) => input.name === name)?.link)
  if (!link) return widget?.value
  const host = node.graph.getNodeById(link.origin_id) ? null : hostOf(node.graph)
  if (host) return valueOf(host, host.inputs?.[link.origin_slot]?.name)
  const origin = source(node, name)?.node
  return origin?.type === 'PrimitiveNode' ? widget?.value : (origin && widgetOf(origin, 'value')?.value)
}

// {frames, fps} of an Empty Open-Sora Latent as its settings say; undefined where they do not.
export function lengthOf(empty) {
  const duration = valueOf(empty, 'duration')
  const made = outputOf(empty)?.opensora_size?.[0]
  // A duration is rounded to what the VAE can represent: a run knows, if it was one of this duration.
  const wanted = made?.duration === duration ? made?.frames : DURATIONS[duration]
  const frames = duration in DURATIONS ? wanted : valueOf(empty, 'frames')
  return { frames: Number.isInteger(frames) ? frames : undefined, fps: valueOf(empty, 'fps') || undefined }
}

// {frames, fps, groups, from}: `from` is "graph", "run" or "guess". `report` is the node's own of the last run.
export function clipBefore(node, report) {
  const empty = emptyLatentBefore(node)
  const length = empty ? lengthOf(empty) : {}
  const frames = length.frames ?? report?.frames
  return {
    frames: frames ?? 17,
    fps: length.fps ?? report?.fps ?? 24,
    groups: report && report.frames === (frames ?? 17) ? report.groups.map(([first, last]) => [first, last]) : null,
    from: length.frames ? 'graph' : report ? 'run' : 'guess',
  }
}

function emptyLatentBefore(node) {
  for (let at = node, steps = 0; at && steps < FAR; steps++) {
    if (at !== node && CHANGE_LENGTH.has(at.type)) return null
    const input = at.inputs?.find((each) => each.name === 'latent') ?? at.inputs?.find((each) => each.type === 'LATENT')
    at = input && source(at, input.name)?.node
    if (at?.type === 'OpenSoraEmptyLatent') return at
  }
  return null
}

// What the node showed in its last run; {} before the first.
export function outputOf(node) {
  const root = app.rootGraph ?? app.graph?.rootGraph ?? app.graph
  const key = node.graph && root && node.graph !== root ? `${node.graph.id}:${node.id}` : `${node.id}`
  return app.nodeOutputs?.[key] ?? node.opensoraOutput
}

export function viewURL({ filename, subfolder = '', type = 'input' }) {
  return app.api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`)
}

// The picture of a LoadImage's file, whose name may say its folder: "sub/name.png [output]".
function loadedFile(node) {
  const value = node.type === 'LoadImage' && widgetOf(node, 'image')?.value
  if (typeof value !== 'string' || !value) return null
  const [, path, type] = value.match(/^(.*?)(?: \[(\w+)\])?$/)
  const cut = path.lastIndexOf('/')
  return viewURL({ filename: path.slice(cut + 1), subfolder: path.slice(0, Math.max(cut, 0)), type: type ?? 'input' })
}

// The address of a picture of what is wired into the input, or null. `thumbnails` are those of the last run.
export function pictureOf(node, inputName, thumbnails) {
  const origin = source(node, inputName)?.node
  if (!origin) return null
  const own = loadedFile(origin) ?? origin.imgs?.[0]?.src
  if (own) return own
  const shown = outputOf(origin)?.images?.[0]
  if (shown?.filename && /\.(png|jpe?g|webp|gif)$/i.test(shown.filename)) return viewURL(shown)
  if (thumbnails?.[inputName]) return viewURL(thumbnails[inputName])
  for (let at = origin, steps = 0; at && steps < FAR; steps++) {
    const input = at.inputs?.find((each) => each.type === 'IMAGE')
    at = input && source(at, input.name)?.node
    const before = at && loadedFile(at)
    if (before) return before
  }
  return null
}

const tracker = () => app.extensionManager?.workflow?.activeWorkflow?.changeTracker

// Make what was changed since the last call one step of the page's undo.
export function undoStep() {
  const current = tracker()
  if (current?.captureCanvasState) current.captureCanvasState()
  else current?.checkState?.()
}

// The page shortens a title that has not this much room beside it, but asks nodes for less.
const besideTitle = () => 2 * LiteGraph.NODE_TITLE_HEIGHT + 4

// Make the node at least as wide as its title needs, by itself and while it is dragged.
export function keepTitleWhole(node) {
  const pen = document.createElement('canvas').getContext('2d')
  const { computeSize } = node
  node.computeSize = function (...rest) {
    const size = computeSize.apply(this, rest)
    pen.font = this.titleFontStyle
    size[0] = Math.max(size[0], Math.ceil(pen.measureText(this.getTitle()).width) + besideTitle())
    return size
  }
  const [width] = node.computeSize()
  if (node.size[0] < width) node.setSize([width, node.size[1]])
}

// Give a node the height that its content needs. That is no step of the undo: nobody did it.
export function growToContent(node) {
  const height = node.computeSize()[1]
  if (node.size[1] >= height) return
  node.setSize([node.size[0], height])
  if (node.graph !== (app.rootGraph ?? app.graph)) return // a subgraph counts its nodes anew
  const known = tracker()?.activeState?.nodes?.find((each) => String(each.id) === String(node.id))
  if (known) known.size = Array.isArray(known.size) ? [...node.size] : { ...known.size, 1: height }
}
