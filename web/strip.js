// The strip that shows a run's mask: which groups of frames are kept, partly kept and generated, and words for it.

import { addDisplay, h, keepInStep } from './dom.js'
import { growToContent, outputOf } from './graph.js'
import { framesWords, seconds } from './timeline_model.js'
import { say, sayTold } from './words.js'

const KINDS = { kept: () => say('kept'), partly: () => say('partly kept'), generated: () => say('generated') }
const [HINT_HEIGHT, STRIP_HEIGHT, LINE_HEIGHT, MOST_LINES] = [34, 82, 15, 5]

export const kindOf = (mask) => (mask <= 0 ? 'kept' : mask >= 1 ? 'generated' : 'partly')

// The strip alone: {element, draw(report)}; the fill of a group is as high as it is kept.
export function makeStrip() {
  const cells = h('div', { class: 'opensora-strip-cells' })
  const scale = h('div', { class: 'opensora-strip-scale' })
  const legend = h('div', { class: 'opensora-strip-legend' })
  for (const [kind, words] of Object.entries(KINDS)) {
    const swatch = h('i', { class: 'opensora-cell', 'data-kind': kind }, h('b', { style: `height: ${level(kind)}%` }))
    legend.append(h('span', {}, swatch, words()))
  }
  const element = h('div', { class: 'opensora-strip', role: 'img' }, cells, scale, legend)

  function draw({ frames, fps, groups }) {
    const cell = () => h('i', { class: 'opensora-cell' }, h('b'))
    keepInStep(cells, groups, cell, (part, [first, last, mask]) => {
      part.dataset.kind = kindOf(mask)
      part.style.flexGrow = last - first + 1
      part.firstChild.style.height = `${100 * (1 - mask)}%`
      const held = mask > 0 && mask < 1 ? say(', {percent} % held', { percent: Math.round(100 * (1 - mask)) }) : ''
      const when = `${framesWords(first, last)} (${seconds(first, fps)} – ${seconds(last + 1, fps)})`
      part.title = `${when}: ${KINDS[kindOf(mask)]()}${held}`
    })
    const middle = Math.floor(frames / 2)
    const marks = [...new Set([0, middle, frames - 1])]
    keepInStep(scale, marks, () => h('span'), (mark, frame) => {
      mark.textContent = `${frame} · ${seconds(frame, fps)}`
    })
    const count = (kind) => groups.filter(([, , mask]) => kindOf(mask) === kind).length
    const counts = { count: frames, kept: count('kept'), partly: count('partly'), generated: count('generated') }
    element.setAttribute('aria-label',
      say('{count} frames; groups of frames kept: {kept}, partly kept: {partly}, generated: {generated}', counts))
  }
  return { element, draw }
}

const level = (kind) => ({ kept: 100, partly: 50, generated: 0 })[kind]

// The report's words as a list. Reports of older runs have them in English alone.
export function drawLines(list, { words, lines }) {
  keepInStep(list, words?.map(sayTold) ?? lines, () => h('li'), (item, line) => (item.textContent = item.title = line))
}

// Add hint, strip and words to a node that returns a report. Returns {refresh}.
export function addStrip(node) {
  const strip = makeStrip()
  const lines = h('ul', { class: 'opensora-lines' })
  const hint = h('p', { class: 'opensora-hint', text: say('A run shows here which frames are kept and which are generated.') })
  const element = h('div', { class: 'opensora opensora-report' }, hint, strip.element, lines)
  let shown

  function height() {
    return shown ? STRIP_HEIGHT + LINE_HEIGHT * Math.min(shown.lines.length, MOST_LINES) : HINT_HEIGHT
  }

  function refresh() {
    const report = outputOf(node)?.opensora?.[0] ?? null
    if (report === shown) return
    shown = report
    element.classList.toggle('opensora-has-run', Boolean(report))
    if (!report) return
    strip.draw(report)
    drawLines(lines, report)
    if (node.graph) growToContent(node)
  }
  addDisplay(node, 'opensora_strip', element, height, { onDraw: refresh, grows: true })
  refresh()
  return { refresh }
}
