// The line on Empty Open-Sora Latent that says what its settings amount to: pixels, frames, seconds.

import { addDisplay, h } from './dom.js'
import { lengthOf, outputOf, valueOf } from './graph.js'

const AUTO = 'auto'
const SQUARES = new Set(['256', '512', '1024'])
// A run's answer, with the settings it was an answer to.
const madeWith = new WeakMap()
let table = null
let tableLoaded = null

async function loadTable() {
  try {
    tableLoaded ??= fetch(new URL('./sizes.json', import.meta.url)).then((answer) => answer.json())
    table = await tableLoaded
  } catch (error) {
    tableLoaded = null // the next node asks again
    console.warn('Open-Sora: the table of sizes could not be loaded', error)
  }
}

// [width, height] where the settings alone decide it, else null: only the VAE's file knows what auto is.
export function chosenSize(sizes, { resolution, aspect_ratio: ratio, width, height }) {
  if (resolution === 'custom') return width && height ? [width, height] : null
  return sizes?.[resolution]?.[ratio === AUTO && SQUARES.has(resolution) ? '1:1' : ratio] ?? null
}

// {text, from}: the words, and "settings" or "run" for where they come from, or "open" where only a run can tell.
export function sizeWords(sizes, values, { frames, fps }, last) {
  const size = chosenSize(sizes, values)
  const [width, height] = size ?? [last?.width, last?.height]
  const length = frames ?? last?.frames
  const rate = fps ?? last?.fps
  const words = [width ? `${width} × ${height}` : 'auto size']
  if (length) words.push(`${length} ${length === 1 ? 'frame' : 'frames'}`)
  if (length && rate) words.push(`${(length / rate).toFixed(2)} s at ${Number(rate.toFixed(2))} fps`)
  return { text: words.join(' · '), from: size && frames ? 'settings' : width && length ? 'run' : 'open' }
}

const NOTES = { settings: '', run: 'last run', open: '' }
const TITLES = {
  settings: 'What these settings amount to.',
  run: 'As the last run with these settings had it.',
  open: 'auto takes the size that the VAE file was made for; a run shows it here.',
}
const SETTINGS = ['resolution', 'aspect_ratio', 'width', 'height', 'frames', 'fps', 'duration']

// Add the line to the node. Returns {refresh}.
export function addSize(node) {
  const words = h('span', { class: 'opensora-size-words' })
  const note = h('span', { class: 'opensora-size-note' })
  const element = h('div', { class: 'opensora opensora-size', role: 'status' }, words, note)
  let shown = ''

  function refresh() {
    const values = Object.fromEntries(SETTINGS.map((name) => [name, valueOf(node, name)]))
    const settings = JSON.stringify([values.resolution, values.aspect_ratio, values.width, values.height, values.duration])
    const answer = outputOf(node)?.opensora_size?.[0]
    if (answer && !madeWith.has(answer)) madeWith.set(answer, settings)
    // An answer to other settings is none.
    const last = answer && madeWith.get(answer) === settings ? answer : null
    const { text, from } = sizeWords(table, values, lengthOf(node), last)
    if (shown === text + from) return
    shown = text + from
    words.textContent = text
    note.textContent = NOTES[from]
    element.dataset.from = from
    element.title = TITLES[from]
  }
  addDisplay(node, 'opensora_size', element, () => 34, { onDraw: refresh })
  loadTable().then(refresh)
  refresh()
  return { refresh }
}
