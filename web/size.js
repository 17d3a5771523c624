// The line on Empty Open-Sora Latent that says what its settings amount to: pixels, frames, seconds.

import { addDisplay, h } from './dom.js'
import { lengthOf, outputOf, source, valueOf } from './graph.js'
import { nearestFrames } from './timeline_model.js'
import { say } from './words.js'

const [AUTO, BY_FRAMES] = ['auto', 'by frames']
const HEIGHT = 40 // graph units: two lines of words
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
  const words = [width ? `${width} × ${height}` : say('auto size')]
  if (length) words.push(length === 1 ? say('1 frame') : say('{count} frames', { count: length }))
  if (length && rate)
    words.push(say('{seconds} s at {fps} fps', { seconds: (length / rate).toFixed(2), fps: Number(rate.toFixed(2)) }))
  return { text: words.join(' · '), from: size && frames ? 'settings' : width && length ? 'run' : 'open' }
}

const [LEAST, PIXELS] = [16, 8] // pixels of the shortest side; pixels of a latent's side

// Pixels of a side that come out of the VAE for so many: whole latents.
const whole = (side, vae) =>
  PIXELS * (vae === 'vae_v1_3' ? Math.ceil(Math.floor(side / 2) / 4) : Math.floor(side / PIXELS))

// {text, fit}: what does not fit of the settings, "no", or "maybe" where a guess at the VAE says so; null where all does.
export function misfit({ resolution, width, height, duration }, frames, vae) {
  if (resolution === 'custom') {
    for (const [name, side] of Object.entries({ width, height }))
      if (side < LEAST)
        return { text: say('{name} {side} does not fit: at least {least}', { name, side, least: LEAST }), fit: 'no' }
  }
  if (duration === BY_FRAMES && Number.isInteger(frames)) {
    const nearest = nearestFrames(frames, vae)
    const values = { frames, low: nearest[0], high: nearest.at(-1) }
    if (!nearest.includes(frames)) {
      if (!vae) return { text: say('{frames} does not fit the VAE of Open-Sora 1.2: {low} or {high}', values), fit: 'maybe' }
      if (nearest.length === 1) return { text: say('{frames} does not fit: {low}', values), fit: 'no' }
      return { text: say('{frames} does not fit: {low} or {high}', values), fit: 'no' }
    }
  }
  if (resolution === 'custom' && width && height) {
    const [across, down] = [whole(width, vae), whole(height, vae)]
    if (across !== width || down !== height)
      return { text: say('{width} × {height} becomes {across} × {down}', { width, height, across, down }), fit: 'maybe' }
  }
  return null
}

// The VAE's family where it is known: that of the bundled file, or of one that a run has told of.
const BUNDLED = 'tiny (bundled)'
const families = new Map([[BUNDLED, 'vae_v1_2']])

function fileOf(node) {
  const loader = source(node, 'vae')?.node
  return loader?.type === 'OpenSoraLoadVAE' ? valueOf(loader, 'vae_name') : undefined
}

const notes = { settings: () => '', run: () => say('last run'), open: () => '' }
const titles = {
  settings: () => say('What these settings amount to.'),
  run: () => say('As the last run with these settings had it.'),
  open: () => say('auto takes the size that the VAE file was made for; a run shows it here.'),
  no: () => say('A run refuses these settings until they are changed.'),
  maybe: () => say('The VAE works in groups of frames and in squares of 8 pixels.'),
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
    if (answer && !madeWith.has(answer)) {
      madeWith.set(answer, settings)
      if (answer.vae && fileOf(node)) families.set(fileOf(node), answer.vae)
    }
    // An answer to other settings is none.
    const last = answer && madeWith.get(answer) === settings ? answer : null
    const length = lengthOf(node)
    const { text, from } = sizeWords(table, values, length, last)
    const wrong = misfit(values, length.frames, families.get(fileOf(node)))
    const digest = JSON.stringify([text, from, wrong])
    if (shown === digest) return
    shown = digest
    words.textContent = wrong?.text ?? text
    note.textContent = wrong ? '' : notes[from]()
    element.dataset.from = from
    element.dataset.fit = wrong?.fit ?? 'yes'
    element.title = titles[wrong?.fit ?? from]()
  }
  addDisplay(node, 'opensora_size', element, () => HEIGHT, { onDraw: refresh })
  loadTable().then(refresh)
  refresh()
  return { refresh }
}
