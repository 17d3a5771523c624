// The editor of Open-Sora Timeline: holds the node's JSON, the view and the gestures together.

import { app } from '../../scripts/app.js'
import { addDisplay } from './dom.js'
import { clipBefore, outputOf, pictureOf, undoStep, widgetOf } from './graph.js'
import * as gestures from './timeline_gestures.js'
import * as model from './timeline_model.js'
import { TimelineView } from './timeline_view.js'
import { revealing, spanOf, zoomedAround } from './timeline_zoom.js'

const IMAGES = [1, 2, 3, 4, 5, 6, 7, 8].map((number) => `image_${number}`)
const [WIDTH, HEIGHT, TOP] = [560, 498, 26] // graph units; the tray stands beside the sockets, below the output's row
const LOOK_EVERY = 100 // milliseconds between two looks at the graph while the canvas draws

// Playhead, selection and zoom by node: undo builds the nodes anew, and they are not part of the workflow.
const memory = new Map()

class TimelineEditor {
  constructor(node, widget) {
    this.node = node
    this.widget = widget
    this.view = new TimelineView()
    this.draft = null // keyframes as a gesture in progress would have them
    this.typing = false // the JSON itself is being looked at
    this.timer = null
    this.rewired = new Set()
    this.stopGestures = gestures.listen(this)
    const resized = new ResizeObserver(() => this.paint())
    resized.observe(this.view.track)
    this.stopObserving = () => resized.disconnect()
  }

  get key() {
    return `${this.node.graph?.id}:${this.node.id}`
  }

  get ui() {
    return memory.get(this.key) ?? { playhead: 0, selected: [], anchor: null, span: null }
  }

  // The frames that the track shows, {first, count}.
  get span() {
    return spanOf(this.ui.span, this.state.frames)
  }

  get zoomed() {
    return this.span.count < this.state.frames
  }

  setUi(changes) {
    memory.set(this.key, { ...this.ui, ...changes })
    this.paint()
  }

  // Everything that the view shows, from the widget, the graph and the last run.
  look() {
    const report = outputOf(this.node)?.opensora?.[0] ?? null
    const clip = clipBefore(this.node, report)
    const groups = clip.groups ?? model.groupsOf(clip.frames, report?.vae)
    const parsed = model.parse(this.widget.value)
    const driven = this.link(this.widget.name)
    const keyframes = this.draft ?? parsed.keyframes ?? []
    const connected = new Set(IMAGES.filter((name) => this.link(name)))
    const fromRun = (values) =>
      Object.fromEntries(Object.entries(values ?? {}).filter(([name]) => !this.rewired.has(name)))
    const counts = fromRun(report?.counts)
    const thumbnails = fromRun(report?.thumbnails)
    const named = keyframes.map((keyframe) => `image_${keyframe?.image}`)
    const shown = IMAGES.filter((name) => connected.has(name) || named.includes(name))
    return {
      ...clip, groups, keyframes, connected, counts, report,
      error: parsed.error,
      text: this.widget.value,
      driven,
      typing: this.typing,
      blocked: Boolean(parsed.error || driven || this.typing),
      pictures: Object.fromEntries(shown.map((name) => [name, pictureOf(this.node, name, thumbnails)])),
      seen: model.review(keyframes, groups, clip.frames, { counts, connected }),
      dragging: Boolean(this.draft),
    }
  }

  link(name) {
    const link = this.node.inputs?.find((input) => input.name === name)?.link
    return link !== null && link !== undefined
  }

  refresh = () => {
    this.state = this.look()
    const { frames } = this.state
    const { playhead, selected } = this.ui
    const left = selected.filter((index) => this.state.seen[index])
    if (playhead >= frames || left.length < selected.length)
      memory.set(this.key, { ...this.ui, playhead: Math.min(playhead, frames - 1), selected: left })
    const { report, ...plain } = this.state
    const digest = JSON.stringify([plain, [...plain.connected], this.ui])
    if (digest === this.digest && report === this.report) return
    Object.assign(this, { digest, report })
    this.paint()
  }

  // Called for every frame that the canvas draws: another extension may have changed the JSON.
  drawn = () => {
    // A wire into the hidden widget ends at the editor's corner.
    this.widget.y = this.display.y
    this.view.root.classList.toggle('os-beside-sockets', !window.LiteGraph?.vueNodesMode)
    this.timer ??= setTimeout(() => {
      this.timer = null
      this.refresh()
    }, LOOK_EVERY)
  }

  paint() {
    if (this.state) this.view.paint(this.state, this.ui, this.span)
  }

  // Show keyframes without saving them, while a gesture goes on; null ends it.
  preview(change) {
    if (change) {
      this.draft = structuredClone(model.parse(this.widget.value).keyframes)
      change(this.draft)
    } else this.draft = null
    this.refresh()
  }

  // Change the keyframes for good: one step of the undo.
  commit(change) {
    this.draft = null
    const { value, keyframes } = model.parse(this.widget.value)
    if (!value) return
    change(keyframes)
    this.write(model.serialise(value))
  }

  write(text) {
    if (text !== this.widget.value) {
      this.widget.value = text
      this.widget.callback?.(text, app.canvas, this.node)
      this.node.graph?.setDirtyCanvas?.(true, true)
      undoStep()
    }
    this.refresh()
  }

  // Put an image at the playhead, or where that is taken at the nearest free place.
  addAtPlayhead(name) {
    const { groups, seen, counts } = this.state
    const at = model.snap(groups, this.ui.playhead)
    const taken = new Set(seen.flatMap((one) => one.held))
    this.add(name, model.nearest(model.freePlaces(groups, taken, counts[name]), at) ?? at)
  }

  add(name, frame) {
    if (this.state.blocked) return
    const selected = this.state.keyframes.length
    this.commit((keyframes) => keyframes.push({ image: Number(name.split('_')[1]), frame, strength: 1 }))
    this.selectAndFocus([selected])
  }

  remove(indices) {
    const gone = new Set(indices)
    const next = Math.min(...indices)
    this.commit((keyframes) => keyframes.splice(0, keyframes.length, ...keyframes.filter((_, index) => !gone.has(index))))
    const left = this.state.keyframes.length
    this.selectAndFocus(left ? [Math.min(next, left - 1)] : [])
  }

  select(selected, anchor = selected.at(-1) ?? null) {
    this.setUi({ selected, anchor })
  }

  selectAndFocus(selected) {
    this.select(selected)
    this.reveal(selected)
    this.view.focusKeyframe(selected[0] ?? null)
  }

  // The keyboard came to a keyframe: alone selected, unless it was among several.
  focused(index) {
    if (!this.ui.selected.includes(index)) this.select([index])
    if (document.activeElement?.matches(':focus-visible')) this.reveal([index])
  }

  // Inputs for images that nothing is wired to, by name.
  freeInputs() {
    return IMAGES.filter((name) => this.node.inputs?.some((input) => input.name === name) && !this.link(name))
  }

  // Shown whole, it stays so when the clip gets longer.
  show(span) {
    this.setUi({ span: span && span.count < this.state.frames ? span : null })
  }

  showAll() {
    this.show(null)
  }

  showFrom(first) {
    this.show(spanOf({ ...this.span, first }, this.state.frames))
  }

  zoomAround(factor, frame) {
    this.show(zoomedAround(this.span, this.state.frames, factor, frame))
  }

  // The frame that zooming by keys keeps its place: of the keyframe with the focus, else the playhead's.
  lookedAt() {
    const { shown } = this.state.seen[document.activeElement?.closest('.os-thumb')?.dataset.index] ?? {}
    return (shown ?? this.ui.playhead) + 0.5
  }

  // Scroll to frames, or to keyframes by index (the first of them where not all have room).
  revealFrame(from, to = from + 1) {
    const { frames } = this.state
    const next = revealing(revealing(this.span, frames, from, to), frames, from)
    if (this.zoomed && next.first !== this.span.first) this.show(next)
  }

  reveal(indices) {
    const shown = indices.map((index) => this.state.seen[index]?.shown).filter((frame) => Number.isInteger(frame))
    if (shown.length) this.revealFrame(Math.min(...shown), Math.max(...shown) + 1)
  }

  destroy() {
    clearTimeout(this.timer)
    this.stopGestures()
    this.stopObserving()
  }
}

function hide(widget) {
  widget.hidden = true
  widget.options = { ...widget.options, hidden: true, canvasOnly: true }
  widget.computeSize = () => [0, -4]
}

// Add the editor to the node. Returns {refresh, remove}.
export function addTimeline(node) {
  const widget = widgetOf(node, 'timeline')
  hide(widget)
  node.widgets_start_y = TOP
  const editor = new TimelineEditor(node, widget)
  editor.display = addDisplay(node, 'opensora_timeline', editor.view.root, () => HEIGHT, {
    onDraw: editor.drawn,
    grows: true,
  })
  node.setSize([Math.max(WIDTH, node.size[0]), node.size[1]])
  const connected = node.onConnectionsChange
  node.onConnectionsChange = function (kind, slot, ...rest) {
    if (kind === LiteGraph.INPUT) editor.rewired.add(node.inputs?.[slot]?.name)
    return connected?.call(this, kind, slot, ...rest)
  }
  // Loading, pasting and undo report every wire as new, though they are those of the last run.
  const configured = node.onConfigure
  node.onConfigure = function (...values) {
    editor.rewired.clear()
    return configured?.apply(this, values)
  }
  const executed = node.onExecuted
  node.onExecuted = function (output) {
    editor.rewired.clear()
    return executed?.call(this, output)
  }
  editor.refresh()
  return { refresh: editor.refresh, remove: () => editor.destroy() }
}
