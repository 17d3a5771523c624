// The editor of Open-Sora Timeline: holds the node's JSON, the view and the gestures together.

import { app } from '../../scripts/app.js'
import { clipBefore, outputOf, pictureOf, undoStep, within } from './graph.js'
import * as gestures from './timeline_gestures.js'
import * as model from './timeline_model.js'
import { TimelineView } from './timeline_view.js'

const IMAGES = [1, 2, 3, 4, 5, 6, 7, 8].map((number) => `image_${number}`)
const LOOK_EVERY = 100 // milliseconds between two looks at the graph while the canvas draws

// Playhead and selection by node: undo builds the nodes anew, and they are not part of the workflow.
const memory = new Map()

// Inputs by timeline node that were wired anew since the last run: what it said about them no longer holds.
const rewired = new WeakMap()

export function rewiredOf(node) {
  if (!rewired.has(node)) rewired.set(node, new Set())
  return rewired.get(node)
}

// One drawing of a timeline. `hosts` are the subgraph nodes that its widget was promoted to, the outermost last: there
// the value is the outermost one's, and pictures and length are looked up from the timeline node outwards through them.
export class TimelineEditor {
  constructor(node, hosts = []) {
    this.node = node
    this.hosts = hosts
    this.widget = null // what holds the JSON; given by whoever makes the editor
    this.view = new TimelineView()
    this.draft = null // keyframes as a gesture in progress would have them
    this.typing = false // the JSON itself is being looked at
    this.followers = new Set() // drawings elsewhere that look again when this one does
    this.isGone = () => false
    this.timer = null
    this.stopGestures = gestures.listen(this)
    const resized = new ResizeObserver(() => this.paint())
    resized.observe(this.view.track)
    this.stopObserving = () => resized.disconnect()
  }

  // The node on which the widget is.
  get owner() {
    return this.hosts.at(-1) ?? this.node
  }

  get key() {
    return `${this.owner.graph?.id}:${this.owner.id}:${this.widget.name}`
  }

  get ui() {
    return memory.get(this.key) ?? { playhead: 0, selected: null }
  }

  setUi(changes) {
    memory.set(this.key, { ...this.ui, ...changes })
    this.paint()
  }

  // Everything that the view shows, from the widget, the graph and the last run.
  look() {
    return within(this.hosts, () => this.#look())
  }

  #look() {
    const report = outputOf(this.node)?.opensora?.[0] ?? null
    const clip = clipBefore(this.node, report)
    const groups = clip.groups ?? model.groupsOf(clip.frames, report?.vae)
    const parsed = model.parse(this.widget.value)
    const driven = isWired(this.owner, this.widget.name)
    const keyframes = this.draft ?? parsed.keyframes ?? []
    const connected = new Set(IMAGES.filter((name) => isWired(this.node, name)))
    const stale = rewiredOf(this.node)
    const fromRun = (values) =>
      Object.fromEntries(Object.entries(values ?? {}).filter(([name]) => !stale.has(name)))
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

  refresh = () => {
    this.#refresh()
    for (const follower of this.followers) {
      if (!follower.isGone()) follower.refresh()
      else if (this.followers.delete(follower)) follower.destroy()
    }
  }

  #refresh() {
    this.state = this.look()
    const { frames } = this.state
    const { playhead, selected } = this.ui
    const ui = { playhead: Math.min(playhead, frames - 1), selected: this.state.seen[selected] ? selected : null }
    if (ui.playhead !== playhead || ui.selected !== selected) memory.set(this.key, ui)
    const { report, ...plain } = this.state
    const digest = JSON.stringify([plain, [...plain.connected], this.ui])
    if (digest === this.digest && report === this.report) return
    Object.assign(this, { digest, report })
    this.paint()
  }

  // Called for every frame that the canvas draws: another extension may have changed the JSON.
  drawn() {
    this.timer ??= setTimeout(() => {
      this.timer = null
      this.refresh()
    }, LOOK_EVERY)
  }

  paint() {
    if (this.state) this.view.paint(this.state, this.ui)
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
      app.canvas.setDirty(true, true)
      undoStep()
    }
    this.refresh()
  }

  // Put an image at the playhead, or where that is taken at the nearest free place.
  addAtPlayhead(name) {
    const { groups, seen, counts } = this.state
    const at = model.snap(groups, this.ui.playhead)
    const taken = new Set(seen.flatMap((one) => one.held))
    const free = model.places(groups).filter((place) => {
      const own = model.held(groups, place, counts[name])
      return own.length && own.every((index) => !taken.has(index))
    })
    const nearest = free.reduce((best, place) => (Math.abs(place - at) < Math.abs(best - at) ? place : best), free[0])
    this.add(name, nearest ?? at)
  }

  add(name, frame) {
    if (this.state.blocked) return
    const selected = this.state.keyframes.length
    this.commit((keyframes) => keyframes.push({ image: Number(name.split('_')[1]), frame, strength: 1 }))
    this.setUi({ selected })
    this.view.focusKeyframe(selected)
  }

  remove(index) {
    this.commit((keyframes) => keyframes.splice(index, 1))
    const left = this.state.keyframes.length
    this.setUi({ selected: left ? Math.min(index, left - 1) : null })
    this.view.focusKeyframe(this.ui.selected)
  }

  destroy() {
    for (const follower of this.followers) follower.destroy()
    clearTimeout(this.timer)
    this.stopGestures()
    this.stopObserving()
  }
}

function isWired(node, inputName) {
  const link = node.inputs?.find((input) => input.name === inputName)?.link
  return link !== null && link !== undefined
}
