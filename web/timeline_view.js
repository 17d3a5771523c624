// The drawn timeline: tray, ruler, keyframes, blocks of frames, playhead and words. It shows a state and changes none.

import { h, keepInStep } from './dom.js'
import { drawLines, makeStrip } from './strip.js'
import { framesWords, placeWords, places, seconds, spanWords, tickStep } from './timeline_model.js'
import { paintKeyframes, setPicture } from './timeline_thumbs.js'
import { makeBar } from './timeline_zoom.js'
import { say } from './words.js'

const [NUMBER_ROOM, SECOND_ROOM, LABEL_ROOM] = [26, 46, 36] // pixels between two marks of the ruler, of the words at one
const ORIGINS = { run: () => say('as in the last run'), guess: () => say('assumed: connect Empty Open-Sora Latent') }

const percent = (value, whole) => `${(100 * value) / whole}%`
const round = (value) => Number(value.toFixed(2))

export class TimelineView {
  constructor() {
    this.tray = h('div', { class: 'os-tray', role: 'list', 'aria-label': say('Pictures wired in') })
    this.trayHint = h('p', { class: 'os-tray-hint', text: say('Connect pictures or clips to image_1, image_2, …') })
    this.facts = h('div', { class: 'os-facts' })
    const json = say('Show the JSON of this timeline')
    this.code = h('button', { class: 'os-code', type: 'button', title: json, text: '{ }' })
    const head = h('div', { class: 'os-head' }, h('div', { class: 'os-side' }, this.facts, this.code), this.tray, this.trayHint)

    this.numbers = h('div', { class: 'os-numbers' })
    this.times = h('div', { class: 'os-times' })
    const marks = say('Frames above, seconds below. Drag to move the playhead.')
    this.ruler = h('div', { class: 'os-ruler', title: marks }, this.numbers, this.times)
    this.blocks = h('div', { class: 'os-blocks' })
    this.holds = h('div', { class: 'os-holds' })
    this.keys = h('div', { class: 'os-keys' })
    this.flag = h('span', { class: 'os-flag' })
    this.playhead = h('div', { class: 'os-playhead', role: 'slider', tabindex: '0', 'aria-label': say('Playhead') }, this.flag)
    this.drop = h('div', { class: 'os-drop' })
    this.bubble = h('div', { class: 'os-bubble', role: 'status' })
    this.box = h('div', { class: 'os-box' })
    // As wide as the whole clip would be: the track shows a part of it.
    this.lane = h('div', { class: 'os-lane' }, this.ruler, this.blocks, this.holds, this.playhead, this.keys, this.drop, this.box)
    this.track = h('div', { class: 'os-track', tabindex: '-1' }, this.lane, this.bubble)
    this.bar = makeBar()
    this.stage = h('div', { class: 'os-stage' }, this.track, this.bar.element)

    this.info = h('div', { class: 'os-info' })
    const foot = h('div', { class: 'os-foot' }, this.info, this.bar.buttons)
    this.notice = h('p', { class: 'os-notice', role: 'status' })
    this.faults = h('ul', { class: 'os-faults', role: 'alert' })
    this.strip = makeStrip()
    this.lines = h('ul', { class: 'opensora-lines' })
    const title = h('span', { class: 'os-run-title', text: say('Last run') })
    this.run = h('div', { class: 'os-run' }, title, this.strip.element, this.lines)
    this.runHint = h('p', { class: 'opensora-hint', text: say('A run shows here where each keyframe landed.') })
    const words = h('div', { class: 'os-words' }, this.faults, this.run, this.runHint)

    this.problem = h('p', { class: 'os-problem' })
    this.text = h('textarea', { class: 'os-text', spellcheck: 'false', 'aria-label': say('The timeline as JSON') })
    this.use = h('button', { type: 'button', text: say('Use this text') })
    this.anew = h('button', { type: 'button', text: say('Start anew') })
    this.back = h('button', { type: 'button', text: say('Back to the track') })
    this.panel = h('div', { class: 'os-panel' }, this.problem, this.text, h('div', { class: 'os-buttons' }, this.use, this.anew, this.back))

    this.ghost = h('div', { class: 'os-ghost' })
    this.root = h('div', { class: 'opensora opensora-timeline', tabindex: '-1' }, head, this.stage, foot, words,
      this.panel, this.ghost, this.notice)
  }

  paint(state, ui, span) {
    Object.assign(this, { state, span })
    this.root.style.setProperty('--lane-left', percent(-span.first, span.count))
    this.root.style.setProperty('--lane-width', percent(state.frames, span.count))
    this.root.classList.toggle('os-zoomed', span.count < state.frames)
    this.root.classList.toggle('os-blocked', state.blocked)
    this.root.classList.toggle('os-dragging', state.dragging)
    if (state.blocked) this.#paintPanel(state)
    else this.shownText = null
    this.#paintTray(state)
    this.#paintRuler(state)
    this.#paintBlocks(state)
    paintKeyframes(this, state, ui.selected)
    this.bar.paint(state, span, ui.selected)
    this.#paintPlayhead(state, ui)
    this.#paintWords(state, ui)
  }

  // The keyframe's element, or with null the track: the keyboard stays in the editor.
  focusKeyframe(index) {
    const target = (index !== null && this.keys.querySelectorAll('.os-thumb')[index]) || this.track
    target.focus({ preventScroll: true })
  }

  // Say something beside frame `at`; without words, nothing.
  whisper(words, at = 0, warning = false) {
    this.bubble.textContent = words ?? ''
    this.bubble.classList.toggle('os-warning', warning)
    this.bubble.style.setProperty('--at', percent(at - this.span.first, this.span.count))
  }

  // Show where a dragged picture would go: the group's [first, last + 1), or nothing.
  showDrop(span) {
    this.drop.style.display = span ? 'block' : 'none'
    if (!span) return
    this.drop.style.left = percent(span[0], this.state.frames)
    this.drop.style.width = percent(span[1] - span[0], this.state.frames)
  }

  #paintPanel({ error, driven, typing, text }) {
    this.problem.textContent = driven
      ? say('The timeline comes in through a wire: its text is edited where the wire begins.')
      : error
        ? say('This timeline cannot be drawn: {error}.', { error })
        : say('The timeline as text. Unknown keys are kept.')
    this.problem.classList.toggle('os-bad', Boolean(error) && !driven)
    this.root.classList.toggle('os-driven', Boolean(driven))
    this.back.style.display = typing && !error ? '' : 'none'
    this.anew.style.display = error ? '' : 'none'
    // What was typed stays until it is used, whatever else is painted meanwhile.
    if (text !== this.shownText && document.activeElement !== this.text) this.text.value = this.shownText = text
  }

  #paintTray({ pictures, connected }) {
    const names = Object.keys(pictures)
    this.trayHint.style.display = names.length ? 'none' : ''
    const create = () =>
      h('div', { class: 'os-card', role: 'listitem', tabindex: '0' },
        h('span', { class: 'os-picture' }), h('span', { class: 'os-number' }),
        h('button', { class: 'os-add', type: 'button', tabindex: '-1', text: '+' }))
    keepInStep(this.tray, names, create, (card, name) => {
      const number = name.split('_')[1]
      card.dataset.name = name
      card.classList.toggle('os-missing', !connected.has(name))
      card.title = connected.has(name)
        ? say('{name}: drag it onto the track, or double-click to pin it at the playhead', { name })
        : say('{name} is not connected', { name })
      card.setAttribute('aria-label', card.title)
      card.children[1].textContent = number
      card.children[2].title = say('Pin {name} at the playhead', { name })
      setPicture(card.firstChild, pictures[name], number)
    })
  }

  #paintRuler({ frames, fps, groups }) {
    const width = this.lane.clientWidth || 500
    const mark = () => h('span')
    const chunkStarts = groups.filter(([first, last]) => first === last).map(([first]) => first)
    const fitting = [...chunkStarts, ...places(groups)].filter((frame) => !frame || (1 - frame / frames) * width >= NUMBER_ROOM / 2)
    const marks = thin(fitting, (frame) => (frame / frames) * width)
    keepInStep(this.numbers, marks, mark, (part, frame) => {
      part.textContent = frame
      part.style.left = percent(frame, frames)
    })
    const duration = frames / fps
    const step = tickStep(duration, width, SECOND_ROOM, [0.1, 0.2, 0.5])
    const late = (time) => (duration - time) * (width / duration) < LABEL_ROOM
    const times = [...Array(Math.floor(duration / step + 1e-6) + 1).keys()].map((index) => index * step)
    // The last one's words stand before its mark: where the one before would run into them, it goes.
    if (times.length > 2 && late(times.at(-1)) && (step / duration) * width < 2 * LABEL_ROOM) times.splice(-2, 1)
    keepInStep(this.times, times, mark, (part, time) => {
      part.textContent = `${time.toFixed(step < 1 ? 1 : 0)} s`
      part.style.left = percent(time, duration)
      part.classList.toggle('os-last', late(time))
    })
  }

  #paintBlocks({ frames, fps, groups }) {
    keepInStep(this.blocks, groups, () => h('i', { class: 'os-block' }), (block, [first, last]) => {
      block.style.left = percent(first, frames)
      block.style.width = percent(last + 1 - first, frames)
      block.title = `${framesWords(first, last)} · ${seconds(first, fps)}`
    })
  }

  #paintPlayhead({ frames, fps }, { playhead }) {
    this.playhead.style.setProperty('--at', percent(playhead + 0.5, frames))
    this.flag.textContent = `${seconds(playhead, fps)} · ${playhead}`
    this.playhead.classList.toggle('os-right', playhead > this.span.first + this.span.count / 2)
    this.playhead.setAttribute('aria-valuemin', 0)
    this.playhead.setAttribute('aria-valuemax', frames - 1)
    this.playhead.setAttribute('aria-valuenow', playhead)
    this.playhead.setAttribute('aria-valuetext', `${seconds(playhead, fps)}, ${framesWords(playhead, playhead)}`)
  }

  #paintWords({ frames, fps, from, seen, pictures, report }, { selected }) {
    const rate = say('{seconds} s at {fps} fps', { seconds: (frames / fps).toFixed(2), fps: round(fps) })
    this.facts.textContent = `${frames === 1 ? say('1 frame') : say('{count} frames', { count: frames })} · ${rate}`
    this.facts.title = ORIGINS[from]?.() ?? say('As Empty Open-Sora Latent has it.')
    this.facts.classList.toggle('os-unsure', from !== 'graph')
    if (from !== 'graph') this.facts.append(h('small', { text: ORIGINS[from]() }))
    if (!report) this.facts.append(h('small', { text: say('grouped as Open-Sora 1.2 until a run') }))
    const ready = Object.keys(pictures).length && !seen.length
    this.info.textContent = this.#selectionWords(selected.map((index) => seen[index]))
      || (ready ? say('Drag a picture onto the track, or double-click it to pin it at the playhead.') : '')
    const faults = seen.flatMap((each) => each.faults.map((text) => ({ text, bad: true })))
    const notes = seen.flatMap((each) => each.notes.map((text) => ({ text, bad: false })))
    keepInStep(this.faults, [...faults, ...notes], () => h('li'), (item, { text, bad }) => {
      item.textContent = text
      item.classList.toggle('os-bad', bad)
    })
    this.run.style.display = report ? '' : 'none'
    this.runHint.style.display = report ? 'none' : ''
    if (!report) return
    this.strip.draw(report)
    drawLines(this.lines, report)
  }

  // Tell what happened, until the next press or key; `bad` where it is an error, without words nothing.
  tell(words, bad = false) {
    this.notice.textContent = words ?? ''
    this.notice.classList.toggle('os-bad', bad)
  }

  #selectionWords(chosen) {
    if (chosen.length > 1) return say('{n} keyframes selected', { n: chosen.length })
    const [one] = chosen
    return one?.name ? `${one.name} · ${this.place(one)} · ${say('strength {strength}', { strength: round(one.strength) })}` : ''
  }

  // "frame 12 · 0.50 s, holds 9–12" for a keyframe as `review` gives it.
  place(one) {
    const { groups, counts, fps, keyframes } = this.state
    if (one.at === null) return say('outside of the clip')
    const words = placeWords(groups, one.at, counts[one.name], fps, keyframes[one.index]?.frame)
    const lost = one.held.length - one.kept.length
    return lost && one.kept.length ? say('{words}, of which {kept} stay', { words, kept: spanWords(groups, one.kept) }) : words
  }
}

// Those of `frames`, the more important first, that have room between them.
function thin(frames, pixels) {
  const chosen = []
  for (const frame of frames)
    if (chosen.every((other) => Math.abs(pixels(other) - pixels(frame)) >= NUMBER_ROOM)) chosen.push(frame)
  return chosen.sort((a, b) => a - b)
}
