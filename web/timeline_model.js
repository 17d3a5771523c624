// The timeline as data: its JSON, the VAE's groups of frames, snapping, and who holds what. No page, no graph.

import { say } from './words.js'

export const EMPTY = '{"version": 1, "keyframes": []}'
const VERSION = 1

const isWhole = (value) => Number.isInteger(value)
const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value)

// What the JSON text says: {value, keyframes} to work on, or {error} in words. Nothing in `value` is dropped.
export function parse(text) {
  let value
  try {
    value = JSON.parse(text)
  } catch (error) {
    return { error: String(text ?? '').trim() ? say('it is no JSON: {reason}', { reason: error.message }) : say('it is empty') }
  }
  if (!isObject(value)) return { error: say('it is no JSON object such as {example}', { example: EMPTY }) }
  const { version = VERSION } = value
  if (version !== VERSION) return { error: say('it has version {version}; this node reads version {known}', { version: JSON.stringify(version), known: VERSION }) }
  if (!Array.isArray(value.keyframes)) return { error: say('it has no list "keyframes"') }
  return { value, keyframes: value.keyframes }
}

// One line, as Python writes JSON.
export function serialise(value) {
  if (Array.isArray(value)) return `[${value.map(serialise).join(', ')}]`
  if (!isObject(value)) return JSON.stringify(value)
  return `{${Object.entries(value)
    .map(([key, item]) => `${JSON.stringify(key)}: ${serialise(item)}`)
    .join(', ')}}`
}

const [CHUNK, FACTOR] = [17, 4]

// [[first, last], …], one a latent, as a VAE groups frames; `vae` is its family, Open-Sora 1.2's where that is not known.
export function groupsOf(frames, vae) {
  if (vae === 'vae_2d') return Array.from({ length: frames }, (_, frame) => [frame, frame])
  const groups = []
  if (vae === 'vae_v1_3') {
    // Chunks that share a frame; what is too short for a group at the end is in none.
    for (let start = 0; start < Math.max(1, frames - 1); start += CHUNK - 1)
      for (let last = start; last < Math.min(start + CHUNK, frames); last += FACTOR)
        groups.push([Math.max(start, last - FACTOR + 1), last])
    return groups
  }
  // Chunks side by side, the short group in front.
  for (let start = 0; start < frames; start += CHUNK) {
    const length = Math.min(CHUNK, frames - start)
    const padding = (FACTOR - (length % FACTOR)) % FACTOR
    for (let first = -padding; first < length; first += FACTOR)
      groups.push([start + Math.max(first, 0), start + first + FACTOR - 1])
  }
  return groups
}

// Whether a VAE represents so many frames exactly.
function represents(frames, vae) {
  if (frames === 1 || vae === 'vae_2d') return frames >= 1
  if (vae === 'vae_v1_3') return frames > 1 && frames % (CHUNK - 1) === 1
  return frames >= CHUNK && (frames % CHUNK) % FACTOR === 0
}

// The counts that a VAE represents nearest to `frames`, low to high; `frames` alone where it is one. `vae` as in groupsOf.
export function nearestFrames(frames, vae) {
  if (represents(frames, vae)) return [frames]
  let [low, high] = [frames - 1, Math.max(1, frames + 1)]
  while (low > 0 && !represents(low, vae)) low--
  while (!represents(high, vae)) high++
  return low > 0 ? [low, high] : [high]
}

// 0 … frames - 1 for a frame that may count from the end; null outside of the clip.
export function resolve(frame, frames) {
  return isWhole(frame) && frame >= -frames && frame < frames ? (frame + frames) % frames : null
}

// Indices of the groups that `count` images from frame `at` on hold: an image all it falls into, a clip those it covers.
export function held(groups, at, count = 1) {
  const indices = groups.map((_, index) => index)
  if (count <= 1) return indices.filter((index) => groups[index][0] <= at && at <= groups[index][1])
  return indices.filter((index) => at <= groups[index][0] && groups[index][1] < at + count)
}

// The frames where something can be put: each group's first.
export function places(groups) {
  return [...new Set(groups.map(([first]) => first))].sort((a, b) => a - b)
}

// The place of the group around `position`, a frame number with fraction; positions outside go to the ends.
export function snap(groups, position) {
  return places(groups).reduce((found, place) => (place <= position ? place : found), groups[0][0])
}

// The place `by` groups further on, within the clip.
export function step(groups, at, by) {
  const all = places(groups)
  const here = all.indexOf(snap(groups, at))
  return all[Math.min(all.length - 1, Math.max(0, here + by))]
}

// Frames for keyframes `indices` of what `review` saw, moved together by `by` places as far as all stay in the clip:
// [[index, frame], …] of those that change.
export function shifted(groups, seen, indices, by) {
  const all = places(groups)
  const here = indices.filter((index) => seen[index].shown !== null)
    .map((index) => [index, all.indexOf(snap(groups, seen[index].shown))])
  const at = here.map(([, place]) => place)
  const step = Math.max(-Math.min(...at), Math.min(all.length - 1 - Math.max(...at), by))
  return here.filter(([index]) => step || seen[index].at === null).map(([index, place]) => [index, all[place + step]])
}

// The places where `count` images would hide nothing: none of the groups that they hold is among `taken`, a set.
export function freePlaces(groups, taken, count) {
  return places(groups).filter((place) => {
    const own = held(groups, place, count)
    return own.length && own.every((index) => !taken.has(index))
  })
}

// The one of `choices` that is nearest to `at`, of two the later; undefined where there is none.
export function nearest(choices, at) {
  const distance = (choice) => Math.abs(choice - at)
  return choices.reduce((best, next) => (distance(next) <= distance(best) ? next : best), choices[0])
}

// Places for [{at, count}, …] with the first of them at `start`: their distances are kept, what is taken gives way to the
// nearest free place, and what would lie beyond the clip, or finds nothing free, gets null. `taken`: groups that are held.
export function settle(groups, frames, items, start, taken) {
  const [used, found] = [new Set(taken), items.map(() => null)]
  const order = items.map((_, index) => index).sort((a, b) => items[a].at - items[b].at)
  let begin = start
  order.forEach((index, nth) => {
    const { at, count } = items[index]
    const wanted = begin + at - items[order[0]].at
    const free = wanted < frames ? freePlaces(groups, used, count) : []
    const place = free.includes(snap(groups, wanted)) ? snap(groups, wanted) : nearest(free, wanted)
    if (place === undefined) return
    if (!nth) begin = place
    found[index] = place
    for (const group of held(groups, place, count)) used.add(group)
  })
  return found
}

export const strengthOf = (keyframe) => (keyframe.strength === undefined ? 1 : keyframe.strength)

// "9–12", "0", or "0, 16–20" for groups by index.
export function spanWords(groups, indices) {
  const runs = []
  for (const [first, last] of indices.map((index) => groups[index])) {
    const run = runs.at(-1)
    if (run && first <= run[1] + 1) run[1] = Math.max(run[1], last)
    else runs.push([first, last])
  }
  return runs.map(([first, last]) => (first === last ? `${first}` : `${first}–${last}`)).join(', ')
}

// "frame 12" or "frames 9–12"
export const framesWords = (first, last) =>
  first === last ? say('frame {frame}', { frame: first }) : say('frames {first}–{last}', { first, last })

export const seconds = (frame, fps) => `${(frame / fps).toFixed(2)} s`

// "frame 12 · 0.50 s, holds 9–12"
export function placeWords(groups, at, count, fps, frame = at) {
  const own = held(groups, at, count)
  const place = `${framesWords(frame, frame)}${frame < 0 ? ` (${at})` : ''} · ${seconds(at, fps)}`
  return own.length ? say('{place}, holds {span}', { place, span: spanWords(groups, own) }) : say('{place}, holds no whole group', { place })
}

// Every keyframe looked at: [{index, name, at, held, kept, strength, faults: [words], notes: [words]}, …].
// `counts` tells how many images an input has where that is known; `connected` which inputs have a wire (null: unknown).
// at is its frame, null outside of the clip, where shown is the end it is beyond (null: it cannot be drawn at all); held
// are the groups it covers, kept those that no later keyframe takes.
export function review(keyframes, groups, frames, { counts = {}, connected = null } = {}) {
  const seen = keyframes.map((keyframe, index) => look(keyframe, index, groups, frames, counts, connected))
  const owner = new Map()
  for (const one of seen) for (const index of one.held) owner.set(index, one)
  for (const one of seen) {
    one.kept = one.held.filter((index) => owner.get(index) === one)
    const lost = one.held.filter((index) => owner.get(index) !== one)
    if (!lost.length) continue
    const winners = [...new Set(lost.map((index) => owner.get(index).label))].join(', ')
    const where = spanWords(groups, lost)
    const values = { label: one.label, winners, where }
    if (one.kept.length) one.notes.push(say('{label}: {winners} comes later in the list and takes {where}', values))
    else one.faults.push(`${say('{label} is hidden: {winners} holds {where} too and wins.', values)} ${freePlace(one, owner, groups)}`)
  }
  return seen
}

function look(keyframe, index, groups, frames, counts, connected) {
  const one = { index, held: [], kept: [], faults: [], notes: [], at: null, shown: null, strength: 1, name: null }
  one.label = say('keyframe {number}', { number: index + 1 })
  const { label } = one
  if (!isObject(keyframe)) one.faults.push(say('{label} is no object with image and frame', { label }))
  else if (!isWhole(keyframe.image)) one.faults.push(say('{label} has no number of an image', { label }))
  else if (!isWhole(keyframe.frame))
    one.faults.push(say('{label} (image {image}) has no whole number as frame', { label, image: keyframe.image }))
  if (one.faults.length) return one
  one.name = `image_${keyframe.image}`
  one.label = say('image {image} at frame {frame}', keyframe)
  const fault = (text) => one.faults.push(`${one.label}: ${text}`)
  one.at = resolve(keyframe.frame, frames)
  one.strength = strengthOf(keyframe)
  if (connected && !connected.has(one.name)) fault(say('{name} is not connected', { name: one.name }))
  if (typeof one.strength !== 'number' || !(one.strength >= 0 && one.strength <= 1)) {
    fault(say('strength is {strength}; allowed are 0 to 1', { strength: JSON.stringify(one.strength) }))
    one.strength = Math.min(1, Math.max(0, Number(one.strength) || 0))
  }
  one.shown = one.at ?? (keyframe.frame < 0 ? 0 : frames - 1)
  if (one.at === null) one.faults.push(say('{label} is outside of the clip, which has frames 0 to {last}', { label: one.label, last: frames - 1 }))
  else one.held = held(groups, one.at, counts[one.name])
  if (one.at !== null && !one.held.length) fault(say('the clip covers no whole group there'))
  return one
}

function freePlace(one, owner, groups) {
  const free = groups.map((_, index) => index).filter((index) => !owner.has(index))
  if (!free.length) return say('No group is free.')
  const distance = (index) => Math.abs(groups[index][0] - one.at)
  const nearest = free.reduce((best, index) => (distance(index) < distance(best) ? index : best))
  return say('The nearest free place is {span}.', { span: spanWords(groups, [nearest]) })
}

// Distance of ruler marks, at least `room` apart: the smallest of `nice` (which repeats times ten) that is long enough.
export function tickStep(length, pixels, room, nice) {
  for (let scale = 1; ; scale *= 10)
    for (const each of nice) if (((each * scale) / length) * pixels >= room || each * scale >= length) return each * scale
}
