// The widget of the input `timeline`: the drawing itself, on its node, on subgraphs that it is promoted to, in panels.

import { app } from '../../scripts/app.js'
import { after, htmlOptions, settle } from './dom.js'
import { widgetOf } from './graph.js'
import { rewiredOf, TimelineEditor } from './timeline.js'

const TYPE = 'opensora_timeline'
// Graph units. On the timeline node the tray stands beside the sockets, below the output's row.
const [WIDTH, LEAST_WIDTH, HEIGHT, TOP] = [560, 400, 498, 26]
const BESIDE_WIDGETS = 104 // graph units that the page adds to what a widget asks for

// The widget that `editor` draws, made by `make(element, options)`; its text is held by `read` and `write`.
function drawnWidget(editor, { read, write }, make) {
  const { root } = editor.view
  const options = htmlOptions(() => HEIGHT, {
    getValue: read,
    setValue(value) {
      write(value)
      if (editor.widget) editor.refresh()
    },
    onDraw({ node }) {
      root.classList.toggle('os-beside-sockets', node === editor.node)
      if (node.size[0] < LEAST_WIDTH) node.setSize([LEAST_WIDTH, node.size[1]])
      editor.drawn()
    },
  })
  const widget = (editor.widget = make(root, options))
  settle(widget, root)
  root.title = '' // else all of it shows the tooltip of the input
  // The page fades out a widget whose input is wired; this one says so itself.
  Object.defineProperty(widget, 'computedDisabled', { get: () => false, set() {}, configurable: true })
  const { computeLayoutSize, draw } = widget
  widget.computeLayoutSize = function (node) {
    return { ...computeLayoutSize.call(this, node), minWidth: LEAST_WIDTH - BESIDE_WIDGETS }
  }
  widget.draw = function (context, ...rest) {
    const panel = context.canvas !== app.canvas.canvas && context.canvas.parentElement
    if (panel) drawInPanel(editor, panel)
    else draw.call(this, context, ...rest)
  }
  // Front ends that show a copy of the widget on the subgraph ask it for one.
  widget.createCopyForNode = (host) => {
    let text = widget.value
    return promoted(editor, host, { read: () => text, write: (value) => (text = value) }, (element, more) =>
      new widget.constructor({ node: host, name: widget.name, type: TYPE, element, options: more }))
  }
  widget.opensoraEditor = editor
  return widget
}

function promoted(editor, host, text, make) {
  const outer = new TimelineEditor(editor.node, [...editor.hosts, host])
  const widget = drawnWidget(outer, text, make)
  outer.isGone = () => host.graph?.getNodeById(host.id) !== host || !host.widgets?.includes(widget)
  editor.followers.add(outer)
  return widget
}

// The properties panel gives a widget a canvas to draw itself on: put a second drawing of the same timeline over it.
function drawInPanel(editor, panel) {
  if (panel.querySelector(':scope > .opensora-timeline')) return
  const second = new TimelineEditor(editor.node, editor.hosts)
  second.widget = editor.widget
  second.isGone = () => !second.view.root.isConnected
  second.view.root.classList.add('os-in-panel')
  panel.append(second.view.root)
  editor.followers.add(second)
  second.refresh()
}

// Newer front ends show a promoted widget by its value alone, and ask the subgraph node for anything else: let `host`
// show the drawing, which reads and writes that value.
export function promoteTimelines(host) {
  const create = host.createPromotedHostWidget
  if (!create) return
  host.createPromotedHostWidget = function (input, id, source) {
    const editor = source.opensoraEditor
    const settled = host.graph?.getNodeById(host.id) === host
    const plain = editor && settled && host._projectPromotedWidget?.(input)
    if (!plain) return create.call(this, input, id, source)
    const text = { read: () => plain.value, write: (value) => (plain.value = value) }
    return promoted(editor, host, text, (element, options) => looseWidget(host, input.name, element, options))
  }
}

// A widget that the page draws on the node, but that is not in the node's list: its input brings it in.
function looseWidget(host, name, element, options) {
  const handlers = ['onAdded', 'onRemoved', 'onResize']
  const own = handlers.map((handler) => [handler, Object.getOwnPropertyDescriptor(host, handler)])
  host.addCustomWidget = (widget) => widget
  const widget = host.addDOMWidget(name, TYPE, element, options)
  delete host.addCustomWidget
  for (const [handler, before] of own) {
    delete host[handler]
    if (before) Object.defineProperty(host, handler, before)
  }
  return widget
}

// Put the drawing in place of the node's text. Returns {refresh, remove}.
export function addTimeline(node) {
  const editor = new TimelineEditor(node)
  const plain = widgetOf(node, 'timeline')
  let text = plain.value
  const widget = drawnWidget(editor, { read: () => text, write: (value) => (text = value) }, (element, options) =>
    node.addDOMWidget('timeline', TYPE, element, options))
  widget.label = plain.label
  node.widgets.splice(node.widgets.indexOf(widget), 1)
  node.widgets.splice(node.widgets.indexOf(plain), 1, widget)
  node.widgets_start_y = TOP
  node.setSize([Math.max(WIDTH, node.size[0]), node.size[1]])
  after(node, 'onConnectionsChange', (kind, slot) => {
    if (kind === LiteGraph.INPUT) rewiredOf(node).add(node.inputs?.[slot]?.name)
  })
  // Loading, pasting and undo report every wire as new, though they are those of the last run.
  after(node, 'onConfigure', () => rewiredOf(node).clear())
  after(node, 'onExecuted', () => rewiredOf(node).clear())
  editor.refresh()
  return { refresh: editor.refresh, remove: () => editor.destroy() }
}
