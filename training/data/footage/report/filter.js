// What would be kept: limits on scores and words on columns, the filter that says them, and why a row fails it.

const data = JSON.parse(document.getElementById('data').textContent)
const rows = data.rows.map((values, number) => ({
  number, ...Object.fromEntries(data.fields.map((field, place) => [field, values[place]])),
}))
const shots = rows.filter((row) => row.shot >= 0)

const LENGTH = 'num_frames / fps'
const pictures = shots.filter((row) => row.frames === 1)
const limits = new Map() // score → { low, high }; either may be null
// Camera motions and copies that are not wanted, a caption's words, whether pictures pass limits on motion.
const words = { motion: new Set(), copies: false, text: '', pictures: pictures.length > 0 && pictures.length < shots.length }

const isShot = (row) => row.shot >= 0
const isOut = (row) => row.group >= 0 // by the manifest
const seconds = (row) => (row.frames > 1 && row.fps > 0 ? row.frames / row.fps : 0)
const lengthOf = (list) => list.reduce((sum, row) => sum + seconds(row), 0)

function limitsOf(score) {
  return limits.get(score) ?? { low: null, high: null }
}

function setLimit(score, side, value) {
  const both = { ...limitsOf(score), [side]: value }
  if (both.low === null && both.high === null) limits.delete(score)
  else limits.set(score, both)
}

// A text as the filter's language writes it.
const quoted = (text) => JSON.stringify(text)

// A row's value; a picture's length is what the filter's arithmetic makes of it, though it counts for nothing.
const valueOf = (score, row) => (score.expression !== LENGTH ? score.values[row.number] : row.fps > 0 ? row.frames / row.fps : null)

// Pictures have neither motion nor length: limits on those may let them pass.
const OF_MOTION = [LENGTH, 'flow_dis', 'flow_raft']
const pass = (expression) => words.pictures && OF_MOTION.includes(expression)

// Each condition: as text, and why a row fails it: [the reason, what the filter asks for], or nothing where it passes.
function conditions() {
  const found = []
  const add = (text, missing, why) => found.push({ text, why: (row) => {
    if (missing(row)) return [`${missing(row)} is missing`, `${missing(row)} is missing`]
    const reason = why(row)
    return reason && [reason, `the filter asks for ${text}`]
  } })
  for (const [score, { low, high }] of limits) {
    const { expression } = score
    const fails = (row) => {
      const value = valueOf(score, row)
      const asked = low !== null && value < low ? `>= ${low}` : high !== null && value > high ? `<= ${high}` : ''
      return asked && `${expression} is ${shown(value)}; the filter asks for ${asked}`
    }
    const text = low === null ? `${expression} <= ${high}` : high === null ? `${expression} >= ${low}`
      : `${low} <= ${expression} <= ${high}`
    const free = (row) => pass(expression) && row.frames === 1
    add(pass(expression) ? `num_frames == 1 or ${text}` : text,
      (row) => !free(row) && valueOf(score, row) === null && expression, (row) => !free(row) && fails(row))
  }
  for (const motion of words.motion) {
    add(`cmotion != ${quoted(motion)}`, (row) => row.motion === null && 'cmotion',
      (row) => row.motion === motion && `cmotion is ${quoted(motion)}; the filter asks for another`)
  }
  if (words.copies) {
    add('duplicate_of == ""', (row) => row.copy === null && 'duplicate_of', (row) => row.copy && `it is a copy of ${row.copy}`)
  }
  if (words.text) {
    add(`${quoted(words.text)} in text`, (row) => row.text === null && 'text',
      (row) => !row.text.includes(words.text) && `its caption does not hold ${quoted(words.text)}`)
  }
  return found
}

function filterText() {
  const texts = conditions().map((one) => one.text)
  return texts.map((text) => (texts.length > 1 && text.startsWith('num_frames == 1 or ') ? `(${text})` : text)).join(' and ')
}

// Number of a row → [why the filter leaves it out, what it asks for]; null for what it keeps and for what is out already.
let dropped = rows.map(() => null)
// Number of a row → how many conditions it fails.
let failing = rows.map(() => 0)

function judge() {
  const all = conditions()
  dropped = rows.map(() => null)
  failing = rows.map(() => 0)
  for (const row of shots) {
    for (const { why } of all) {
      const reason = why(row)
      if (!reason) continue
      failing[row.number] += 1
      if (!isOut(row)) dropped[row.number] ??= reason
    }
  }
}

const stays = (row) => isShot(row) && !isOut(row) && !dropped[row.number]
const reasonOf = (row) => row.reason || dropped[row.number]?.[0] || ''

const filesOf = data.files.map(() => [])
for (const row of rows) filesOf[row.file].push(row)
for (const list of filesOf) list.sort((one, other) => one.start - other.start)
const isOneOfMany = (row) => isShot(row) && filesOf[row.file].length > 1

// Numbers as one reads them.
function shown(value) {
  if (value === null || value === undefined) return '–'
  if (Number.isInteger(value)) return value.toLocaleString('en')
  return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString('en') : String(Number(value.toPrecision(3)))
}

function lasting(length) {
  if (length < 99.95) return `${length.toFixed(1)} s`
  return length < 5997 ? `${(length / 60).toFixed(1)} min` : `${(length / 3600).toFixed(1)} h`
}

const counted = (count, what) => `${count.toLocaleString('en')} ${what}${count === 1 ? '' : 's'}`
const fileName = (path) => path.split(/[\\/]/).pop()
const nameOf = (row) => fileName(data.files[row.file]) + (isOneOfMany(row) ? ` · ${row.shot}` : '')
