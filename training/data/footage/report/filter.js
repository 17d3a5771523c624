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
const isMixed = pictures.length > 0 && pictures.length < shots.length
const words = { motion: new Set(), copies: false, text: '', pictures: isMixed }

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
function valueOf(score, row) {
  if (score.expression !== LENGTH) return score.values[row.number]
  return row.fps > 0 ? row.frames / row.fps : null
}

// Pictures have neither motion nor length: limits on those may let them pass.
const OF_MOTION = [LENGTH, 'flow_dis', 'flow_raft']
const pass = (expression) => words.pictures && OF_MOTION.includes(expression)

// Each condition: as text, which rows it lets pass unasked, the column and value that it asks about, which values are
// bad, and why.
function conditions() {
  const found = []
  for (const [score, { low, high }] of limits) {
    const { expression } = score
    const free = pass(expression)
    const text = low === null ? `${expression} <= ${high}` : high === null ? `${expression} >= ${low}`
      : `${low} <= ${expression} <= ${high}`
    found.push({
      text: free ? `num_frames == 1 or ${text}` : text, column: expression,
      free: (row) => free && row.frames === 1, value: (row) => valueOf(score, row),
      bad: (value) => (low !== null && value < low) || (high !== null && value > high),
      why: (value) => {
        const asked = low !== null && value < low ? `>= ${low}` : `<= ${high}`
        return `${expression} is ${shown(value, 6)}; the filter asks for ${asked}`
      },
    })
  }
  const add = (text, column, field, bad, why) => {
    found.push({ text, column, free: () => false, value: (row) => row[field], bad, why })
  }
  for (const motion of words.motion) {
    add(`cmotion != ${quoted(motion)}`, 'cmotion', 'motion', (value) => value === motion,
      (value) => `cmotion is ${quoted(value)}; the filter asks for another`)
  }
  if (words.copies) add('duplicate_of == ""', 'duplicate_of', 'copy', Boolean, (value) => `it is a copy of ${value}`)
  if (words.text) {
    add(`${quoted(words.text)} in text`, 'text', 'text', (value) => !value.includes(words.text),
      () => `its caption does not hold ${quoted(words.text)}`)
  }
  return found
}

function filterText() {
  const texts = conditions().map((one) => one.text)
  const isEither = (text) => texts.length > 1 && text.startsWith('num_frames == 1 or ')
  return texts.map((text) => (isEither(text) ? `(${text})` : text)).join(' and ')
}

// Number of a row → the condition that leaves it out; null for what is kept and for what is out already.
const dropped = rows.map(() => null)
// Number of a row → how many conditions it fails, and its fate.
const failing = new Uint8Array(rows.length)
const [BEFORE, DROPPED, STAYS] = [0, 1, 2]
const fate = new Uint8Array(rows.length)

function judge() {
  const all = conditions()
  failing.fill(0)
  for (const row of shots) {
    const { number } = row
    dropped[number] = null
    for (const condition of all) {
      if (condition.free(row)) continue
      const value = condition.value(row)
      if (value !== null && !condition.bad(value)) continue
      failing[number] += 1
      if (!isOut(row)) dropped[number] ??= condition
    }
    fate[number] = isOut(row) ? BEFORE : dropped[number] ? DROPPED : STAYS
  }
}

const stays = (row) => fate[row.number] === STAYS
const isDropped = (row) => fate[row.number] === DROPPED

// Why a row is left out: in full, and without what differs from row to row.
function reasonOf(row) {
  const condition = dropped[row.number]
  if (!condition) return row.reason
  const value = condition.value(row)
  return value === null ? `${condition.column} is missing` : condition.why(value)
}

function kindOf(row) {
  const condition = dropped[row.number]
  if (!condition) return data.reasons[row.group]
  return condition.value(row) === null ? `${condition.column} is missing` : `the filter asks for ${condition.text}`
}

const filesOf = data.files.map(() => [])
for (const row of rows) filesOf[row.file].push(row)
for (const list of filesOf) list.sort((one, other) => one.start - other.start)
const isOneOfMany = (row) => isShot(row) && filesOf[row.file].length > 1

// Numbers as one reads them, of so many digits.
function shown(value, digits = 3) {
  if (value === null || value === undefined) return '–'
  if (Number.isInteger(value)) return value.toLocaleString('en')
  return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString('en') : String(Number(value.toPrecision(digits)))
}

function lasting(length) {
  if (length < 99.95) return `${length.toFixed(1)} s`
  return length < 5997 ? `${(length / 60).toFixed(1)} min` : `${(length / 3600).toFixed(1)} h`
}

const counted = (count, what) => `${count.toLocaleString('en')} ${what}${count === 1 ? '' : 's'}`
const fileName = (path) => path.split(/[\\/]/).pop()
const nameOf = (row) => fileName(data.files[row.file]) + (isOneOfMany(row) ? ` · ${row.shot}` : '')
