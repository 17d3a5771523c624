// The keyframes on the track: where their pictures stand without hiding each other, their pins and what they hold.

import { h, keepInStep } from './dom.js'
import { say } from './words.js'

const [LEAST, ASPECT, GAP, OVERHANG] = [28, 1.33, 3, 12] // pixels; width to height; pixels between two; pixels beyond the track
const [SMALLER, FAR] = [4, 0.6] // pixels from one try to the next; of a picture's width, how far it may be off its place
const [LOWEST, HIGHEST, PIN] = [36, 120, 11] // pixels
const percent = (value, whole) => `${(100 * value) / whole}%`

// Centres and widths of pictures that belong at `wanted` on a track `length` long: [{at, wide}, …] in the order given.
// They keep their order along the track and are as wide as there is room, at least `least` where that is possible, but
// not so wide that they push each other far off their places.
export function layOut(wanted, length, full, least = LEAST) {
  const order = wanted.map((_, index) => index).sort((a, b) => wanted[a] - wanted[b] || a - b)
  const places = order.map((index) => wanted[index])
  const within = (at, size) => Math.min(length - size / 2 + OVERHANG, Math.max(size / 2 - OVERHANG, at))
  let [size, centres] = [full, spread(places, length, full)]
  const isFar = (at, nth) => Math.abs(at - within(places[nth], size)) > FAR * size
  while (size > least && (centres.isTight || centres.some(isFar))) {
    size = Math.max(least, size - SMALLER)
    centres = spread(places, length, size)
  }
  const gap = (nth) => (nth > 0 && nth < centres.length ? centres[nth] - centres[nth - 1] : Infinity)
  centres.forEach((at, nth) => {
    const inside = within(places[nth], full) // a picture at an end may be whole where its neighbour is far
    const room = Math.min(gap(nth) + inside - at, gap(nth + 1) + at - inside)
    if (room >= (full + size) / 2) centres[nth] = inside
  })
  const found = []
  order.forEach((index, nth) => {
    const at = centres[nth]
    const room = Math.min(gap(nth), gap(nth + 1)) - GAP
    const edge = 2 * Math.min(at + OVERHANG, length + OVERHANG - at)
    found[index] = { at, wide: Math.min(full, Math.max(least - GAP, Math.min(room, edge))) }
  })
  return found
}

// Centres of pictures `size` wide on the track, in order, side by side and near `places`; `isTight`: they have no room.
function spread(places, length, size) {
  const [start, end] = [size / 2 - OVERHANG, length - size / 2 + OVERHANG]
  const step = Math.min(size, (end - start) / Math.max(1, places.length - 1))
  const latest = end - step * (places.length - 1)
  const near = places.map((at, index) => Math.min(end, Math.max(start, at)) - index * step)
  const centres = rising(near).map((at, index) => Math.min(latest, Math.max(start, at)) + index * step)
  return Object.assign(centres, { isTight: step < size })
}

// The numbers that never fall and are nearest to `values`: neighbours that fall are brought to their mean.
function rising(values) {
  const runs = []
  for (const value of values) {
    runs.push({ sum: value, count: 1 })
    while (runs.length > 1 && runs.at(-2).sum / runs.at(-2).count > runs.at(-1).sum / runs.at(-1).count) {
      const { sum, count } = runs.pop()
      runs.at(-1).sum += sum
      runs.at(-1).count += count
    }
  }
  return runs.flatMap(({ sum, count }) => Array(count).fill(sum / count))
}

// [first, last + 1) in frames of what a keyframe covers; of its own frame where it holds nothing; null if not drawable.
function covered(one, groups) {
  if (one.shown === null) return null
  if (!one.held.length) return [one.shown, one.shown + 1]
  return [Math.min(...one.held.map((i) => groups[i][0])), Math.max(...one.held.map((i) => groups[i][1])) + 1]
}

export function paintKeyframes(view, { frames, groups, keyframes, seen, pictures, dragging }, selected) {
  const drawn = seen.map((one) => ({ ...one, span: covered(one, groups), chosen: selected.includes(one.index) }))
  const length = view.lane.clientWidth || 500
  const tall = Math.min(HIGHEST, Math.max(LOWEST, view.keys.clientHeight - 14))
  const middle = ({ span: [from, to] }) => (((from + to) / 2) * length) / frames
  // What is being dragged stands where it would go; the others keep still.
  const free = (one) => dragging && one.chosen
  const settled = drawn.filter((one) => one.span && !free(one))
  const spots = layOut(settled.map(middle), length, ASPECT * tall)
  settled.forEach((one, index) => (one.spot = spots[index]))
  for (const one of drawn) if (one.span) one.spot ??= layOut([middle(one)], length, ASPECT * tall)[0]

  keepInStep(view.keys, drawn, makeThumb, (key, one, index) => {
    const [pin, thumb] = key.children
    key.style.display = one.span ? '' : 'none'
    if (!one.span) return
    pin.style.left = percent(middle(one), length)
    pin.style.setProperty('--lean', `${Math.atan2(middle(one) - one.spot.at, PIN)}rad`)
    key.classList.toggle('os-selected', one.chosen)
    key.classList.toggle('os-fault', one.faults.length > 0)
    key.classList.toggle('os-partly-hidden', one.notes.length > 0)
    Object.assign(thumb.style, { left: percent(one.spot.at, length), width: `${one.spot.wide}px`, height: `${tall}px` })
    thumb.classList.toggle('os-narrow', one.spot.wide < tall)
    thumb.dataset.index = index
    describe(thumb, one, frames, view.place(one))
    thumb.children[1].textContent = keyframes[index].image
    setPicture(thumb.firstChild, pictures[one.name], keyframes[index].image)
  })
  keepInStep(view.holds, drawn, makeHold, (hold, one, index) => {
    hold.style.display = one.span ? '' : 'none'
    if (!one.span) return
    hold.style.left = percent(one.span[0], frames)
    hold.style.width = percent(one.span[1] - one.span[0], frames)
    hold.style.setProperty('--strength', one.strength)
    hold.dataset.index = index
    hold.dataset.kind = one.strength >= 1 ? 'kept' : one.strength > 0 ? 'partly' : 'generated'
    hold.classList.toggle('os-selected', one.chosen)
    hold.classList.toggle('os-fault', one.faults.length > 0)
    hold.lastChild.firstChild.textContent = one.strength.toFixed(2)
  })
}

function makeThumb() {
  const title = say('Remove this keyframe')
  return h('div', { class: 'os-key' }, h('i', { class: 'os-pin' }),
    h('div', { class: 'os-thumb', tabindex: '0', role: 'slider' },
      h('span', { class: 'os-picture' }), h('span', { class: 'os-number' }),
      h('button', { class: 'os-remove', type: 'button', tabindex: '-1', title, text: '×' })))
}

function makeHold() {
  return h('div', { class: 'os-hold' }, h('i', { class: 'os-fill' }),
    h('span', { class: 'os-handle', title: say('Strength: drag up or down') }, h('b', { class: 'os-value' })))
}

function describe(thumb, one, frames, place) {
  const strength = Number(one.strength.toFixed(2))
  const words = say('{place}, strength {strength}', { place, strength })
  thumb.title = `${one.name} · ${words}`
  thumb.setAttribute('aria-valuemin', 0)
  thumb.setAttribute('aria-valuemax', frames - 1)
  thumb.setAttribute('aria-valuenow', one.shown)
  thumb.setAttribute('aria-label', say('Keyframe of {name}', { name: one.name }))
  thumb.setAttribute('aria-valuetext', words)
  if (one.chosen) thumb.setAttribute('aria-current', 'true')
  else thumb.removeAttribute('aria-current')
}

// Show the picture at `url`, or without one the input's number.
export function setPicture(element, url, number) {
  if (element.dataset.url === String(url)) return
  element.dataset.url = String(url)
  element.style.backgroundImage = url ? `url("${url}")` : ''
  element.classList.toggle('os-no-picture', !url)
  element.textContent = url ? '' : number
}
